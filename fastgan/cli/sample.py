"""fastgan sample."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastgan.cli import edit
from fastgan.cli.options import UsageError, need_extra, parse, purpose, seed_list
from fastgan.options import Range

# Options that only some recipes have, as `Recipe.sample_options` names them.
NOT_ALL = {"separate", "interpolate", "mix", "truncation", "class_label", "input", "tile", "overlap", "mel"}


@dataclass(kw_only=True)
class Styles:
    """StyleGAN"""

    truncation: float = 1.0
    """Pull styles towards their mean. 1: not at all, 0.7: fewer odd pictures, 0: the mean picture."""
    mix: str | None = None
    """A table of mixed styles: these seeds are the columns, --seeds the rows."""
    mix_layers: str | None = None
    """Which style layers of --mix come from the columns: low ones are coarse (pose, shape), high ones fine (colour).
    Default: 0-6, as far as there are so many."""


@dataclass(kw_only=True)
class Translation:
    """translation"""

    input: str | None = None
    """A folder of images to translate, or of recordings to speak again from their mel spectrograms, instead of seeds."""
    direction: Literal["AtoB", "BtoA"] | str | None = None
    """With --input: from the first set to the second, or back. Default: AtoB, or what the run has learnt. Otherwise the numbers
    of directions that fastgan directions has found, 0-3: a strip of pictures along each."""
    tile: Annotated[int, Range(0, 1 << 16)] = 256
    """Upscalers: the side of the tiles that --input's pictures are cut into, which bounds the memory. 0: none."""
    overlap: Annotated[int, Range(0, 1 << 12)] = 16
    """Upscalers: pixels that a tile sees of its neighbours, at most half a tile."""


@dataclass(kw_only=True)
class Speech:
    """vocoders"""

    mel: Path | None = None
    """An .npy of a log mel spectrogram [bands, frames], as a text-to-speech program makes it: speak that, instead of seeds."""


@dataclass(kw_only=True)
class Editing:
    """editing"""

    latents: Path | None = None
    """A file of latents to draw, as fastgan project writes it, instead of seeds."""
    strength: str = "-3:3"
    """How far along --direction, in deviations: FROM:TO, seven pictures; FROM:TO:PICTURES; or one number."""
    directions: Path | None = None
    """The file of --direction. Default: where fastgan directions has put it."""


