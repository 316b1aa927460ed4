"""fastgan eval, data and info."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import UsageError, need_extra, parse
from fastgan.names import did_you_mean
from fastgan.training.options import Side


def evaluate(argv: list[str]) -> int:
    """Metrics of a run: fastgan eval RUN [--samples N] [--metrics NAME,NAME]"""
    need_extra()
    import tyro

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
        """Only those whose names begin with one of these, separated by commas. Default: all."""
        extractor: str = "efflite0"
        """Features of images: efflite0 (works offline), or inception, which FID is named for."""
        weights: Path | None = None
        """A local file of the Inception weights, instead of a download."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""

    options = parse(Options, None, argv, "fastgan eval", evaluate.__doc__.partition(":")[0])
    try:
        recipe, networks = load_run(options.run, find_device(options.device))
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    run = dataclasses.asdict(read_run(options.run).run)
    columns = recipe.evaluate(networks, run, options.samples, extractor=options.extractor, weights=options.weights)
    names = list(next(iter(columns.values())))
    wanted = tuple(options.metrics.split(",")) if options.metrics else ("",)
    chosen = [name for name in names if name.startswith(wanted)]
    if not chosen:
        raise UsageError(f"--metrics {options.metrics}: expected names among {', '.join(names)}")
    width = max(map(len, chosen))
    room = max(10, *(len(label) + 2 for label in columns))
    print(" " * width + "".join(f"{label:>{room}}" for label in columns))
    for name in chosen:
        print(f"{name:{width}}" + "".join(f"{values[name]:{room}.4f}" for values in columns.values()))
    (find_run(options.run) / "metrics.json").write_text(
        json.dumps({"samples": options.samples, **columns}, indent=1) + "\n", encoding="utf-8"
    )
    return 0


def data(argv: list[str]) -> int:
    """Data sets: fastgan data list | fastgan data prepare SOURCE OUT.npz"""
    import fastgan.data

    command, *rest = argv or ["--help"]
    if command == "list":
        from fastgan.data.text import TEXT_NAMES

        print("images:", *fastgan.data.names(), "and any folder, zip or npz of images by its path", sep="\n  ")
        print("text:", *TEXT_NAMES, "and any text file with a sentence per line by its path", sep="\n  ")
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
        """A name from `fastgan data list`, or a folder, zip or npz of images."""
        out: tyro.conf.Positional[Path]
        """The npz to write; training maps it into memory, so it starts at once."""
        split: str | None = None
        """The part to take: train or test of a named set, or the name of a sub-folder (train, val, ...)."""
        resolution: Side | None = None
        """Resize images to this many pixels a side. Default: as they are."""
        crop: Literal["center", "stretch"] = "center"
        """What to do with images that are not square: cut out the middle, or squeeze them."""
        strict: bool = False
        """Stop at an unreadable image instead of skipping and counting it."""

    o = parse(Options, None, rest, "fastgan data prepare", "Decode and resize a data set once, into one file.")
    options = {"split": o.split, "resolution": o.resolution, "crop": o.crop, "strict": o.strict}
    made = fastgan.data.prepare(o.source, o.out, **options)
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
