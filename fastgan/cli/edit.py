"""fastgan project, fastgan directions, and what `fastgan sample` draws of latents in files and along directions."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastgan.cli.arguments import integer
from fastgan.cli.options import UsageError, need_extra, parse, purpose, seed_list
from fastgan.cli.table import show
from fastgan.options import Count, Natural, Range
from fastgan.sizes import sides

MOST_PICTURES = 101  # of a strip
STRONGEST = 1000  # deviations; a float32 network of far more draws what is no number


@dataclass(kw_only=True)
class Project:
    run: Path
    """Run folder, one of its checkpoints, or .safetensors, as `fastgan convert` made it, or
    fastgan:emoji, which comes with the package."""
    images: tuple[str, ...]
    """Pictures to project, or folders or zips of them; cut to a square, or to the generator's shape, and resized."""
    space: Literal["w", "w+", "z"] | None = None
    """w: one style for all layers, whose picture the generator might draw. w+: one for each layer, nearer to the picture and less
    good to edit. z: of networks without styles. Default: w or z, as there is."""
    steps: Count = 500
    """Steps of the optimiser."""
    noise: bool = False
    """StyleGAN2: fit its noise too, kept free of structure."""
    class_label: Natural | None = None
    """Class-conditional networks: the class of all pictures."""
    perceptual: str = "efflite0"
    """What sees the distance beside pixels: efflite0, none, or a file of VGG-16's weights in torchvision's layout (.pth)."""
    lpips: Path | None = None
    """The file of LPIPS' weights for VGG-16 (vgg.pth). Default: that of the package lpips, where it is installed."""
    seed: Natural = 0
    """Decides every random draw."""
    npz: bool = False
    """Write latents.npz instead of latents.safetensors."""
    video: Literal["gif", "mp4"] = "gif"
    """Format of the way."""
    out: Path | None = None
    """Folder to write. Default: `projected` in the run's, or beside the file."""
    resume: bool = False
    """Go on with a projection that was stopped, with the same pictures and options."""
    recipe: str | None = None
    """As of fastgan sample."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def project(argv: list[str]) -> int:
    """Find the latents of pictures: fastgan project RUN|FILE IMAGE... [--space w|w+] [--steps 500] [--noise] [...]"""
    need_extra()
    from fastgan import editing
    from fastgan.cli.sample import place
    from fastgan.editing.record import read_pictures, record
    from fastgan.files import check_writable
    from fastgan.training.distributed import find_device

    options = parse(Project, argv, "fastgan project", purpose(project), label="class_label")
    if not options.images:
        raise UsageError("no picture is named: fastgan project RUN|FILE IMAGE..., or a folder of them")
    folder, _, name = place(options.run)
    out = options.out or folder / f"{name}projected"
    check_writable(out)
    editor = editing.load(options.run, find_device(options.device), options.recipe)
    images, names = read_pictures(options.images, editor)
    label = options.class_label
    if (label is None) == bool(editor.classes):
        need = f"--class-label 0 to {editor.classes - 1} says of which class the pictures are" if label is None else ""
        raise UsageError(need or f"--class-label: {editor.name} was trained without classes")
    record(
        editor,
        images,
        names,
        out,
        steps=options.steps,
        space=options.space,
        noise=options.noise,
        label=label,
        perceptual=None if options.perceptual == "none" else options.perceptual,
        lpips=options.lpips,
        seed=options.seed,
        resume=options.resume,
        npz=options.npz,
        video=f".{options.video}",
        say=lambda text: print(text, flush=True),
    )
    print(f"{out}: {len(names)} pictures, pairs.png, way.{options.video}, distances.csv")
    latents = out / f"latents.{'npz' if options.npz else 'safetensors'}"
    print(f"next: {shlex.join(['fastgan', 'sample', str(options.run), '--latents', str(latents)])}")
    return 0


@dataclass(kw_only=True)
class Find:
    run: Path
    """Run folder, one of its checkpoints, or .safetensors, as `fastgan convert` made it, or
    fastgan:emoji, which comes with the package."""
    method: Literal["pca", "sefa"] = "pca"
    """pca: components of the styles, or of the pictures where there are none. sefa: what the weights answer to most; draws
    nothing."""
    count: Count | None = None
    """Directions to keep, the strongest first. Default: 10, or as many as there are."""
    draws: Annotated[int, Range(2, 1_000_000)] | None = None
    """Latents that are drawn. Default: 10,000, and 2,000 of networks without styles, whose pictures pca needs."""
    layers: str | None = None
    """Style layers that sefa looks at and that are moved: 0-3 are coarse, high ones fine. Default: all."""
    seeds: str = "0-3"
    """A line of each strip for each of these."""
    strength: str = "-3:3"
    """As of fastgan sample."""
    seed: Natural = 0
    """Of the draws."""
    out: Path | None = None
    """File to write, .safetensors. Default: directions.safetensors in the run's folder, where fastgan sample looks for it."""
    recipe: str | None = None
    """As of fastgan sample."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def directions(argv: list[str]) -> int:
    """Find directions in which pictures change: fastgan directions RUN|FILE [--method pca|sefa] [--count 10] [...]"""
    need_extra()
    from fastgan import editing
    from fastgan.cli.sample import place
    from fastgan.files import check_writable
    from fastgan.sampling import check_pixels
    from fastgan.training.distributed import find_device

    options = parse(Find, joined(argv), "fastgan directions", purpose(directions), samples="draws")
    folder, inner, name = place(options.run)
    out = options.out or folder / f"{name}directions.safetensors"
    check_writable(out.parent)
    seeds, strengths = seed_list(options.seeds), strength_list(options.strength)
    layers = None if options.layers is None else seed_list(options.layers, "--layers")
    editor = editing.load(options.run, find_device(options.device), options.recipe)
    check_pixels(len(seeds) * len(strengths), *sides(editor.resolution))
    draws = options.draws or (10_000 if editor.space == "w" else 2_000)
    found = editing.find_directions(editor, options.method, options.count, draws, layers, options.seed)
    print(found.save(out))
    of = "variance" if options.method == "pca" else "weights"
    shares = zip(found.explained.tolist(), found.explained.cumsum(0).tolist(), found.deviations.tolist(), strict=True)
    rows = [[str(k), f"{share:.1%}", f"{total:.1%}", f"{d:.3g}"] for k, (share, total, d) in enumerate(shares)]
    show([">direction", f">{of}", ">together", ">deviation"], rows)
    latents = editor.latents(seeds)
    shown = folder / inner
    if options.out is not None:  # beside other files of directions, perhaps
        shown, name = out.parent, f"{out.stem}-"
    for k in range(len(found)):
        print(_save_strip(editor, found, k, latents, strengths, shown, name))
    return 0


def draw(options, recipe, networks, folder: Path, name: str, shown: Path) -> None:
    """What `fastgan sample` does with --latents and --direction. shown: the folder of pictures."""
    from fastgan.editing import Directions, Editor, Latents
    from fastgan.media import save_grid
    from fastgan.sampling import check_pixels, grid

    editor = Editor(recipe, networks)
    moved = options.direction is not None
    numbers = list(dict.fromkeys(seed_list(options.direction, "--direction"))) if moved else []
    if options.out is not None and len(numbers) > 1:
        raise UsageError(f"--out {options.out} is one file, and --direction {options.direction} draws {len(numbers)}")
    strengths = strength_list(options.strength)
    file = options.directions or folder / f"{name}directions.safetensors"
    if moved and not file.exists():
        raise UsageError(
            f"--direction: there is no {file}; fastgan directions {shlex.quote(str(options.run))} finds some"
        )
    found = Directions.load(file) if moved else None
    if bad := [k for k in numbers if k >= len(found)]:
        raise UsageError(f"--direction is {bad[0]}, expected 0 to {len(found) - 1}, those in {file}")
    if options.latents is not None:
        latents = Latents.load(options.latents)
        editor.check(latents)
    else:
        latents = editor.latents(seed_list(options.seeds), options.class_label, options.truncation)
    if moved:
        check_pixels(len(latents) * len(strengths), *sides(editor.resolution))
    for k in numbers:
        print(_save_strip(editor, found, k, latents, strengths, shown, name, options.out))
    if not moved:
        out = options.out or shown / f"{name}latents-{options.latents.stem}.png"
        out.parent.mkdir(parents=True, exist_ok=True)
        print(save_grid(grid(editor.draw(latents), len(latents)), out))


def _save_strip(editor, found, k: int, latents, strengths: list[float], folder: Path, name: str, out=None) -> Path:
    from fastgan.editing import strip
    from fastgan.media import save_grid

    pictures, columns = strip(editor, found, k, latents, strengths)
    out = out or folder / f"{name}direction-{found.method}-{k:02d}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    return save_grid(pictures, out, columns)


def strength_list(text: str) -> list[float]:
    """ "-3:3" -> seven numbers from -3 to 3; "0:2:5" -> five; "1.5" -> one. Raises UsageError."""
    expected = f"--strength is {text!r}, expected FROM:TO such as -3:3, FROM:TO:PICTURES, or one number"
    first, *others = text.split(":")
    try:
        start, stop = float(first), float(others[0] if others else first)
        count = integer(others[1]) if len(others) > 1 else 7 if others else 1
    except ValueError as error:
        raise UsageError(expected) from error
    if len(others) > 2 or not all(abs(end) <= STRONGEST for end in (start, stop)) or not 1 <= count <= MOST_PICTURES:
        raise UsageError(f"{expected}; at most {MOST_PICTURES} pictures, and up to {STRONGEST} deviations")
    return [start + (stop - start) * i / max(count - 1, 1) for i in range(count)]


def joined(argv: list[str]) -> list[str]:
    """`argv` with the value of --strength behind "=": -3:3 would be taken for an option."""
    words = list(argv)
    if "--strength" in words[:-1]:
        place = words.index("--strength")
        words[place : place + 2] = [f"--strength={words[place + 1]}"]
    return words
