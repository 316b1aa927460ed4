"""What `fastgan sample` draws beside plain grids: interpolations as video, style mixing, translated folders."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

FPS = 30


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """The point at share t of the great arc from a to b, [N, D] each: latents keep a Gaussian's length on the way."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1)[:, None]
    angle = cosine.arccos()
    straight = torch.lerp(a, b, t)
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    return torch.where(angle.sin() < 1e-4, straight, arc)


def interpolate(
    recipe, networks: dict, seeds: list[int], between: int, label: torch.Tensor | None, truncation: float
) -> Iterator[torch.Tensor]:
    """Frames [C, H, W] of a closed walk through the latents of `seeds`, `between` frames from one to the next."""
    points = recipe.latents(seeds)
    if points.dim() != 2:
        raise ValueError(f"{recipe.name}: no latent vectors to walk between")
    for a, b in zip(points, points.roll(-1, 0), strict=True):
        for start in range(0, between, 8):  # few frames at a time: a long video must not fill the memory
            z = torch.cat([slerp(a[None], b[None], i / between) for i in range(start, min(start + 8, between))])
            c = None if label is None else label.expand(len(z))
            yield from recipe.generate(networks, z, c, truncation).float().cpu()


def mix(
    recipe, networks: dict, rows: list[int], columns: list[int], layers: list[int], truncation: float
) -> tuple[torch.Tensor, int]:
    """Style mixing (Karras et al., 2019, figure 3): the styles of a row's seed, those of `layers` from the column's.

    Returns images [N, C, H, W] of a table whose first row and column show the seeds themselves (the corner is white), and the
    number of columns. Raises ValueError for a generator without styles, or layers that it does not have.
    """
    generator = networks["generator"]
    if not hasattr(generator, "mapping") or not hasattr(generator, "synthesis"):
        raise ValueError(f"{recipe.name}: no mapping network, so no styles to mix")
    if bad := [i for i in layers if i >= generator.num_ws]:
        raise ValueError(f"style layers {bad}: this generator has layers 0 to {generator.num_ws - 1}")
    device = next(generator.parameters()).device

    def styles(seeds: list[int]) -> torch.Tensor:
        c = recipe.labels(seeds)
        if c is not None:
            c = torch.nn.functional.one_hot(c, generator.c_dim).float().to(device)
        return generator.mapping(recipe.latents(seeds).to(device), c, truncation_psi=truncation)

    # StyleGAN2 adds noise, the same for every picture here; StyleGAN3 has none.
    fixed = {"noise_mode": "const"} if "noise_mode" in inspect.signature(generator.synthesis.forward).parameters else {}

    def draw(ws: torch.Tensor) -> list[torch.Tensor]:
        return [generator.synthesis(w[None], **fixed)[0].float().cpu() for w in ws]

    left, top = styles(rows), styles(columns)
    heads = draw(top)
    table = [torch.ones_like(heads[0]), *heads]
    for w in left:
        mixed = w.repeat(len(top), 1, 1)
        mixed[:, layers] = top[:, layers]
        table += draw(torch.cat([w[None], mixed]))
    return torch.stack(table), len(columns) + 1


def save_video(frames: Iterable[torch.Tensor], path: Path) -> Path:
    """Writes frames [C, H, W] in [-1, 1] as .gif (Pillow) or .mp4 (PyAV, extra `video`), FPS a second.

    Raises ValueError for another suffix, ImportError that names the package.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"{path}: expected a name that ends with .gif or .mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    (_save_gif if path.suffix == ".gif" else _save_mp4)(map(_pixels, frames), temporary)
    os.replace(temporary, path)
    return path


def _pixels(frame: torch.Tensor):
    from fastgan.data import to_uint8

    image = to_uint8(frame.expand(3, -1, -1)).permute(1, 2, 0)
    scale = max(1, -(-128 // image.shape[0]))  # small pictures are enlarged so that they can be seen
    return image.repeat_interleave(scale, 0).repeat_interleave(scale, 1).contiguous().numpy()


def _save_gif(pictures, path: Path) -> None:
    from PIL import Image

    first, *rest = map(Image.fromarray, pictures)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=round(1000 / FPS), loop=0)


def _save_mp4(pictures, path: Path) -> None:
    try:
        import av
    except ImportError as error:
        raise ImportError("mp4 needs PyAV: pip install 'fastgan[video]' (or write a .gif)") from error

    with av.open(str(path), "w", format="mp4") as file:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = file.add_stream("libx264", rate=FPS)
                # H.264 stores colour at half resolution: odd sides lose their last row or column.
                stream.width, stream.height = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            frame = av.VideoFrame.from_ndarray(picture[: stream.height, : stream.width].copy(), format="rgb24")
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def translate_folder(recipe, networks: dict, source: str, direction: str, out: Path) -> int:
    """Translates every image of folder (or zip, npz) `source`, saves PNGs by the same names in `out`; returns how many.

    Images are resized to the resolution that the run was trained on. Raises ValueError for a recipe that does not translate.
    """
    from fastgan.data import load, to_float
    from fastgan.training.log import save_grid

    if not hasattr(recipe, "translate"):
        raise ValueError(f"--input: recipe {recipe.name} does not translate images; cyclegan and pix2pix do")
    dataset = load(source, resolution=recipe.data["resolution"], channels=recipe.data["channels"])
    out.mkdir(parents=True, exist_ok=True)
    names = dataset.files or [f"{i:06d}" for i in range(len(dataset.images))]
    with torch.no_grad():
        for index in torch.arange(len(dataset.images)).split(8):
            made = recipe.translate(networks, to_float(dataset.images[index]), direction).float().cpu()
            for i, image in zip(index.tolist(), made, strict=True):
                save_grid(image[None], out / f"{Path(names[i]).stem}.png", scale=1)
    return len(dataset.images)
