"""fastgan sample, and fastgan convert, which makes what it samples from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import UsageError, need_extra, parse, seed_list


def _load_generator(path: Path, device):
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
    need_extra()
    import torch
    import tyro

    from fastgan import sampling
    from fastgan.training.distributed import find_device
    from fastgan.training.engine import draw
    from fastgan.training.files import writable
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
        """File to write: .png or another picture, .txt for texts, .gif or .mp4 with --interpolate; a folder with --input.
        Default: beside RUN, or in the working directory where RUN may not be written to."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""

    options = parse(Options, None, argv, "fastgan sample", sample.__doc__.partition(":")[0])
    if sum(x is not None for x in (options.interpolate, options.mix, options.input)) > 1:
        raise UsageError("--interpolate, --mix and --input are three different pictures: choose one")
    if options.interpolate is not None and options.interpolate < 1:
        raise UsageError(f"--interpolate is {options.interpolate}, expected at least 1 frame from seed to seed")
    seeds = seed_list(options.seeds)
    recipe, networks = _load_generator(options.run, find_device(options.device))
    label = options.class_label
    if label is not None:
        if recipe.labels([0]) is None:
            raise UsageError(f"--class-label: {recipe.name} was trained without classes")
        classes = recipe.classes if options.run.is_file() else recipe.data["num_classes"]
        if not 0 <= label < classes:
            raise UsageError(f"--class-label is {label}, expected 0 to {classes - 1}")
        label = torch.tensor([label])
    of_file = options.run.is_file()
    title = options.run.stem if of_file else options.run.resolve().name
    folder, name = (options.run.parent, f"{title}-") if of_file else (options.run / "samples", "")
    translated = options.out or options.run / "translated"
    if options.out is None and not writable(folder):
        folder, name, translated = Path(), f"{title}-", Path(f"{title}-translated")
        print(f"{options.run} may not be written to: writing to the working directory")
    with torch.no_grad():
        if options.input is not None:
            count = sampling.translate_folder(recipe, networks, options.input, options.direction, translated)
            print(f"{translated}: {count} images")
        elif options.interpolate is not None:
            frames = sampling.interpolate(recipe, networks, seeds, options.interpolate, label, options.truncation)
            print(sampling.save_video(frames, options.out or folder / f"{name}walk-{options.seeds}.gif"))
        elif options.mix is not None:
            layers = seed_list(options.mix_layers)
            table, columns = sampling.mix(recipe, networks, seeds, seed_list(options.mix), layers, options.truncation)
            out = options.out or folder / f"{name}mix-{options.seeds}-{options.mix}.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            print(save_grid(table, out, columns))
        elif options.truncation != 1.0 or label is not None:
            images = [
                recipe.generate(
                    networks, recipe.latents([s]), recipe.labels([s]) if label is None else label, options.truncation
                )
                for s in seeds
            ]
            print(save_samples(torch.cat(images).float().cpu(), options.out or folder / f"{name}seeds-{options.seeds}"))
        else:
            samples = draw(recipe, networks, seeds)
            if isinstance(samples, list):
                print("\n".join(samples))
            print(save_samples(samples, options.out or folder / f"{name}seeds-{options.seeds}"))
    return 0


def convert(argv: list[str]) -> int:
    """Other projects' checkpoints, read without running their code: fastgan convert IN.pkl|IN.pt OUT.safetensors"""
    need_extra()
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

    options = parse(Options, None, argv, "fastgan convert", convert.__doc__.partition(":")[0])
    arguments = json.loads(options.config) if options.config else None
    out = fastgan.convert.convert(options.source, options.out, options.network, arguments)
    about = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    print(f"{out}: {about['model']} {about['arguments']}\nnext: fastgan sample {out} --seeds 0-15")
    return 0
