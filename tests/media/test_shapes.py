"""Pictures of any shape, channels and bits as files: grids, pictures alone, videos, and options of a run."""

import io
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from fastgan import recipes, sampling
from fastgan.data import ImageDataset, PairDataset, load, to_float, to_uint8, to_uint16
from fastgan.data.pictures import Options, PictureItems
from fastgan.data.pixels import viewable, with_channels
from fastgan.media import Image, save_grid
from fastgan.training import RunConfig
from fastgan.training.run import read_options


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape) * 2 - 1


def read(path) -> np.ndarray:
    with Pillow.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_grids_show_grey_or_colour(tmp_path, channels, suffix):
    images = drawn(5, channels, 6, 10)
    path = save_grid(images, tmp_path / f"grid{suffix}", scale=1)
    picture = read(path)
    assert picture.shape[:2] == (3 * 8 + 2, 2 * 12 + 2)  # 2 columns of wide pictures: about a square
    assert picture.ndim == (2 if channels <= 2 and suffix != ".webp" else 3) and picture.shape[2:] in ((), (3,))
    if suffix != ".jpg":
        first = torch.from_numpy(np.atleast_3d(picture[2:8, 2:12]).copy()).permute(2, 0, 1)
        expected = viewable(to_uint8(images[:1]))[0]
        assert torch.equal(first, expected.expand(first.shape))
        assert (np.atleast_3d(picture)[0] == 255).all() and (np.atleast_3d(picture)[-8:, -12:] == 255).all()


@pytest.mark.parametrize(("size", "scale"), [((32, 32), 2), ((64, 64), 1), ((6, 10), 7), ((96, 160), 1), ((4, 200), 1)])
def test_small_pictures_are_enlarged_by_their_longer_side(tmp_path, size, scale):
    picture = read(save_grid(drawn(1, 3, *size), tmp_path / "grid"))
    assert picture.shape == ((size[0] + 4) * scale, (size[1] + 4) * scale, 3)


def test_square_grids_are_as_before(tmp_path):
    for count, columns in ((1, 1), (2, 2), (5, 3), (64, 8), (65, 9)):
        assert read(save_grid(drawn(count, 1, 8, 8), tmp_path / "x", scale=1)).shape[1] == columns * 10 + 2
    assert read(save_grid(drawn(3, 3, 4, 400), tmp_path / "x")).shape == (3 * 6 + 2, 404, 3)
    assert read(save_grid(drawn(3, 3, 400, 4), tmp_path / "x")).shape == (404, 3 * 6 + 2, 3)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept_of_a_picture_alone(tmp_path, channels):
    image = drawn(channels, 6, 10)
    pixels = to_uint8(image)
    assert np.array_equal(read(Image.save_one(image, tmp_path / "x")), pixels.permute(1, 2, 0))
    assert np.array_equal(read(Image.save_one(image, tmp_path / "x.tif")), pixels.permute(1, 2, 0))
    webp = read(Image.save_one(image, tmp_path / "x.webp"))
    clear = with_channels(pixels[None], 4)[0].permute(1, 2, 0).numpy()
    seen = clear[..., 3] > 0
    assert webp.shape == (6, 10, 4) and np.array_equal(webp[seen], clear[seen])
    assert read(Image.save_one(image, tmp_path / "x.jpg")).shape[:2] == (6, 10)
    assert not list(tmp_path.glob("*.npy"))


