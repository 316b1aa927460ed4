"""fastgan eval, data and info."""

import dataclasses
import itertools
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import UsageError, need_extra, parse, trust_data
from fastgan.names import did_you_mean
from fastgan.options import Count, Side


def evaluate(argv: list[str]) -> int:
    """Metrics of a run: fastgan eval RUN [--samples N] [--metrics NAME,NAME] [--out FILE]"""
    need_extra()
    import tyro

    from fastgan.files import complete, writable
    from fastgan.recipes import find_run, load_run, read_run
    from fastgan.training.checkpoint import CheckpointError
    from fastgan.training.distributed import find_device

    @dataclass
    class Options:
        run: tyro.conf.Positional[Path]
        """Run folder, as `fastgan train` made it."""
        samples: int = 2000
        """How many samples to draw."""
        metrics: str | None = None
        """Compute only these, separated by commas: fd (fid with --extractor inception), kid, prdc, is, ppl, eq; bleu, self-bleu,
        distinct, nll, ... of texts; l1, psnr, ssim, cycle of translations; those of your own that the recipe's code or a package
        registers; or how names of figures begin. Default: all that the recipe lists and that can be computed."""
        extractor: str = "efflite0"
        """Features of images: efflite0 (works offline), inception, which FID is named for, or one of your own: a registered
        name, mypackage.features:make or path/mine.py:make."""
        weights: Path | None = None
        """A local file of the Inception weights, instead of a download."""
        data: tuple[str, ...] | None = None
        """Measure against this data set instead of the run's own: a name, a path, or code as module:function; two for
        translation."""
        recipe: str | None = None
        """The recipe that the run was trained with, where it is not one that is registered: mypackage.recipes:Mine or
        path/mine.py:Mine. Its code is imported; RUN alone chooses no code."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""
        out: Path | None = None
        """The .json to write the figures to. Default: metrics.json in the run folder."""

    options = parse(Options, None, argv, "fastgan eval", evaluate.__doc__.partition(":")[0])
    asked = None if options.metrics is None else options.metrics.split(",")
    if options.out is not None and (options.out.is_dir() or not writable(options.out.parent)):
        raise UsageError(f"--out {options.out} cannot be written")
    try:
        recipe, networks = load_run(options.run, find_device(options.device), options.recipe)
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    run = dataclasses.asdict(read_run(options.run, type(recipe)).run)
    if options.data is not None:
        trust_data(options.data, argv)
        run["data"] = options.data if options.data[1:] else options.data[0]
    notes: list[str] = []

    def note(message: Warning, *where, **more) -> None:
        notes.append(str(message))
        print(f"fastgan eval: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = note
        columns = recipe.evaluate(
            networks, run, options.samples, extractor=options.extractor, weights=options.weights, metrics=asked
        )
    names = list(dict.fromkeys(itertools.chain.from_iterable(columns.values())))
    if not names:
        raise UsageError("no figure could be computed")
    width = max(map(len, names))
    room = max(10, *(len(label) + 2 for label in columns))
    print(" " * width + "".join(f"{label:>{room}}" for label in columns))
    for name in names:
        cells = (f"{values[name]:{room}.4f}" if name in values else f"{'-':>{room}}" for values in columns.values())
        print(f"{name:{width}}" + "".join(cells))
    out = options.out or find_run(options.run) / "metrics.json"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with complete(out) as temporary:
            found = {"samples": options.samples} | ({"notes": notes} if notes else {}) | columns
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        print(
            f"fastgan eval: {out} could not be written ({error.strerror}); --out FILE chooses another", file=sys.stderr
        )
        return 1 if options.out else 0
    return 0


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
    import tyro

    @dataclass
    class Options:
        source: tyro.conf.Positional[str]
        """A name from `fastgan data list`, or a folder, zip, npz or npy of images."""
        out: tyro.conf.Positional[Path]
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

    o = parse(Options, None, rest, "fastgan data prepare", "Decode and resize a data set once, into one file.")
    trust_data(o.source, rest)
    names = ("split", "resolution", "channels", "bits", "crop", "strict")
    made = fastgan.data.prepare(o.source, o.out, **{name: getattr(o, name) for name in names})
    shape = "x".join(map(str, made.images.shape[1:]))
    print(f"{o.out}: {shape} pixels, {made.about}, {len(made.skipped)} files skipped")
    return 0


def info(argv: list[str]) -> int:
    """Versions, and what each operation runs on here: fastgan info"""
    if argv:
        print(info.__doc__)
        return 0 if argv[0] in ("-h", "--help") else 2
    from fastgan.info import report

    print(report())
    return 0
