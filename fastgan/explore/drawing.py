"""What the page draws: latents as its controls choose them, and samples as HTML that holds them."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.data.exact import write_png
from fastgan.editing import Directions, Editor, Latents
from fastgan.media import Image
from fastgan.sampling import slerp
from fastgan.training.recipe import draw
from fastgan.training.report import sample_files

MOST_SEED = 2**31 - 1
MOST_TEXTS = 64
MOST_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Choice:
    """Where the controls stand. blend: the share of the way from `seed` to `other`; layers: of "w", those whose styles are
    `other`'s; label: a class, or None for the seed's own; strengths: along each direction, in deviations."""

    seed: int = 0
    other: int = 1
    blend: float = 0.0
    layers: tuple[int, ...] = ()
    truncation: float = 1.0
    label: int | None = None
    strengths: tuple[float, ...] = ()


def chosen(
    editor: Editor, choice: Choice, directions: Directions | None = None, found: Latents | None = None
) -> Latents:
    """The one latent that the controls mean. found: a projection's, in the place of `seed`.

    Raises ValueError for a seed, share, layer or strength that makes no sense, and as `Editor.latents` does.
    """
    _check(editor, choice, directions)
    seeds = [choice.seed, choice.other]
    both = editor.latents(seeds, choice.label, choice.truncation)
    first, second = both[:1] if found is None else found, both[1:]
    between = _slerped if editor.space == "z" else torch.lerp
    values = between(first.values, second.values, choice.blend)
    values[:, list(choice.layers)] = second.values[:, list(choice.layers)] if choice.layers else values[:, []]
    nearer = second if choice.blend > 0.5 else first
    latents = Latents(values, editor.space, nearer.labels, first.noise)
    for number, strength in enumerate(choice.strengths):
        if strength:
            latents = directions.moved(latents, number, strength)
    return latents


def _slerped(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    return a.clone() if share == 0 else slerp(a, b, share)


def _check(editor: Editor, choice: Choice, directions: Directions | None) -> None:
    for name in ("seed", "other"):
        check_seed(getattr(choice, name), name)
    if not 0 <= choice.blend <= 1:
        raise ValueError(f"blend is {choice.blend}, expected 0 to 1")
    layers = editor.layers if editor.space == "w" else 0
    if not all(0 <= layer < layers for layer in choice.layers):
        there = f"0 to {layers - 1}" if layers else f"none: {editor.name} has no styles"
        raise ValueError(f"layers is {list(choice.layers)}, expected {there}")
    if not -10 <= choice.truncation <= 10:
        raise ValueError(f"truncation is {choice.truncation}, expected -10 to 10")
    most = 0 if directions is None else len(directions)
    if len(choice.strengths) > most or not all(abs(strength) <= 100 for strength in choice.strengths):
        raise ValueError(f"strengths is {list(choice.strengths)}, expected at most {most} numbers from -100 to 100")


def check_seed(seed: Any, name: str = "seed") -> int:
    """ValueError for what is no whole number from 0 to `MOST_SEED`."""
    if not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise ValueError(f"{name} is {seed!r}, expected a whole number from 0 to {MOST_SEED}")
    return seed


def texts(recipe: Any, networks: dict[str, nn.Module], seed: int, count: int, temperature: float) -> list[str]:
    """`count` sentences of the seeds from `seed` on. temperature: below 1 likelier and less varied; ValueError where it is not
    above 0, and for another than 1 where the recipe has none."""
    check_seed(seed)
    if count != int(count) or not 1 <= count <= MOST_TEXTS:
        raise ValueError(f"count is {count}, expected 1 to {MOST_TEXTS}")
    if not 0 < temperature <= MOST_TEMPERATURE:
        raise ValueError(f"temperature is {temperature}, expected more than 0 and at most {MOST_TEMPERATURE:g}")
    seeds = list(range(seed, seed + int(count)))
    if hasattr(recipe, "draw_tokens"):
        return recipe.decode(recipe.draw_tokens(networks, seeds, temperature))
    if temperature != 1:
        raise ValueError(f"{recipe.name} has no temperature")
    return draw(recipe, networks, seeds)


def sampled(recipe: Any, networks: dict[str, nn.Module], seed: int, count: int = 1) -> str:
    """HTML of samples of any medium, as report.html shows them: of signals a player, their waveform and spectrogram."""
    samples = draw(recipe, networks, list(range(check_seed(seed), seed + count)))
    facts = recipe.data | {"sample_columns": recipe.sample_columns}
    with tempfile.TemporaryDirectory() as folder:
        return recipe.medium.html(recipe.medium.save(samples, Path(folder) / f"seed-{seed}", facts))


def picture(
    image: torch.Tensor,
    name: str,
    facts: Mapping[str, Any] | None = None,
    latents: Latents | None = None,
    note: str = "",
) -> str:
    """HTML of a picture [C, H, W], floats in [-1, 1] or uint8 or uint16, which are kept as they are, with a link that saves it as
    `name`, one for its latents, and a line of text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        if image.is_floating_point():
            Image.save_one(image, path, facts)
        else:
            write_png(image, path)
        png = path.read_bytes()
        links = [_link(png, "image/png", f"{name}.png", "save picture")]
        if latents is not None:
            kept = latents.save(Path(folder) / "latents.safetensors").read_bytes()
            links.append(_link(kept, "application/octet-stream", f"{name}.safetensors", "save latent"))
    sharp = ' class="sharp"' * (max(image.shape[1:]) < 256)
    shown = f'<img{sharp} src="{_data(png, "image/png")}" alt="{html.escape(name)}">'
    return f"<figure>{shown}<figcaption>{' '.join(links)} {html.escape(note)}</figcaption></figure>"


def _link(content: bytes, kind: str, name: str, text: str) -> str:
    return f'<a download="{html.escape(name)}" href="{_data(content, kind)}">{text}</a>'


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def newest(folder: Path, medium: Any, seen: str = "") -> tuple[str, str]:
    """(HTML, name) of the newest samples that a training has written into a run's folder; ("", seen) where none are newer than
    those called `seen`."""
    files = sample_files(folder / "samples")
    if not files or files[-1].name == seen:
        return "", seen
    return medium.html(files[-1]), files[-1].name