def test_what_no_picture_holds_is_written_beside_it(tmp_path):
    image = drawn(7, 6, 10)
    path = Image.save_one(image, tmp_path / "bands")
    assert path.name == "bands.png" and read(path).shape == (6, 10, 3)
    assert np.array_equal(np.load(tmp_path / "bands.npy"), to_uint8(image))
    assert np.array_equal(read(path)[..., 1], to_uint8(image)[3])
    grey, colour = drawn(1, 6, 10), drawn(3, 6, 10)
    assert np.array_equal(read(Image.save_one(grey, tmp_path / "grey", {"bits": 16})), to_uint16(grey)[0])
    assert read(Image.save_one(grey, tmp_path / "grey.jpg", {"bits": 16})).dtype == np.uint8
    assert read(Image.save_one(colour, tmp_path / "colour", {"bits": 16})).dtype == np.uint8
    assert np.array_equal(np.load(tmp_path / "colour.npy"), to_uint16(colour))
    assert sorted(p.name for p in tmp_path.glob("*.npy")) == ["bands.npy", "colour.npy"]
    assert sampling.save_separately([drawn(2, 7, 4, 4)], [3, 5], tmp_path / "many", Image, {}) == 2
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [
        f"seed000{i}.{s}" for i in (3, 5) for s in ("npy", "png")
    ]


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_walks_of_other_channels(tmp_path, channels):
    path = sampling.save_video(list(drawn(3, channels, 6, 10)), tmp_path / "walk.gif")
    with Pillow.open(path) as video:
        assert video.size == (10 * 13, 6 * 13) and video.n_frames == 3


def test_pixels_reach_the_device_in_their_range():
    for dtype in (torch.uint8, torch.uint16):
        pixels = torch.arange(40).mul(6).to(dtype).view(1, 4, 2, 5)
        moved = Image.to_device(pixels, torch.device("cpu"), torch.channels_last)
        assert torch.equal(moved, to_float(pixels)) and moved.is_contiguous(memory_format=torch.channels_last)


def test_facts_and_options_of_rectangles():
    plain = Image.describe(ImageDataset(torch.zeros(2, 4, 6, 10, dtype=torch.uint8), name="x"))
    deep = Image.describe(ImageDataset(torch.zeros(2, 4, 6, 10, dtype=torch.uint16), name="x"))
    assert plain["resolution"] == (6, 10) and plain["channels"] == 4 and "bits" not in plain and deep["bits"] == 16

    class Images:
        medium, name = Image, "x"

    assert read_options(Images, {"resolution": [96, 160], "channels": 31}, "run").resolution == (96, 160)
    assert read_options(Images, {"resolution": 64, "crop": "none", "bits": 16}, "run") == RunConfig(
        resolution=64, crop="none", bits=16
    )
    for wrong in ({"resolution": [1, 2, 3]}, {"resolution": "64"}, {"bits": 12}, {"channels": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_options(Images, wrong, "run")


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (1, 16), (2, 8), (3, 16), (4, 8)])
def test_translated_folders_keep_alpha_and_bits(tmp_path, channels, bits):
    class Same:
        name, generators = "same", {"AtoB": "generator"}
        data: ClassVar = {"resolution": (6, 10), "channels": channels, "bits": bits}

        def translate(self, networks, images, direction):
            return images

    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        Pillow.fromarray(np.random.default_rng(i).integers(0, 256, (6, 10, 4), np.uint8)).save(source / f"{i}.png")
    assert sampling.translate_folder(Same(), {}, str(source), None, tmp_path / "out") == 3
    dataset = load(source, resolution=(6, 10), channels=channels, bits=bits)
    for i, pixels in enumerate(dataset.images):
        if bits == 16 and channels == 3:
            assert np.array_equal(np.load(tmp_path / "out" / f"{i}.npy"), pixels)
        else:
            assert np.array_equal(read(tmp_path / "out" / f"{i}.png"), pixels.permute(1, 2, 0).numpy().squeeze())


def test_translations_know_their_bits():
    for dtype in (torch.uint8, torch.uint16):
        side = ImageDataset(torch.zeros(2, 2, 32, 64, dtype=dtype), name="x")
        facts = recipes.get("pix2pix").describe(PairDataset(side, side, paired=True))
        assert facts["resolution"] == (32, 64) and facts.get("bits", 8) == side.bits


def test_pictures_decoded_as_needed_know_their_bits():
    file = io.BytesIO()
    Pillow.fromarray(np.zeros((6, 10, 4), np.uint8)).save(file, "png")
    for bits in (8, 16):
        pictures = PictureItems([file.getvalue()] * 3, Options(crop="none", channels=4, bits=bits), name="x")
        assert Image.describe(pictures).get("bits", 8) == bits and Image.describe(pictures)["resolution"] == (6, 10)
