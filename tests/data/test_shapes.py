"""Rectangles, any number of channels and 16 bits: what is cut, what is kept, and which axis is which."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.data import ImageDataset, Loader, PairDataset, load, load_pair, prepare, save_npz, to_float, to_uint16
from fastgan.data.catalog import conform
from fastgan.data.decode import crop_box, decode, resize_array
from fastgan.data.pixels import viewable, with_bits, with_channels

RNG = np.random.default_rng(21)


def pixels(*shape: int, dtype=np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def folder(path, *images: np.ndarray):
    path.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i}.png")
    return path


def last(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("size", "crop", "resolution", "box"),
    [
        ((14, 9), "center", 1, (2, 0, 11, 9)),
        ((14, 9), "center", (1, 2), (0, 1, 14, 8)),
        ((9, 14), "center", (1, 2), (0, 5, 9, 9)),
        ((100, 100), "center", (96, 160), (0, 20, 100, 80)),
        ((100, 3), "center", (1000, 1), (49, 0, 50, 3)),
        ((14, 9), "stretch", (96, 160), (0, 0, 14, 9)),
        ((14, 9), "none", (9, 14), (0, 0, 14, 9)),
    ],
)
def test_what_is_cut(size, crop, resolution, box):
    assert crop_box(*size, crop, resolution=resolution) == box


def test_a_folder_of_rectangles(tmp_path):
    images = [pixels(9, 14, 3) for _ in range(3)]
    folder(tmp_path / "set", *images)
    whole = load(tmp_path / "set", crop="none")
    assert (whole.height, whole.width, whole.resolution) == (9, 14, (9, 14))
    assert np.array_equal(last(whole.images), images)
    assert whole.about == "3 images of 9x14 pixels, no classes" and "3 images 3x9x14, 0 classes" in repr(whole)
    cut = load(tmp_path / "set", resolution=(7, 14))
    assert np.array_equal(last(cut.images), [image[1:8] for image in images])
    assert load(tmp_path / "set", resolution=[18, 28], crop="none").resolution == (18, 28)
    squeezed = load(tmp_path / "set", resolution=(5, 6), crop="stretch")
    expected = [Image.fromarray(image).resize((6, 5), Image.Resampling.LANCZOS) for image in images]
    assert np.array_equal(last(squeezed.images), [np.asarray(image) for image in expected])
    assert load(tmp_path / "set", resolution=(8, 8)).resolution == load(tmp_path / "set", resolution=8).resolution == 8
    assert load(tmp_path / "set").resolution == 9
    with pytest.raises(ValueError, match=r"set/0\.png: 14x9 pixels do not become 20x10 with crop='none'"):
        load(tmp_path / "set", resolution=(10, 20), crop="none")
    folder(tmp_path / "set", *images, pixels(9, 15, 3))
    with pytest.raises(ValueError, match=r"differ in size.*\(14, 9\).*\(15, 9\).*give resolution="):
        load(tmp_path / "set", crop="none")


def test_turned_pictures_are_rectangles_the_other_way(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(pixels(6, 10, 3)).save(tmp_path / "i.png", exif=exif)
    assert load(tmp_path, crop="none").resolution == (10, 6)


def test_alpha_of_files(tmp_path):
    clear, opaque = pixels(6, 10, 4), pixels(6, 10, 3)
    grey = pixels(6, 10)
    data = load(folder(tmp_path / "set", clear, opaque, grey), crop="none", channels=4)
    assert data.about == "3 images of 6x10 pixels, RGBA, no classes"
    assert np.array_equal(last(data.images)[0], clear)
    assert np.array_equal(last(data.images)[1, ..., :3], opaque) and (data.images[1:, 3] == 255).all()
    assert all(np.array_equal(data.images[2, i], grey) for i in range(3))
    with_grey = load(tmp_path / "set", crop="none", channels=2).images
    assert torch.equal(with_grey[:, 1], data.images[:, 3]) and np.array_equal(with_grey[2, 0], grey)
    assert np.array_equal(with_grey[0, 0], Image.fromarray(clear[..., :3]).convert("L"))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "set").iterdir()):
            archive.write(file, file.name)
    assert torch.equal(load(tmp_path / "set.zip", crop="none", channels=4).images, data.images)
    # Colour under alpha 0 does not bleed into what is seen of a smaller picture.
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[:, :4], hidden[:, 4:] = (0, 0, 255, 0), (255, 0, 0, 255)
    small = load(folder(tmp_path / "hidden", hidden), resolution=2, channels=4).images[0]
    assert (small[2][small[3] > 0] == 0).all()
    with pytest.raises(ValueError, match=r"channels is 5, and files of pictures have 1 .* read from an npz or npy"):
        load(tmp_path / "set", channels=5)


def test_sixteen_bits_of_files(tmp_path):
    deep, plain = pixels(6, 10, dtype=np.uint16), pixels(6, 10, 3)
    data = load(folder(tmp_path / "set", deep, plain), crop="none", channels=1, bits=16)
    assert data.images.dtype == torch.uint16 and data.bits == 16
    assert data.about == "2 images of 6x10 pixels, 16 bits, no classes" and "of 16 bits" in repr(data)
    assert np.array_equal(data.images[0, 0], deep)
    eight = load(tmp_path / "set", crop="none", channels=1)
    assert torch.equal(with_bits(data.images, 8), eight.images) and eight.bits == 8
    assert np.array_equal(eight.images[0, 0], np.round(deep / 257.0))
    for channels in (None, 2, 4):
        more = load(tmp_path / "set", crop="none", channels=channels, bits=16).images
        assert np.array_equal(more[0, 0], deep)
        assert channels is None or (more[:, -1] == 65535).all()
    smaller = load(tmp_path / "set", resolution=(3, 5), channels=1, bits=16).images[0, 0].numpy()
    exact = np.asarray(Image.fromarray(deep.astype(np.float32)).resize((5, 3), Image.Resampling.LANCZOS))
    assert np.abs(smaller - exact.clip(0, 65535)).max() <= 0.5


def test_decode_takes_what_load_takes():
    import io

    file = io.BytesIO()
    Image.fromarray(pixels(8, 16, 4)).save(file, "png")
    assert decode(file.getvalue(), (4, 8), "center", 4).shape == (4, 4, 8)
    assert decode(file.getvalue(), (4, 4), "center", 2, bits=16).dtype == np.uint16
    assert decode(file.getvalue(), (4, 4), "none", 1, part="left").shape == (1, 4, 4)
    with pytest.raises(ValueError, match="16x8 pixels do not become 4x4 with crop='none'"):
        decode(file.getvalue(), 4, "none", 3)
    with pytest.raises(ValueError, match="channels is 7"):
        decode(file.getvalue(), 4, "center", 7)


def test_prepared_sets_stay_as_they_are(tmp_path):
    images = pixels(4, 12, 6, 10, dtype=np.uint16)
    data = ImageDataset(torch.from_numpy(images), name="bands")
    assert data.about == "4 images of 6x10 pixels, 12 channels, 16 bits, no classes"
    save_npz(data, tmp_path / "a.npz")
    assert np.array_equal(load(tmp_path / "a.npz").images, images)
    assert load(tmp_path / "a.npz", resolution=6).images.shape == (4, 12, 6, 6)
    assert load(tmp_path / "a.npz", bits=8).images.dtype == torch.uint8
    folder(tmp_path / "set", *pixels(3, 6, 10, 4))
    made = prepare(tmp_path / "set", tmp_path / "b.npz", crop="none", channels=4, bits=16)
    assert made.images.shape == (3, 4, 6, 10) and made.bits == 16
    assert torch.equal(load(tmp_path / "b.npz").images, made.images)
    assert prepare(tmp_path / "b.npz", tmp_path / "c.npz", resolution=(12, 20), bits=8).resolution == (12, 20)


def test_sixteen_bits_are_mapped_wherever_they_lie(tmp_path):
    images = pixels(3, 2, 5, 7, dtype=np.uint16)
    for name in ("a", "ab"):  # the second array begins at an odd byte for one of them
        np.savez(tmp_path / "x.npz", **{name: np.arange(3), "images": images})
        assert np.array_equal(load(tmp_path / "x.npz", crop="none").images, images)
        assert to_float(load(tmp_path / "x.npz", crop="none").images[:1]).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "options", "axes", "expected"),
    [
        ((2, 3, 5, 7), {}, None, (3, 5, 7)),
        ((2, 5, 7, 3), {}, None, (3, 5, 7)),
        ((2, 3, 5, 3), {}, None, (3, 5, 3)),
        ((2, 4, 5, 7), {}, None, (4, 5, 7)),
        ((2, 5, 7, 2), {}, None, (2, 5, 7)),
        ((2, 4, 5, 3), {}, None, (3, 4, 5)),
        ((2, 6, 7, 31), {"channels": 31}, None, (31, 6, 7)),
        ((2, 31, 6, 7), {"channels": 31}, None, (31, 6, 7)),
        ((2, 4, 4, 31), {"channels": 31}, None, (31, 4, 4)),
        ((2, 31, 6, 7), {}, "NCHW", (31, 6, 7)),
        ((2, 6, 7, 31), {}, "NHWC", (31, 6, 7)),
        ((2, 3, 7, 3), {}, "NHWC", (3, 3, 7)),
        ((2, 31, 6, 7), {}, None, "31 of axis 1 or the 7 of axis 3: give channels=31 or channels=7, or add"),
        ((2, 31, 6, 7), {"channels": 3}, None, "31 of axis 1 or the 7 of axis 3: give channels=31"),
        ((2, 8, 8, 8), {"channels": 8}, None, "8 of axis 1 or the 8 of axis 3: add"),
        ((2, 4, 5, 4), {}, None, "4 of axis 1 or the 4 of axis 3"),
        ((2, 31, 6, 7), {"channels": 30}, "NCHW", "channels is 30, and the images have 31"),
        ((2, 3, 5, 7), {}, "CHWN", "axes is <U4"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_which_axis_is_channels(tmp_path, shape, options, axes, expected, dtype):
    images = pixels(*shape, dtype=dtype)
    np.savez(tmp_path / "x.npz", images=images, **({"axes": axes} if axes else {}))
    np.save(tmp_path / "x.npy", images)
    for path in [tmp_path / "x.npz", *([] if axes else [tmp_path / "x.npy"])]:
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=rf"{path}: .*{expected}"):
                load(path, crop="none", **options)
            continue
        data = load(path, crop="none", **options)
        assert data.images.shape[1:] == expected
        first = data.images.numpy() if shape[1] == expected[0] and axes != "NHWC" else last(data.images)
        assert np.array_equal(first, images)


def test_npy_files(tmp_path):
    images = pixels(3, 5, 6, 10)
    np.save(tmp_path / "x.npy", images)
    data = load(tmp_path / "x.npy", channels=5, crop="none")
    assert np.array_equal(data.images, images) and data.num_classes == 0
    assert load(tmp_path / "x.npy", channels=5).resolution == 6  # as of every set, the middle square
    data.images.zero_()
    assert np.array_equal(np.load(tmp_path / "x.npy"), images)
    np.save(tmp_path / "x.npy", np.asfortranarray(images))
    assert np.array_equal(load(tmp_path / "x.npy", channels=5, crop="none").images, images)
    np.save(tmp_path / "x.npy", images[:, 0])
    assert np.array_equal(load(tmp_path / "x.npy", crop="none").images[:, 0], images[:, 0])
    content = (tmp_path / "x.npy").read_bytes()
    for wrong, message in (
        (content[:-1], "its header claims 180 bytes"),
        (content + b"x", "its header claims 180 bytes"),
        (b"", "damaged header"),
        (content[:40], "damaged header"),
    ):
        (tmp_path / "x.npy").write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"x\.npy: .*{message}"):
            load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="images is float64"):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load(tmp_path / "x.npy")


def test_channels_and_bits_of_arrays():
    assert load("emoji:base", channels=4).images[:, 3].min() == 255
    rgb = torch.from_numpy(pixels(70, 3, 4, 6))
    grey = with_channels(rgb, 1)
    assert torch.equal(with_channels(with_channels(rgb, 4), 3), rgb) and torch.equal(with_channels(rgb, 2)[:, :1], grey)
    assert with_channels(grey, 3).data_ptr() == grey.data_ptr()
    assert torch.equal(with_channels(grey, 4)[:, :3], grey.expand(-1, 3, -1, -1))
    clear = torch.cat([rgb, torch.zeros_like(grey)], 1)
    assert (with_channels(clear, 3) == 255).all() and (with_channels(clear, 1) == 255).all()
    assert torch.equal(with_channels(clear, 2), torch.cat([grey, torch.zeros_like(grey)], 1))
    half = torch.tensor([[0, 100, 255, 51]], dtype=torch.uint8)[:, :, None, None]
    assert with_channels(half, 3).flatten().tolist() == [204, 224, 255]
    deep = with_bits(rgb, 16)
    assert deep.dtype == torch.uint16 and torch.equal(with_bits(deep, 8), rgb)
    for channels in (1, 2, 3, 4):
        both = with_bits(with_channels(rgb, channels), 16), with_channels(deep, channels)
        assert (both[0].int() - both[1].int()).abs().max() <= 257
    for wrong in (5, 0):
        with pytest.raises(ValueError, match=f"channels is {wrong}, and the images have 3"):
            with_channels(rgb, wrong)
    with pytest.raises(ValueError, match="channels is 3, and the images have 7"):
        with_channels(torch.zeros(1, 7, 2, 2, dtype=torch.uint8), 3)


def test_every_channel_but_with_alpha_is_resized_as_a_grey_picture():
    for dtype in (np.uint8, np.uint16):
        for channels in (1, 2, 3, 4, 7):
            images = pixels(5, channels, 9, 14, dtype=dtype)
            small = resize_array(images, (4, 6))
            assert small.dtype == dtype and small.shape == (5, channels, 4, 6)
            for i in () if channels in (2, 4) else range(channels):  # whose last is alpha, and weights the others
                assert np.array_equal(small[:, i : i + 1], resize_array(images[:, i : i + 1], (4, 6)))
            assert resize_array(images, (9, 14)).tobytes() == images.tobytes()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_alpha_is_resized_alike_from_files_and_arrays(mode, channels, tmp_path):
    """By alpha's weight: the colour of what nobody sees would else bleed into what is seen."""
    arrays = pixels(4, len(mode), 20, 30)
    for i, array in enumerate(arrays):
        Image.fromarray(array.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    np.savez(tmp_path / "arrays.npz", images=arrays, axes=np.array("NCHW"))
    for crop, size in (("center", 8), ("stretch", (9, 7))):
        found = [
            load(path, resolution=size, crop=crop, channels=channels) for path in (tmp_path, tmp_path / "arrays.npz")
        ]
        assert torch.equal(found[0].images, found[1].images)


def test_what_is_transparent_is_not_seen_in_16_bits():
    image = np.zeros((1, 4, 8, 8), np.uint16)
    image[:, 0, :, :4], image[:, 3, :, :4] = 65535, 65535  # red, beside transparent black
    small = resize_array(image, 5)[0].astype(int)
    seen = small[3] > 100
    assert (small[0][seen] == 65535).all() and 0 < small[3][:, 2].min() < 65535


def test_ranges_of_16_bits():
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    values = to_float(every)
    assert values.dtype == torch.float32 and values[0] == -1 and values[-1] == 1
    assert torch.equal(to_uint16(values), every)
    assert to_uint16(torch.tensor([-7.0, 7.0, torch.nan])).tolist() == [0, 65535, 32768]
    with pytest.raises(TypeError, match=r"to_uint16: images has dtype torch\.uint8, expected a floating type"):
        to_uint16(torch.zeros(1, dtype=torch.uint8))


def test_what_is_shown_of_other_channels():
    images = torch.from_numpy(pixels(4, 12, 5, 7, dtype=np.uint16))
    assert torch.equal(viewable(images), with_bits(images[:, [0, 5, 11]], 8))
    assert torch.equal(viewable(images[:, :5]), with_bits(images[:, [0, 2, 4]], 8))
    assert torch.equal(viewable(images[:, :4]), with_channels(with_bits(images[:, :4], 8), 3))
    assert torch.equal(viewable(images[:, :2]), with_channels(with_bits(images[:, :2], 8), 1))
    plain = with_bits(images[:, :3], 8)
    assert viewable(plain) is plain


def test_batches_and_flips(tmp_path):
    for dtype, channels in ((np.uint8, 4), (np.uint16, 7)):
        data = ImageDataset(torch.from_numpy(pixels(6, channels, 3, 5, dtype=dtype)), name="x", flip=True)
        images, _ = next(Loader(data, 40, seed=1))
        assert images.dtype == data.images.dtype and images.shape == (40, channels, 3, 5)
        mirrored = torch.cat([data.images, data.images.flip(-1)]).to(torch.int32)
        assert all((mirrored == image.to(torch.int32)).flatten(1).all(1).any() for image in images)


def test_pairs_of_rectangles(tmp_path):
    wide = [pixels(6, 20, 4) for _ in range(3)]
    folder(tmp_path / "both", *wide)
    pair = load_pair(tmp_path / "both", crop="none", channels=4)
    assert pair.resolution == (6, 10) and pair.about == "3 pairs of images of 6x10 pixels, RGBA"
    assert np.array_equal(last(pair.a.images), [image[:, :10] for image in wide])
    cut = PairDataset(pair.a, pair.b, paired=True, crop=(5, 8))
    assert cut.resolution == (5, 8) and cut.about == "3 pairs of images of 5x8 pixels, RGBA"
    assert PairDataset(pair.a, pair.b, paired=True, crop=(5, 5)).resolution == 5
    with pytest.raises(ValueError, match=r"crop is \(7, 8\), expected 1\.\.\(6, 10\)"):
        PairDataset(pair.a, pair.b, paired=True, crop=(7, 8))
    with pytest.raises(ValueError, match=r"of 8 bits and .* of 16 bits: give .* bits="):
        PairDataset(pair.a, conform(pair.b, None, None, bits=16), paired=True)
    with pytest.raises(ValueError, match="bits is 3"):
        load_pair(tmp_path / "both", bits=3)
