"""A projection as `fastgan project` makes it: pictures from files, and a folder with all that came of them.

latents.safetensors   the latents, with their noise: for `fastgan sample --latents`
NAME.png              each picture as projected; pairs.png: given and projected side by side
way.gif               from the start to the end
distances.csv, .svg   of each picture on the way
project.json          what was asked for; with state.safetensors, while it is not done, `resume` goes on
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from fastgan.convert.network import checksum
from fastgan.data import load, to_float
from fastgan.data.decode import crop_of, decode
from fastgan.data.files import EXTENSIONS, LARGEST_FILE, read_file, reason
from fastgan.data.pictures import in_memory
from fastgan.editing.editor import Editor
from fastgan.editing.latents import Latents
from fastgan.editing.projection import Projector, Where
from fastgan.files import complete
from fastgan.media import Image, save_grid
from fastgan.metrics.perceptual import load_perceptual
from fastgan.sampling import save_video, target_names
from fastgan.training.lock import RunLock
from fastgan.untrusted import read_json, read_tensors

FRAMES = 60  # of the way, and points of the curve
_SAVED = 10  # frames from one saved state to the next
_ABOUT, _STATE, _PAIRS = "project.json", "state.safetensors", "pairs.png"
_CURVES = "distances.csv", "distances.svg"


def read_pictures(paths: Sequence[str | Path], editor: Editor) -> tuple[torch.Tensor, list[str]]:
    """Images float [N, C, H, W] in [-1, 1] of files and of folders (or zips) of them, cut to the generator's shape, and their
    names, each once. ValueError that names what cannot be read."""
    images, names, crop = [], [], crop_of(editor.recipe.data)
    for path in map(Path, paths):
        if path.suffix.lower() in EXTENSIONS:
            try:
                pixels = decode(read_file(path, LARGEST_FILE), editor.resolution, crop, editor.channels)
            except FileNotFoundError:
                raise
            except Exception as error:  # Pillow raises a dozen unrelated types for broken files
                raise ValueError(f"{path} cannot be read as a picture: {reason(error)}") from error
            images.append(torch.tensor(pixels)[None])
            names.append(path.name)
        else:
            loaded = load(path, labels=False, resolution=editor.resolution, channels=editor.channels, crop=crop, bits=8)
            found = in_memory(loaded, "projections are named after files")
            images.append(found.images)
            names += found.files or [f"{i:06d}.png" for i in range(len(found.images))]
    return to_float(torch.cat(images)), target_names(names, reserved=[_PAIRS])


def record(
    editor: Editor,
    images: torch.Tensor,
    names: Sequence[str],
    folder: Path,
    *,
    steps: int = 500,
    space: Where | None = None,
    noise: bool = False,
    label: int | None = None,
    perceptual: str | Path | None = "efflite0",
    lpips: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    npz: bool = False,
    video: str = ".gif",
    say: Callable[[str], None] = print,
) -> Path:
    """Project `images`, whose files are called `names`, into `folder`; returns it.

    label: the class of all. resume: go on with a projection of the same pictures and options that was stopped. say: told the
    progress. Other arguments as of `Projector` and `load_perceptual`; npz and video choose formats.

    Raises ValueError for no images, for a folder that holds a projection or one of the files to write, or with `resume` another
    one or none; `fastgan.training.lock.RunHeld` where another process writes to it; and as `Projector` does.
    """
    if perceptual is None and lpips is not None:
        raise ValueError(
            f"lpips={lpips} belongs to VGG-16: name the file of its weights, perceptual=vgg16.pth, or leave it out"
        )
    labels = None if label is None else editor.labels(range(len(images)), label)
    about = {
        "steps": steps,
        "space": space,
        "noise": noise,
        "label": label,
        "perceptual": str(perceptual),
        "seed": seed,
    }
    about |= {"names": list(names), "sha256": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()}
    about |= {"lpips": None if lpips is None else str(lpips), "generator": editor.name}
    about |= {"weights": checksum("", {name: t.cpu() for name, t in editor.generator.state_dict().items()})}
    latents_file, way_file = f"latents.{'npz' if npz else 'safetensors'}", f"way{video}"
    arrays = [str(PurePosixPath(name).with_suffix(".npy")) for name in names]  # of what no picture holds
    files = (*names, *arrays, latents_file, way_file, _PAIRS, *_CURVES)
    _check_folder(folder, about, resume, files)
    distance = None if perceptual is None else load_perceptual(perceptual, editor.device, lpips)
    projector = Projector(editor, images, steps, space, noise, labels, distance, seed)
    lock = RunLock(folder)
    lock.hold()
    try:
        _check_folder(folder, about, resume, files)  # which may have changed while the networks were loaded
        way, distances, every = _advance(projector, folder, about, resume, say)
        _write(editor, projector, images, names, folder, way, distances, every, latents_file, way_file)
        (folder / _STATE).unlink()
    finally:
        lock.path.unlink(missing_ok=True)
        lock.release()
    return folder


def _advance(
    projector: Projector, folder: Path, about: dict[str, Any], resume: bool, say: Callable[[str], None]
) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
    """To the last step, kept on the way in the folder's state file; the latents and distances of each so many steps."""
    steps, state = projector.steps, folder / _STATE
    way: list[torch.Tensor] = []
    distances: list[torch.Tensor] = []
    if resume and state.exists():
        tensors = dict(read_tensors(state)[0])
        way, distances = (list(tensors.pop(name, ())) for name in ("way", "distances"))
        shape = _thin(projector).shape
        if not way or len(way) != len(distances) or any(values.shape != shape for values in way):
            raise ValueError(f"{state} is damaged: remove {folder} and begin again")
        projector.restore(tensors)
        say(f"resuming {folder} at step {projector.step}")
    else:
        with complete(folder / _ABOUT) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
    every = max(1, steps // FRAMES)
    if not way:
        way, distances = [_thin(projector)], [projector.distances()]
    while projector.step < steps:
        projector.advance()
        if projector.step % every and projector.step != steps:
            continue
        way.append(_thin(projector))
        distances.append(projector.distances())
        if len(way) % _SAVED == 0 or projector.step == steps:
            kept = {"way": torch.stack(way), "distances": torch.stack(distances)}
            _save(state, projector.state() | kept)
            say(_progress(projector, distances[-1]))
    return way, distances, every


def _check_folder(folder: Path, about: dict[str, Any], resume: bool, files: Sequence[str]) -> None:
    """files: those that will be written."""
    there = (folder / _ABOUT).exists()
    if not resume:
        if there:
            raise ValueError(f"{folder} already holds a projection: choose another --out, or add --resume to go on")
        if others := [name for name in files if (folder / name).exists()]:  # pictures beside the given ones, perhaps
            raise ValueError(
                f"{folder} already holds {others[0]}, one of {len(others)} files to write: choose another --out"
            )
        return
    if not there:
        raise ValueError(f"--resume: {folder} holds no projection")
    saved = read_json(folder / _ABOUT)
    other = next((name for name, value in about.items() if saved.get(name) != value), None)
    if other is not None:
        hashed = {"sha256": "pictures are others", "weights": "the generator has other weights"}
        what = hashed.get(other) or f"{other} is {about[other]!r}, not {saved.get(other)!r}"
        raise ValueError(f"--resume: {folder} is another projection: {what}")
    if not (folder / _STATE).exists() and (folder / _PAIRS).exists():
        raise ValueError(f"--resume: {folder} is done")


def _thin(projector: Projector) -> torch.Tensor:
    """The latents as they are kept for the way: one style where all layers share it."""
    values = projector.latents.values
    return values[:, :1] if projector.space == "w" else values


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    with complete(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def _progress(projector: Projector, distances: torch.Tensor) -> str:
    seen, error = distances.mean(0).tolist()
    psnr = float((10 * (4 / distances[:, 1].clamp(min=1e-12)).log10()).mean())
    return f"step {projector.step}/{projector.steps}  distance {seen:.4f}  error {error:.4f}  PSNR {psnr:.2f} dB"


def _write(
    editor: Editor,
    projector: Projector,
    images: torch.Tensor,
    names: Sequence[str],
    folder: Path,
    way: list[torch.Tensor],
    distances: list[torch.Tensor],
    every: int,
    latents_file: str,
    way_file: str,
) -> None:
    latents = projector.latents
    latents.save(folder / latents_file)
    made = editor.images(latents)
    for name, image in zip(names, made, strict=True):  # as `fastgan sample --separate` writes them
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.save_one(image, folder / name, editor.recipe.data)
    save_grid(torch.cat([images, made], 3), folder / _PAIRS, labels=("given", "projected"))

    def frames():
        for values in way:
            full = values.expand(-1, editor.layers, -1) if editor.space == "w" else values
            yield _tiled(editor.images(Latents(full, latents.space, latents.labels, latents.noise)))

    save_video(frames(), folder / way_file)
    steps = [*range(0, projector.steps, every), projector.steps][: len(distances)]
    with complete(folder / _CURVES[0]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "picture", "perceptual", "error", "psnr"])
        for step, found in zip(steps, distances, strict=True):
            for name, (seen, error) in zip(names, found.tolist(), strict=True):
                rows.writerow(
                    [step, name, f"{seen:.6g}", f"{error:.6g}", f"{10 * math.log10(4 / max(error, 1e-12)):.3f}"]
                )
    means = torch.stack(distances).mean(1)
    with complete(folder / _CURVES[1]) as temporary:
        temporary.write_text(
            chart(steps, {"perceptual": means[:, 0].tolist(), "error": means[:, 1].tolist()}), encoding="utf-8"
        )


def _tiled(images: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [C, rows * H, columns * W], about square; what is missing in the last row is white."""
    columns = math.ceil(math.sqrt(len(images)))
    missing = -len(images) % columns
    images = torch.cat([images, torch.ones(missing, *images.shape[1:])])
    count, channels, height, width = images.shape
    table = images.reshape(count // columns, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return table.reshape(channels, count // columns * height, columns * width)


def chart(steps: Sequence[int], curves: dict[str, list[float]], width: int = 480, height: int = 240) -> str:
    """An SVG of positive numbers by step, on a logarithmic scale, each curve named at its end."""
    values = [max(value, 1e-12) for curve in curves.values() for value in curve if value > 0] or [1.0]
    low, high = math.log10(min(values)), math.log10(max(values))
    span, last = (high - low) or 1.0, max(steps[-1], 1)

    def place(step: float, value: float) -> tuple[float, float]:
        share = (math.log10(max(value, 10**low)) - low) / span
        return 50 + (width - 150) * step / last, height - 30 - (height - 50) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
    ]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for value in (10**low, 10**high):
        parts.append(f'<text x="44" y="{place(0, value)[1]:.1f}" text-anchor="end">{value:.2g}</text>')
    parts.append(f'<text x="{place(last, 1)[0]:.1f}" y="{height - 10}" text-anchor="end">step {steps[-1]}</text>')
    for (name, curve), colour in zip(curves.items(), ("#3949ab", "#d81b60", "#00897b"), strict=False):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, steps, curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x, y = place(steps[-1], curve[-1])
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{name} {curve[-1]:.3g}</text>')
    return "\n".join([*parts, "</svg>"])
