"""fastgan data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import need_extra, parse, trust_data
from fastgan.cli.table import show
from fastgan.fields import docstring
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
    command, *rest = argv or ["--help"]
    if command == "list":
        return _list(rest)
    if command != "prepare":
        known = command in ("-h", "--help")
        if not known:
            print(
                f"fastgan data: unknown command {command!r}{did_you_mean(command, ('list', 'prepare'))}",
                file=sys.stderr,
            )
        print(docstring(data), file=None if known else sys.stderr)
        return 0 if command in ("-h", "--help") and argv else 2
    need_extra()
    from fastgan.data import prepare as make

    o = parse(Options, rest, "fastgan data prepare", "Decode and resize a data set once, into one file.")
    trust_data(o.source, rest)
    names = ("split", "resolution", "channels", "bits", "crop", "strict")
    made = make(o.source, o.out, **{name: getattr(o, name) for name in names})
    shape = "x".join(map(str, made.images.shape[1:]))
    print(f"{o.out}: {shape} pixels, {made.about}, {len(made.skipped)} files skipped")
    return 0


def _list(argv: list[str]) -> int:
    """Data sets by name: fastgan data list"""
    if argv:
        print(docstring(_list), file=None if argv[0] in ("-h", "--help") else sys.stderr)
        return 0 if argv[0] in ("-h", "--help") else 2
    from fastgan.data import DATA
    from fastgan.data.facts import FACTS

    rows, missing = [], []
    for name, items, shape, classes, licence, about, absent in FACTS:
        why = absent()
        missing += [f"{name} is not here: {why}"] * bool(why)
        rows.append([name, f"{items:,}", shape, str(classes or "-"), licence, "no" if why else "yes", about])
    for name in DATA.added():
        rows.append([name, *["-"] * 5, DATA[name].help or "registered"])
    show(["name", ">items", "each", ">classes", "licence", "here", "what"], rows)
    print(*missing, sep="\n", end="\n" * bool(missing))
    print(_OWN)
    return 0


_OWN = """
One class of a set: emoji:food, emoji:twitter:animals, fashion-mnist:ankle. The licences in full: fastgan/data/assets/NOTICE.txt
Your own, by the path: a folder, zip, npz or npy of images; shards (.tar); hf:FOLDER; a text file with a sentence per line;
a folder or zip of recordings. Two sets for translation: fastgan train cyclegan --data FOLDER_A FOLDER_B"""