@dataclass(kw_only=True)
class Options(Styles, Translation, Speech, Editing):
    run: Path
    """Run folder, as `fastgan train` made it, or one of its checkpoints, or .safetensors, as `fastgan convert` made it, or .onnx,
    as `fastgan export` made it, or fastgan:emoji, which comes with the package."""
    seeds: str = "0-15"
    """One sample per seed: numbers and ranges. The same seed gives the same sample."""
    class_label: int | None = None
    """Class-conditional networks: this class for every seed. Default: the classes in turn."""
    separate: bool = False
    """Instead of one file, one for each seed, seedNNNN.png of the picture alone or seedNNNN.wav of the signal: for any
    program that measures sets of them."""
    interpolate: Annotated[int, Range(1, 10_000)] | None = None
    """Instead of a grid, a video that walks from seed to seed in this many frames each, and back to the first."""
    out: Path | None = None
    """File to write: .png or another picture, .txt for texts, .wav for signals, .gif or .mp4 with --interpolate; a folder
    with --input or --separate. Default: beside RUN, or in the working directory where RUN may not be written to."""
    recipe: str | None = None
    """The recipe that the run was trained with, where it is not one that is registered: mypackage.recipes:Mine or
    path/mine.py:Mine. Its code is imported; RUN alone chooses no code."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    engine: Literal["torch", "onnxruntime", "openvino"] | None = None
    """What the network runs in; the others than torch run on the CPU, and a run is exported to them first. Default: torch, and
    onnxruntime for an .onnx."""


def sample(argv: list[str]) -> int:
    """Draw samples from a run or a converted checkpoint: fastgan sample RUN|FILE [--seeds 0-15] [--truncation 0.7] [...]"""
    need_extra()
    import torch

    from fastgan import sampling
    from fastgan.files import check_writable, writable

    options = parse(Options, edit.joined(argv), "fastgan sample", purpose(sample))
    given = {field.name for field in dataclasses.fields(options) if getattr(options, field.name) != field.default}
    moved = "direction" in given and options.direction not in ("AtoB", "BtoA")
    _check_together(options, given, moved)
    seeds = seed_list(options.seeds)
    if options.out is not None:
        check_writable(options.out.parent)
    if (frames := (options.interpolate or 0) * len(seeds)) > sampling.MOST_FRAMES:
        raise UsageError(
            f"--interpolate is {options.interpolate}: {frames} frames, expected at most {sampling.MOST_FRAMES}"
        )
    mixed = _mixed(options)
    recipe, networks = _in_engine(options)
    _check_offered(recipe, given, options.run)
    label, truncation = _label(recipe, options.class_label), options.truncation
    folder, inner, name = place(options.run)
    if options.out is None and not writable(folder / inner):
        folder, inner, name = Path(), "", f"{options.run.resolve().stem}-"
        print(f"{options.run} may not be written to: writing to the working directory")
    shown = folder / inner
    drawn = 0 if moved or given & {"latents", "mix", "mel"} else len(seeds)
    # The serving form pays from the third call on.
    many = given & {"input", "interpolate"} or drawn > 2 * sampling.at_once(label, truncation)
    with torch.no_grad(), sampling.served(networks if many else {}):
        if moved or options.latents is not None:
            edit.draw(options, recipe, networks, folder, name, shown)
        elif options.input is not None:
            _of_folder(options, recipe, networks, options.out or _free(folder / f"{name}translated"))
        elif options.mel is not None:
            from fastgan.vocoding import speak_mel

            print(speak_mel(recipe, networks, options.mel, options.out or shown / f"{name}{options.mel.stem}"))
        elif options.interpolate is not None:
            walk = sampling.interpolate(recipe, networks, seeds, options.interpolate, label, truncation)
            print(sampling.save_video(walk, options.out or shown / f"{name}walk-{options.seeds}.gif"))
        elif mixed is not None:
            from fastgan.media import save_grid

            table, width = sampling.mix(recipe, networks, seeds, *mixed, truncation, label)
            out = options.out or shown / f"{name}mix-{options.seeds}-{options.mix}.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            print(save_grid(table, out, width))
        else:
            _of_seeds(options, recipe, networks, seeds, label, shown / f"{name}seeds-{options.seeds}")
    return 0


def _check_together(options: Options, given: set[str], moved: bool) -> None:
    """UsageError for options that do not go together. given: those that are not at their defaults; moved: --direction is of
    latents."""
    from fastgan.files import PICTURES

    different = ("separate", "interpolate", "mix", "input", "mel", "direction" if moved else "latents")
    if len(several := [f"--{name}" for name in different if name in given]) > 1:
        raise UsageError(f"{' and '.join(several)} are different things to write: choose one")
    needs = {"mix_layers": "mix", "tile": "input", "overlap": "input"}
    needs |= {"strength": "direction", "directions": "direction"} | ({} if moved else {"direction": "input"})
    for name, other in needs.items():
        if name in given and other not in given:
            raise UsageError(f"--{name.replace('_', '-')} says more about --{other}, which is not there")
    for name in sorted(given & {"seeds", "class_label", "truncation"}) if "latents" in given else ():
        raise UsageError(f"--{name.replace('_', '-')} chooses latents, and --latents has them: leave one out")
    for name in sorted(given & {"input", "mel"}) if "seeds" in given else ():
        raise UsageError(f"--{name} is {'translated' if name == 'input' else 'spoken'} instead of --seeds: choose one")
    if "overlap" in given and not options.tile:
        raise UsageError("--overlap is of tiles, and --tile 0 has none: leave one out")
    if options.engine not in (None, "torch") and options.device not in ("auto", "cpu"):
        raise UsageError(f"--device is {options.device}, and --engine {options.engine} runs on the CPU: leave one out")
    if (many := given & {"separate", "input"}) and options.out is not None and options.out.suffix.lower() in PICTURES:
        raise UsageError(f"--out {options.out}: --{many.pop()} writes a folder")


def _mixed(options: Options) -> tuple[list[int], list[int] | None] | None:
    """Seeds of the columns, and the layers, of --mix."""
    if options.mix is None:
        return None
    layers = None if options.mix_layers is None else seed_list(options.mix_layers, "--mix-layers")
    return seed_list(options.mix, "--mix"), layers


def _of_folder(options: Options, recipe, networks: dict, out: Path) -> None:
    """What --input names, translated, enlarged or spoken again."""
    from fastgan.sampling import translate_folder
    from fastgan.upscaling import upscale_folder
    from fastgan.vocoding import speak_folder

    if options.direction is not None and (hasattr(recipe, "heard") or hasattr(recipe, "upscale")):
        raise UsageError(f"--direction is {options.direction}, and {recipe.name} has no way back: leave it out")
    if hasattr(recipe, "heard"):
        count = speak_folder(recipe, networks, options.input, out)
    elif hasattr(recipe, "upscale"):
        count = upscale_folder(recipe, networks, options.input, out, options.tile, options.overlap)
    else:
        count = translate_folder(recipe, networks, options.input, options.direction, out)
    print(f"{out}: {count} {recipe.medium.unit}")


def _of_seeds(options: Options, recipe, networks: dict, seeds: list[int], label, usual: Path) -> None:
    """A sample for each seed, in one file or --separate ones. usual: where to, unless --out says."""
    import torch

    from fastgan import sampling
    from fastgan.files import check_beside, named
    from fastgan.media import Image, Signal, Text
    from fastgan.training.log import save_samples
    from fastgan.training.recipe import draw

    out, medium = options.out or usual, recipe.medium
    if options.separate:
        seeds = list(dict.fromkeys(seeds))
        made = sampling.pictures(recipe, networks, seeds, label, options.truncation)
        print(f"{out}: {sampling.save_separately(made, seeds, out, medium, recipe.data)} {medium.unit}")
        return
    if issubclass(medium, Signal):
        out = named(out, (".png", ".wav"))
        check_beside(out, *Signal.files(out))
    if issubclass(medium, Text):
        samples = draw(recipe, networks, seeds)
        print("\n".join(samples))
    else:
        made = sampling.pictures(recipe, networks, seeds, label, options.truncation)
        samples = sampling.grid(made, len(seeds)) if issubclass(medium, Image) else torch.cat([*made])
    print(save_samples(samples, out, medium, recipe.data | {"sample_columns": recipe.sample_columns}))


def _in_engine(options: Options):
    """(recipe, networks), or what stands for them where an exported network runs in another engine than torch."""
    from fastgan.sampling import load_generator
    from fastgan.training.distributed import find_device

    exported = options.run.suffix == ".onnx" and options.run.is_file()
    if exported and (options.engine == "torch" or options.recipe is not None):
        raise UsageError(
            f"{options.run} holds its network: --engine is onnxruntime or openvino, and it has no --recipe"
        )
    edited = options.latents is not None or options.direction not in (None, "AtoB", "BtoA")
    if edited and (exported or options.engine not in (None, "torch")):
        raise UsageError(
            "--latents and found --direction change what is inside the network: name its run, and --engine torch"
        )
    if not exported:
        recipe, networks = load_generator(options.run, find_device(options.device), options.recipe)
        if options.engine in (None, "torch"):
            return recipe, networks
    from fastgan import export

    if exported:
        return export.load(options.run, options.engine or "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export.to_onnx((recipe, networks), path, direction=options.direction)
        return export.load(path, options.engine)


def _check_offered(recipe, given: set[str], run: Path) -> None:
    """UsageError for an option that says nothing to `recipe`, with the recipes that know it."""
    from fastgan import recipes
    from fastgan.media import Image

    offered = set(recipe.sample_options) - (set() if issubclass(recipe.medium, Image) else {"interpolate"})
    for option in sorted(given & NOT_ALL - offered):
        if hasattr(recipe, "facts"):  # an exported network
            raise UsageError(f"--{option.replace('_', '-')}: {run.name} does not take it as an input")
        have = ", ".join(name for name in recipes.OURS if option in recipes.get(name).sample_options)
        raise UsageError(f"--{option.replace('_', '-')} is nothing for {recipe.name}; recipes that have it: {have}")


def _label(recipe, label: int | None):
    """int64 [1], or None."""
    import torch

    if label is None:
        return None
    if (first := recipe.labels([0])) is None:
        raise UsageError(f"--class-label: {recipe.name} was trained without classes")
    classes = recipe.data["num_classes"]
    if not 0 <= label < classes:
        raise UsageError(f"--class-label is {label}, expected 0 to {classes - 1}")
    return torch.full_like(first, label)


def place(run: Path) -> tuple[Path, str, str]:
    """Where to put what is drawn from `run` (a run's folder, a checkpoint in it, a file, or the name of an embedded generator): a
    folder, the sub-folder of samples, and the beginning of their names."""
    from fastgan.models import embedded

    if (file := embedded.locate(run)) != run:
        return Path(), "", f"{file.stem}-"
    if run.is_file():
        return run.parent, "", f"{run.stem}-"
    if run.resolve().parent.name == "checkpoints":
        return run.resolve().parent.parent, "samples", f"{run.name}-"
    return run, "samples", ""


def _free(folder: Path) -> Path:
    """`folder`, with a number added if it exists."""
    names = itertools.chain([folder], (folder.with_name(f"{folder.name}-{i}") for i in itertools.count(2)))
    return next(path for path in names if not path.exists())
