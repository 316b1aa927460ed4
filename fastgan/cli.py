"""The program `fastgan`: train, sample, eval, data, info. Heavy imports wait until a command needs them."""

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# What `train` and `sample` need beyond torch: module -> package
EXTRA = {
    "tyro": "tyro",
    "rich": "rich",
    "tensorboard": "tensorboard",
    "safetensors": "safetensors",
    "PIL": "pillow",
}


class UsageError(Exception):
    """A mistake in the command line; shown without a traceback."""


def _need_extra() -> None:
    missing = [package for module, package in EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: pip install 'fastgan[train]'")


def _recipe_list() -> str:
    from fastgan.recipes import RECIPES

    width = max(map(len, RECIPES))
    return "\n".join(f"  {name:{width}}  {line}" for name, (_, line) in RECIPES.items())


def _parse(config, default, argv: list[str], program: str, description: str):
    import tyro

    markers = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(config, default=default, args=argv, prog=program, description=description, config=markers)


def train(argv: list[str]) -> int:
    """Train a GAN: fastgan train RECIPE [--data NAME|FOLDER|ZIP] [--steps N] [--out DIR] [--resume] [...]"""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{train.__doc__}\n\nrecipes (fastgan train RECIPE --help lists its options):\n{_recipe_list()}")
        return 0 if argv else 2
    _need_extra()
    from fastgan import recipes
    from fastgan.training import CheckpointError, Interrupted, RunConfig, Trainer, TrainingError

    name, *rest = argv
    chosen = recipes.get(name)

    @dataclass
    class Options:
        run: RunConfig
        recipe: chosen.Config

    program = f"fastgan train {name}"
    defaults = Options(RunConfig(data=chosen.default_data), chosen.Config())
    options = _parse(Options, defaults, rest, program, chosen.Config.__doc__)
    if options.run.resume:
        # The run's own options are the defaults now; what the command line says still wins.
        options = _parse(Options, _saved_options(chosen, options.run, Options), rest, program, chosen.Config.__doc__)
    _tune_cpu(options.run.device)
    trainer = Trainer(chosen, options.recipe, options.run)
    try:
        folder = trainer.train()
    except Interrupted as stop:
        if trainer.world.main:
            print(stop, flush=True)
        return 128 + stop.signal
    except (TrainingError, CheckpointError) as error:
        raise UsageError(str(error)) from error
    finally:
        trainer.close()
    if trainer.world.main:
        print(f"done: {folder}/report.html, samples in {folder}/samples\nmore: fastgan sample {folder} --seeds 0-15")
    return 0


def _saved_options(recipe, run, options):
    from fastgan.training.run import RunConfig, find_folder

    folder = find_folder(recipe.name, run)
    saved = json.loads((folder / "config.json").read_text())
    if saved["recipe"] != recipe.name:
        raise UsageError(f"{folder} is a run of recipe {saved['recipe']}, not {recipe.name}")
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["config"].items()}
    saved["run"] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["run"].items()}
    return options(RunConfig(**{**saved["run"], "out": str(folder), "resume": True}), recipe.Config(**config))


def _tune_cpu(device: str) -> None:
    """Before the first large allocation of a run on the CPU."""
    import torch

    import fastgan

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        fastgan.tune_cpu_allocator()


def _seeds(text: str) -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]. Raises UsageError."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = []
    if not seeds:
        raise UsageError(f"--seeds is {text!r}, expected numbers and ranges such as 0-15,20")
    return seeds


def sample(argv: list[str]) -> int:
    """Draw samples from a run: fastgan sample RUN [--seeds 0-15] [--out FILE]"""
    _need_extra()
    import tyro

    from fastgan.recipes import load_run
    from fastgan.training.checkpoint import CheckpointError
    from fastgan.training.engine import draw
    from fastgan.training.log import save_samples

    @dataclass
    class Options:
        run: tyro.conf.Positional[Path]
        """Run folder, as `fastgan train` made it."""
        seeds: str = "0-15"
        """One sample per seed: numbers and ranges. The same seed gives the same sample."""
        out: Path | None = None
        """File to write. Default: RUN/samples/seeds-SEEDS.png (.txt for texts)."""
        device: str = "cpu"
        """cpu, cuda or cuda:N."""

    options = _parse(Options, None, argv, "fastgan sample", sample.__doc__.partition(":")[0])
    seeds = _seeds(options.seeds)
    try:
        recipe, networks = load_run(options.run, options.device)
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    out = options.out or options.run / "samples" / f"seeds-{options.seeds}"
    print(save_samples(draw(recipe, networks, seeds), out))
    return 0


