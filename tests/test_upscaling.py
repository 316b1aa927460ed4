"""Tiles against the whole picture; channels, bits and sizes of files; what a folder's command writes and refuses."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan import models
from fastgan.convert.converted import Upscaler
from fastgan.data.exact import read_exact, write_png
from fastgan.upscaling import for_channels, parts, tiled, upscale_folder


def picture(channels=3, height=50, width=71, dtype=torch.uint8):
    return torch.randint(0, 256 if dtype == torch.uint8 else 65536, (channels, height, width)).to(dtype)


def networks(kind="esrgan.compact", **options):
    network = models.build(kind, width=8, **options).eval().requires_grad_(False)
    recipe = Upscaler(kind, network)
    return recipe, {"generator": network}


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "multiple"), [(100, 32, 16, 1), (98, 33, 7, 2), (5, 2, 0, 1), (4, 0, 16, 4)]
)
def test_weights_sum_to_one_and_tiles_are_no_larger_than_asked(length, tile, overlap, multiple):
    from fastgan.upscaling import _fade

    total = torch.zeros(length * 3)
    for part in parts(length, tile, overlap, multiple):
        total[3 * part.kept.start : 3 * part.kept.stop] += _fade(part, 3)
        assert part.read.start % multiple == 0 and part.read.stop % multiple == 0
        assert not tile or part.read.stop - part.read.start <= tile + 2 * (overlap + multiple)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize(("height", "width", "tile"), [(50, 71, 32), (33, 97, 40), (20, 20, 64), (1, 90, 32)])
def test_tiles_change_nothing_where_the_network_sees_half_the_overlap(height, width, tile, dtype):
    recipe, nets = networks(convolutions=6, scale=2)  # eight 3x3 convolutions see 8 pixels
    image = picture(3, height, width, dtype)
    whole, cut = (tiled(lambda x: recipe.upscale(nets, x), image, 2, t, 16) for t in (0, tile))
    assert cut.shape == (3, 2 * height, 2 * width) and cut.dtype == dtype
    step = (whole.to(torch.int32) - cut.to(torch.int32)).abs().max()
    assert step <= (0 if dtype == torch.uint8 else 1)  # a rounding apart


def test_a_network_that_sees_farther_fades_without_a_seam():
    """A step at a border of tiles would be as large as what the tiles disagree by; faded it is a fraction of that."""
    seen = []

    def counting(x):  # each tile is of another brightness: nothing can disagree more
        seen.append(x.shape)
        return torch.full((1, 3, 2 * x.shape[2], 2 * x.shape[3]), 1.0 if len(seen) % 2 else -1.0)

    out = tiled(counting, picture(3, 16, 128), 2, 64, 16).to(torch.int32)
    assert len(seen) == 2 and out[:, :, 0].min() == 255 and out[:, :, -1].max() == 0
    assert out.diff(dim=2).abs().max() <= 8 < 255  # over 32 pixels


def test_only_a_row_of_tiles_is_given_to_the_network():
    sizes = []
    tiled(lambda x: sizes.append(x.shape) or x, picture(3, 300, 200), 1, 64, 8)
    assert len(sizes) == 5 * 4 and max(s[2] * s[3] for s in sizes) <= 80 * 80


@pytest.mark.parametrize(("scale", "multiple"), [(2, 2), (1, 4), (4, 1)])
def test_sizes_that_do_not_divide(scale, multiple):
    recipe, nets = networks("esrgan.generator", blocks=1, growth=4, scale=scale)
    assert nets["generator"].unshuffle == multiple
    image = picture(3, 37, 51)
    out = tiled(lambda x: recipe.upscale(nets, x), image, scale, 16, 8, multiple)
    assert out.shape == (3, 37 * scale, 51 * scale)


def test_channels():
    def twice(x):
        assert x.shape[1] == 3
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    for channels in (1, 2, 3, 4):
        image = picture(channels, 9, 12)
        out = tiled(for_channels(twice, 3), image, 2, 0)
        assert torch.equal(out, image.repeat_interleave(2, 1).repeat_interleave(2, 2))
    grey = tiled(for_channels(lambda x: x if x.shape[1] == 1 else None, 1), image, 1)
    assert torch.equal(grey, image)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 9), (16, -1), (-1, 0)])
def test_refused_tiles(tile, overlap):
    with pytest.raises(ValueError, match="expected an overlap of 0 to half a tile"):
        tiled(lambda x: x, picture(), 1, tile, overlap)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_files_keep_channels_and_bits(tmp_path, channels, dtype):
    if dtype == torch.uint16:
        pytest.importorskip("imagecodecs")
    image = picture(channels, 7, 5, dtype)
    write_png(image, tmp_path / "x.png")
    again = read_exact((tmp_path / "x.png").read_bytes())
    assert again.dtype == dtype and torch.equal(again, image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_whatever_the_bits(tmp_path, orientation):
    pytest.importorskip("imagecodecs")
    image, exif = picture(3, 4, 6), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "x.png", exif=exif)
    expected = read_exact((tmp_path / "x.png").read_bytes())
    write_png((image.int() * 257).to(torch.uint16), tmp_path / "deep.png")
    deep = (tmp_path / "deep.png").read_bytes()
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    header = 8 + 25  # signature and IHDR
    made = read_exact(deep[:header] + chunk + deep[header:])
    assert made.dtype == torch.uint16 and torch.equal(made.int(), expected.int() * 257)


def test_other_files(tmp_path):
    palette = Image.fromarray(np.zeros((4, 4, 3), np.uint8)).quantize(2)
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_exact((tmp_path / "p.png").read_bytes()).shape == (4, 4, 4)
    Image.fromarray(np.full((3, 2), 60000, np.uint16)).save(tmp_path / "deep.tif")
    assert read_exact((tmp_path / "deep.tif").read_bytes()).unique().tolist() == [60000]
    Image.new("F", (2, 2)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match="floating-point"):
        read_exact((tmp_path / "f.tif").read_bytes())


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    pytest.importorskip("imagecodecs")
    write_png(picture(3, 2, 2, torch.uint16), tmp_path / "x.png")
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(ImportError, match=r"fastgan\[upscale\]"):
        read_exact((tmp_path / "x.png").read_bytes())


def test_folder(tmp_path):
    recipe, nets = networks(convolutions=1, scale=2)
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    images = {"a.png": picture(4, 9, 12), "sub/b.png": picture(1, 5, 40)}
    for name, image in images.items():
        write_png(image, source / name)
    assert upscale_folder(recipe, nets, str(source), tmp_path / "out", 32, 4) == 2
    for name, image in images.items():
        made = read_exact((tmp_path / "out" / name).read_bytes())
        assert made.shape == (len(image), 2 * image.shape[1], 2 * image.shape[2])
    with pytest.raises(FileExistsError, match=r"already holds a\.png"):
        upscale_folder(recipe, nets, str(source), tmp_path / "out")
    (source / "c.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"c\.png"):
        upscale_folder(recipe, nets, str(source), tmp_path / "again")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        upscale_folder(recipe, nets, str(tmp_path / "none"), tmp_path / "again")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        upscale_folder(recipe, nets, str(tmp_path / "empty"), tmp_path / "again")


@pytest.mark.parametrize("kind", ["deep", "large"])
def test_broken_pictures_are_named(tmp_path, kind):
    """Of whatever class the library's error is: imagecodecs' own, Pillow's for too many pixels."""
    recipe, nets = networks(convolutions=1, scale=2)
    (tmp_path / "in").mkdir()
    if kind == "deep":
        pytest.importorskip("imagecodecs")
        write_png(picture(3, 9, 9, torch.uint16), tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()[:-20]
    else:
        Image.new("RGB", (2, 2)).save(tmp_path / "whole.bmp")
        content = bytearray((tmp_path / "whole.bmp").read_bytes())
        content[18:26] = struct.pack("<ii", 30_000, 30_000)
    (tmp_path / "in" / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"in/broken\.png: \w"):
        upscale_folder(recipe, nets, str(tmp_path / "in"), tmp_path / "out")
