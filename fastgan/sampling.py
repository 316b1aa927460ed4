"""What `fastgan sample` draws beside plain grids: interpolations as video, style mixing, translated folders."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from fastgan.files import complete, named
from fastgan.media import Image, Medium
from fastgan.models import embedded
from fastgan.patch import accelerate, unpatch
from fastgan.sizes import sides
from fastgan.training.packed import PACKED

FPS = 30
MOST_FRAMES = 10_000  # of a walk: five minutes and a half
MOST_PIXELS = 2**28  # of a grid: 0.8 GB in colour


def load_generator(
    path: str | Path, device: str | torch.device = "cpu", recipe: Any = None
) -> tuple[Any, dict[str, torch.nn.Module]]:
    """(recipe, networks) of a run's folder, of a checkpoint in it, of a file that `fastgan convert` wrote, of what `fastgan
    pull` fetched, or of a generator that comes with the package (`fastgan:emoji`); the networks are those that samples are drawn
    from, by name, in eval mode. recipe: as in `fastgan.recipes.load_run`.

    Raises ValueError that says what is there instead, and what those two raise.
    """
    from fastgan import convert, recipes
    from fastgan.recipes.packed import load_packed

    path = embedded.locate(path)
    if (path / PACKED).is_file():
        path /= PACKED
    if not path.exists():
        raise ValueError(
            f"{path}: no such file or folder; expected a run, as fastgan train makes it, a .safetensors, a folder of fastgan"
            f" pull, or {', '.join(embedded.names())}"
        )
    if path.suffix == ".safetensors" and not path.is_dir():
        if (found := load_packed(path, device, recipe)) is not None:
            return found
        if recipe is not None:
            raise ValueError(f"--recipe {recipe} is for a run's folder: {path} says itself which network it holds")
        return convert.load(path, device)
    if path.suffix in (".pkl", ".pt", ".pth") and not path.is_dir():
        raise ValueError(f"{path} is not a run: fastgan convert {path} {path.with_suffix('.safetensors')} comes first")
    if path.is_file():
        raise ValueError(
            f"{path} is no network that is read here; expected a run, a .safetensors, or for fastgan sample an .onnx, as"
            " fastgan export makes it"
        )
    return recipes.load_run(path, device, recipe)


@contextlib.contextmanager
def served(networks: dict) -> Iterator[None]:
    """Within, networks on the CPU are in their serving form (`accelerate(freeze=True)`), which pays from the third call on."""
    reports = []
    for network in networks.values():
        tensors = (*network.parameters(), *network.buffers()) if isinstance(network, torch.nn.Module) else ()
        plain = tensors and not any(m.training for m in network.modules())
        if plain and all(t.device.type == "cpu" for t in tensors):
            reports.append(accelerate(network, freeze=True))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* runs as ever, not frozen")
            yield
    finally:
        for report in reversed(reports):
            unpatch(report)


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """The point at share t of the great arc from a to b, [N, ...] each: latents keep a Gaussian's length on the way."""
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = cosine.arccos().view(-1, *[1] * (a.dim() - 1))
    straight = torch.lerp(a, b, t)
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    return torch.where(angle.sin() < 1e-4, straight, arc)


def interpolate(
    recipe, networks: dict, seeds: list[int], between: int, label: torch.Tensor | None, truncation: float
) -> Iterator[torch.Tensor]:
    """Frames [C, H, W] of a closed walk through the latents of `seeds`, `between` frames from one to the next; each is of
    class `label`, or of the nearer seed's."""
    points = recipe.latents(seeds)
    labels = recipe.labels(seeds) if label is None else label.expand(len(seeds))
    for n, (a, b) in enumerate(zip(points, points.roll(-1, 0), strict=True)):
        for start in range(0, between, 8):  # few frames at a time: a long video must not fill the memory
            z = torch.cat([slerp(a[None], b[None], i / between) for i in range(start, min(start + 8, between))])
            near = [(n + (2 * i >= between)) % len(seeds) for i in range(start, start + len(z))]
            c = None if labels is None else labels[near]
            yield from recipe.generate(networks, z, c, truncation).float().cpu()


def mix(
    recipe,
    networks: dict,
    rows: list[int],
    columns: list[int],
    layers: list[int] | None,
    truncation: float,
    label: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:
    """Style mixing (Karras et al., 2019, figure 3): the styles of a row's seed, those of `layers` (None: the first seven) from
    the column's.

    Returns images [N, C, H, W] of a table whose first row and column show the seeds themselves (the corner is white), and the
    number of columns. Raises ValueError for a generator without styles, or layers that it does not have.
    """
    generator = networks["generator"]
    if not hasattr(generator, "mapping") or not hasattr(generator, "synthesis"):
        raise ValueError(f"{recipe.name}: no mapping network, so no styles to mix")
    layers = list(range(min(7, generator.num_ws))) if layers is None else layers
    if bad := [i for i in layers if i >= generator.num_ws]:
        raise ValueError(f"style layers {bad}: this generator has layers 0 to {generator.num_ws - 1}")
    check_pixels((len(rows) + 1) * (len(columns) + 1), *sides(generator.img_resolution))
    device = next(generator.parameters()).device

    def styles(seeds: list[int]) -> torch.Tensor:
        c = recipe.labels(seeds) if label is None else label.expand(len(seeds))
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

    A path without a suffix gets .gif. Raises ValueError for another format, ImportError that names the package.
    """
    path = named(path, (".gif", ".mp4"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as temporary:
        (_save_gif if path.suffix.lower() == ".gif" else _save_mp4)(map(_pixels, frames), temporary)
    return path


def _pixels(frame: torch.Tensor):
    from fastgan.data import to_uint8
    from fastgan.data.pixels import viewable

    image = viewable(to_uint8(frame[None]))[0].expand(3, -1, -1).permute(1, 2, 0)
    scale = max(1, -(-128 // max(image.shape[:2])))  # small pictures are enlarged so that they can be seen
    return image.repeat_interleave(scale, 0).repeat_interleave(scale, 1).contiguous().numpy()


def _save_gif(pictures, path: Path) -> None:
    from PIL import Image

    frames = map(Image.fromarray, pictures)
    next(frames).save(path, format="GIF", save_all=True, append_images=frames, duration=round(1000 / FPS), loop=0)


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


def pictures(
    recipe, networks: dict, seeds: list[int], label: torch.Tensor | None = None, truncation: float = 1.0
) -> Iterator[torch.Tensor]:
    """Images [n, C, H, W] of `seeds`, `at_once` at a time, on the CPU; `label` int64 [1] instead of the classes in turn."""
    size = at_once(label, truncation)
    for some in _chunks(seeds, size):
        if size > 1:
            made = recipe.sample(networks, some)
        else:
            labels = recipe.labels(some) if label is None else label
            made = recipe.generate(networks, recipe.latents(some), labels, truncation)
        yield made.float().cpu()


def at_once(label: torch.Tensor | None, truncation: float) -> int:
    """How many seeds `pictures` draws in one call."""
    return 64 if label is None and truncation == 1.0 else 1


def _chunks(items: list, size: int) -> Iterator[list]:
    return (items[i : i + size] for i in range(0, len(items), size))


def grid(images: Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """All of `images`, of which there are `count`, as uint8, grey or RGB. ValueError for more than a picture should hold."""
    from fastgan.data import to_uint8
    from fastgan.data.pixels import viewable

    parts = []
    for part in images:
        check_pixels(count, *part.shape[2:])
        parts.append(viewable(to_uint8(part)))
    return torch.cat(parts)


def check_pixels(count: int, height: int, width: int) -> None:
    """ValueError for a grid of more images than a picture should hold."""
    if count * height * width > MOST_PIXELS:
        raise ValueError(
            f"{count} images of {width}x{height} pixels are too many for one picture, expected at most"
            f" {MOST_PIXELS // (height * width)}; of seeds --separate writes a file for each"
        )


def save_separately(
    samples: Iterable[torch.Tensor],
    seeds: list[int],
    out: Path,
    medium: type[Medium] = Image,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Writes each sample as it is (`Medium.save_one`), for images `seedNNNN.png` in folder `out`; returns how many that were."""
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for sample in itertools.chain.from_iterable(samples):
        medium.save_one(sample, out / f"seed{seeds[count]:04d}", facts)
        count += 1
    return count


def translate_folder(recipe, networks: dict, source: str, direction: str | None, out: Path) -> int:
    """Translates every image of folder (or zip, npz) `source` and writes PNGs of the run's resolution, in folder `out` by the
    same names (`target_names`); returns how many. `direction`: AtoB, BtoA, or None for the first that the recipe has.

    Raises ValueError for a recipe that does not translate, and FileExistsError rather than replace a file.
    """
    from fastgan.data import load, to_float
    from fastgan.data.decode import crop_of
    from fastgan.data.pictures import in_memory

    if not hasattr(recipe, "translate"):
        raise ValueError(
            f"--input: recipe {recipe.name} does not translate images; cyclegan, pix2pix and realesrgan do"
        )
    direction = direction or next(iter(recipe.generators))
    facts = {name: recipe.data.get(name) for name in ("resolution", "channels", "bits")}
    dataset = in_memory(
        load(source, labels=False, crop=crop_of(recipe.data), **facts), "translations are named after files"
    )
    count = len(dataset.images)
    names = target_names(dataset.files or [f"{i:06d}.png" for i in range(count)])
    arrays = [str(PurePosixPath(name).with_suffix(".npy")) for name in names]  # of what no picture holds
    if there := [name for name in [*names, *arrays] if (out / name).exists()]:
        raise FileExistsError(
            f"{out} already holds {there[0]}, one of {len(there)} files to write: choose another --out"
        )
    with torch.no_grad():
        for index in torch.arange(count).split(8):
            made = recipe.translate(networks, to_float(dataset.images[index]), direction).float().cpu()
            for i, image in zip(index.tolist(), made, strict=True):
                path = out / names[i]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.save_one(image, path, facts)
    return count


def target_names(files: Sequence[str], suffix: str = ".png", reserved: Iterable[str] = ()) -> list[str]:
    """Relative paths of files of a `suffix`, a different one for each of `files`, in the same sub-folders: x.png and x.jpg become
    x.png and x.jpg.png; without an x.png, x.jpg becomes x.png. None leads out of the folder, or is one of those `reserved`."""
    plain = [PurePosixPath(*(part for part in PurePosixPath(file).parts if part not in ("/", ".."))) for file in files]
    taken = set(reserved)
    found = [""] * len(files)
    # Those whose name stays the same come first.
    for i in sorted(range(len(files)), key=lambda i: plain[i].suffix != suffix):
        name = plain[i].with_suffix(suffix).as_posix()
        if name in taken:
            name = f"{plain[i]}{suffix}"
        while name in taken:
            name = f"{name.removesuffix(suffix)}_{suffix}"
        taken.add(name)
        found[i] = name
    return found