def evaluate(argv: list[str]) -> int:
    """Metrics of a run: fastgan eval RUN [--samples N] [--metrics NAME,NAME]"""
    _need_extra()
    import tyro

    from fastgan.recipes import load_run
    from fastgan.training.checkpoint import CheckpointError

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
        device: str = "cpu"
        """cpu, cuda or cuda:N."""

    options = _parse(Options, None, argv, "fastgan eval", evaluate.__doc__.partition(":")[0])
    try:
        recipe, networks = load_run(options.run, options.device)
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    run = json.loads((options.run / "config.json").read_text())["run"]
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
    (options.run / "metrics.json").write_text(json.dumps({"samples": options.samples, **columns}, indent=1) + "\n")
    return 0


def data(argv: list[str]) -> int:
    """Data sets: fastgan data list | fastgan data prepare SOURCE OUT.npz"""
    import fastgan.data

    command, *rest = argv or ["--help"]
    if command == "list":
        print("\n".join(fastgan.data.names()))
        print("and any folder, zip or npz of images by its path")
        return 0
    if command != "prepare":
        print(data.__doc__)
        return 0 if command in ("-h", "--help") and argv else 2
    _need_extra()
    import tyro

    @dataclass
    class Options:
        source: tyro.conf.Positional[str]
        """A name from `fastgan data list`, or a folder, zip or npz of images."""
        out: tyro.conf.Positional[Path]
        """The npz to write; training maps it into memory, so it starts at once."""
        resolution: int | None = None
        """Resize images to this many pixels a side. Default: as they are."""
        crop: Literal["center", "stretch"] = "center"
        """What to do with images that are not square: cut out the middle, or squeeze them."""
        strict: bool = False
        """Stop at an unreadable image instead of skipping and counting it."""

    o = _parse(Options, None, rest, "fastgan data prepare", "Decode and resize a data set once, into one file.")
    made = fastgan.data.load(o.source, resolution=o.resolution, crop=o.crop, strict=o.strict)
    fastgan.data.save_npz(made, o.out)
    shape = "x".join(map(str, made.images.shape[1:]))
    print(f"{o.out}: {len(made)} images of {shape}, {made.num_classes} classes, {len(made.skipped)} files skipped")
    return 0


def info(argv: list[str]) -> int:
    """Versions, and what each operation runs on here: fastgan info"""
    if argv:
        print(info.__doc__)
        return 0 if argv[0] in ("-h", "--help") else 2
    from fastgan.info import report

    print(report())
    return 0


COMMANDS = {"train": train, "sample": sample, "eval": evaluate, "data": data, "info": info}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a failure, 2 for a wrong command line, 128 + n for signal n."""
    argv = sys.argv[1:] if argv is None else argv
    command, *rest = argv or ["--help"]
    if command == "--version":
        import fastgan

        print(f"fastgan {fastgan.__version__}")
        return 0
    if command not in COMMANDS:
        known = command in ("-h", "--help")
        if not known:
            print(f"fastgan: unknown command {command!r}", file=sys.stderr)
        lines = "\n".join(f"  {name:8}{function.__doc__}" for name, function in COMMANDS.items())
        print(
            f"fastgan COMMAND ...\n\n{lines}\n\nfastgan COMMAND --help says more.", file=None if known else sys.stderr
        )
        return 0 if known and argv else 2
    try:
        return COMMANDS[command](rest)
    except (UsageError, ValueError, FileNotFoundError, ImportError) as error:
        if os.environ.get("FASTGAN_TRACEBACK") == "1":
            raise
        print(f"fastgan {command}: {error}", file=sys.stderr)
        return 1
