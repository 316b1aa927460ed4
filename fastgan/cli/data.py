"""fastgan data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import need_extra, parse, trust_data
from fastgan.names import did_you_mean
from fastgan.options import Count, Side


@dataclass(kw_only=True)
class Options:
    source: str
    """A name from `fastgan data list`, or a folder, zip, npz or npy of images."""
    out: Path
    """The npz to write; training maps it into memory, so it starts at once."""
    split: str | None = None
    """The part to take: train or test of a named set, or the name of a sub-folder (train, val, ...)."""
    resolution: Side | tuple[Side, Side] | None = None
    """Resize images to this many pixels a side, or to a height and a width: 96 160. Default: as they are."""
    channels: Count | None = None
    """1: images in grey, 2: in grey with alpha, 3: in colour, 4: in colour with alpha. Default: as they are; files are read
    in colour."""
    bits: Literal[8, 16] | None = None
    """Bits of each value. Default: as they are; files are read in 8."""
    crop: Literal["center", "stretch", "none"] = "center"
    """What to do with images of another aspect ratio than the resolution's, or than a square's where none is given: cut out
    the middle, squeeze them, or take all as they are (none)."""
    strict: bool = False
    """Stop at an unreadable image instead of skipping and counting it."""


def data(argv: list[str]) -> int:
    """Data sets: fastgan data list | fastgan data prepare SOURCE OUT.npz"""
    import fastgan.data

    command, *rest = argv or ["--help"]
    if command == "list":
        from fastgan.data.text import TEXT_NAMES

        added = fastgan.data.DATA.added()
        ours = [name for name in fastgan.data.names() if name not in added]
        print(
            "images:",
            *ours,
            "and any folder, zip, npz or npy of images, shards (.tar) or hf:FOLDER by its path",
            sep="\n  ",
        )
        print("text:", *TEXT_NAMES, "and any text file with a sentence per line by its path", sep="\n  ")
        print("signals:", "any folder or zip of recordings, recording, npz or npy by its path", sep="\n  ")
        if added:
            print(
                "registered:", *(f"{name}, {fastgan.data.DATA[name].help}".rstrip(", ") for name in added), sep="\n  "
            )
        return 0
    if command != "prepare":
        known = command in ("-h", "--help")
        if not known:
            print(
                f"fastgan data: unknown command {command!r}{did_you_mean(command, ('list', 'prepare'))}",
                file=sys.stderr,
            )
        print(data.__doc__, file=None if known else sys.stderr)
        return 0 if command in ("-h", "--help") and argv else 2
    need_extra()
    o = parse(Options, rest, "fastgan data prepare", "Decode and resize a data set once, into one file.")
    trust_data(o.source, rest)
    names = ("split", "resolution", "channels", "bits", "crop", "strict")
    made = fastgan.data.prepare(o.source, o.out, **{name: getattr(o, name) for name in names})
    shape = "x".join(map(str, made.images.shape[1:]))
    print(f"{o.out}: {shape} pixels, {made.about}, {len(made.skipped)} files skipped")
    return 0
