"""The files that the pages of docs/ speak of, small: what a reader would have brought along."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from fastgan.data.wav import write_wav


def write(folder: Path) -> None:
    draw = np.random.default_rng(0)

    def pictures(name: str, *shape: int, count: int = 6, kind=np.uint8) -> None:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")

    pictures("photos", 70, 120, 3)
    pictures("flowers/rose", 70, 70, 3)
    pictures("flowers/tulip", 70, 70, 3)
    pictures("icons", 64, 64, 4)
    pictures("xrays", 130, 130, kind=np.uint16)
    pictures("A", 32, 32, 3)
    pictures("B", 32, 32, 3)
    pictures("pairs", 32, 64, 3)
    np.savez(folder / "hyperspectral.npz", images=draw.integers(0, 256, (8, 31, 32, 32), np.uint8))
    (folder / "poems.txt").write_text("the moon rises over the hill\na river runs to the sea\n" * 20, encoding="utf-8")
    (folder / "tones").mkdir()
    for i in range(4):
        write_wav(folder / "tones" / f"{i}.wav", 0.5 * np.sin(np.arange(8000) * 0.05 * (i + 1))[None], rate=8000)
    shards(folder)
    saved(folder)


def shards(folder: Path) -> None:
    """Ten of them, four pictures and classes in each."""
    (folder / "shards").mkdir()
    for shard in range(10):
        with tarfile.open(folder / "shards" / f"{shard:06d}.tar", "w") as file:
            for i in range(4):
                picture = io.BytesIO()
                Image.fromarray(np.full((64, 64, 3), 20 * shard + i, np.uint8)).save(picture, "PNG")
                for end, content in (("png", picture.getvalue()), ("cls", str(shard).encode())):
                    member = tarfile.TarInfo(f"{i:03d}.{end}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))


def saved(folder: Path) -> None:
    """What datasets' save_to_disk writes; nothing where that package is not installed."""
    try:
        import datasets
    except ImportError:
        return
    pixels = [Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)) for i in range(6)]
    datasets.Dataset.from_dict({"image": pixels}, features=datasets.Features(image=datasets.Image())).save_to_disk(
        folder / "saved"
    )
