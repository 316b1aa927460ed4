"""The program `fastgan`: train, sample, eval, convert, data, info. Heavy imports wait until a command needs them."""

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


def _load_generator(path: Path, device: str):
    """(recipe, networks) of a run folder or of a file that `fastgan convert` wrote."""
    from fastgan import convert, recipes
    from fastgan.training.checkpoint import CheckpointError

    if path.suffix == ".safetensors":
        return convert.load(path, device)
    if path.suffix in (".pkl", ".pt", ".pth"):
        raise UsageError(f"{path} is not a run: fastgan convert {path} {path.with_suffix('.safetensors')} comes first")
    try:
        return recipes.load_run(path, device)
    except CheckpointError as error:
        raise UsageError(str(error)) from error


def sample(argv: list[str]) -> int:
    """Draw samples from a run or a converted checkpoint: fastgan sample RUN|FILE [--seeds 0-15] [--truncation 0.7] [...]"""
    _need_extra()
    import torch
    import tyro

    from fastgan import sampling
    from fastgan.training.engine import draw
    from fastgan.training.log import save_grid, save_samples

    @dataclass
    class Options:
        run: tyro.conf.Positional[Path]
        """Run folder, as `fastgan train` made it, or .safetensors, as `fastgan convert` did."""
        seeds: str = "0-15"
        """One sample per seed: numbers and ranges. The same seed gives the same sample."""
        truncation: float = 1.0
        """StyleGAN: pull styles towards their mean. 1: not at all, 0.7: fewer odd pictures, 0: the mean picture."""
        class_label: int | None = None
        """Class-conditional networks: this class for every seed. Default: the classes in turn."""
        interpolate: int | None = None
        """Instead of a grid, a video that walks from seed to seed in this many frames each, and back to the first."""
        mix: str | None = None
        """StyleGAN: a table of mixed styles; these seeds are the columns, --seeds the rows."""
        mix_layers: str = "0-6"
        """Which style layers of --mix come from the columns: low ones are coarse (pose, shape), high ones fine (colour)."""
        input: str | None = None
        """Translation: a folder of images to translate, instead of seeds."""
        direction: Literal["AtoB", "BtoA"] = "AtoB"
        """Translation: from the first set to the second, or back."""
        out: Path | None = None
        """File to write: .png, .txt for texts, .gif or .mp4 with --interpolate; a folder with --input. Default: beside RUN."""
        device: str = "cpu"
        """cpu, cuda or cuda:N."""

    options = _parse(Options, None, argv, "fastgan sample", sample.__doc__.partition(":")[0])
    if sum(x is not None for x in (options.interpolate, options.mix, options.input)) > 1:
        raise UsageError("--interpolate, --mix and --input are three different pictures: choose one")
    if options.interpolate is not None and options.interpolate < 1:
        raise UsageError(f"--interpolate is {options.interpolate}, expected at least 1 frame from seed to seed")
    seeds = _seeds(options.seeds)
    recipe, networks = _load_generator(options.run, options.device)
    label = options.class_label
    if label is not None:
        if recipe.labels([0]) is None:
            raise UsageError(f"--class-label: {recipe.name} was trained without classes")
        classes = recipe.classes if options.run.is_file() else recipe.data["num_classes"]
        if not 0 <= label < classes:
            raise UsageError(f"--class-label is {label}, expected 0 to {classes - 1}")
        label = torch.tensor([label])
    at = options.run.with_suffix("") if options.run.is_file() else options.run / "samples"
    name = f"{at.name}-" if options.run.is_file() else ""
    folder = at.parent if options.run.is_file() else at
    with torch.no_grad():
        if options.input is not None:
            out = options.out or options.run / "translated"
            count = sampling.translate_folder(recipe, networks, options.input, options.direction, out)
            print(f"{out}: {count} images")
        elif options.interpolate is not None:
            frames = sampling.interpolate(recipe, networks, seeds, options.interpolate, label, options.truncation)
            print(sampling.save_video(frames, options.out or folder / f"{name}walk-{options.seeds}.gif"))
        elif options.mix is not None:
            layers = _seeds(options.mix_layers)
            table, columns = sampling.mix(recipe, networks, seeds, _seeds(options.mix), layers, options.truncation)
            out = options.out or folder / f"{name}mix-{options.seeds}-{options.mix}.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            save_grid(table, out, columns)
            print(out)
        elif options.truncation != 1.0 or label is not None:
            images = [
                recipe.generate(
                    networks, recipe.latents([s]), recipe.labels([s]) if label is None else label, options.truncation
                )
                for s in seeds
            ]
            print(save_samples(torch.cat(images).float().cpu(), options.out or folder / f"{name}seeds-{options.seeds}"))
        else:
            print(save_samples(draw(recipe, networks, seeds), options.out or folder / f"{name}seeds-{options.seeds}"))
    return 0


def convert(argv: list[str]) -> int:
    """Other projects' checkpoints, read without running their code: fastgan convert IN.pkl|IN.pt OUT.safetensors"""
    _need_extra()
    import tyro

    import fastgan.convert

    @dataclass
    class Options:
        source: tyro.conf.Positional[Path]
        """network-snapshot-*.pkl (StyleGAN2-ADA, StyleGAN3, R3GAN), .pt in the rosinality layout, or a plain state_dict."""
        out: tyro.conf.Positional[Path]
        """The .safetensors to write; its configuration goes into the header, and into a .json beside it."""
        network: Literal["G_ema", "G", "D"] = "G_ema"
        """Which of the file's networks."""
        config: str | None = None
        """The original's constructor arguments as JSON, where the file does not tell them: '{"channel_base": 16384}'."""

    options = _parse(Options, None, argv, "fastgan convert", convert.__doc__.partition(":")[0])
    arguments = json.loads(options.config) if options.config else None
    out = fastgan.convert.convert(options.source, options.out, options.network, arguments)
    about = json.loads(out.with_suffix(".json").read_text())
    print(f"{out}: {about['model']} {about['arguments']}\nnext: fastgan sample {out} --seeds 0-15")
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


COMMANDS = {"train": train, "sample": sample, "eval": evaluate, "convert": convert, "data": data, "info": info}


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
