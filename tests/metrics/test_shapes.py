"""Figures of rectangles, alpha, bands and 16 bits: what extractors are shown, and that figures say so."""

import warnings

import pytest
import torch
from pixels import Pixels

from fastgan.data import ImageDataset, to_float, to_uint16
from fastgan.data.pixels import unseen, viewable, with_bits, with_channels
from fastgan.metrics import images, latent, pairs


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape) * 2 - 1


@pytest.fixture
def seen(monkeypatch):
    """Shapes and types that the extractor is given."""
    found = []
    forward = Pixels.forward

    def record(self, x):
        found.append((x.shape[1:], x.dtype))
        return forward(self, x.expand(-1, 3, -1, -1))

    monkeypatch.setattr(Pixels, "forward", record)
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (31, 3)])
def test_real_and_drawn_images_take_the_same_way(seen, tmp_path, channels, shown, dtype):
    floats = drawn(12, channels, 6, 10)
    pixels = to_uint16(floats) if dtype == torch.uint16 else with_bits(to_uint16(floats), 8)
    real = images.dataset_features(Pixels(), ImageDataset(pixels, name="x"), tmp_path)
    fake = images.collect_drawn(Pixels(), [to_float(pixels)])
    assert set(seen) == {((shown, 6, 10), torch.uint8)}
    assert torch.equal(real.rows, fake.rows)
    assert torch.equal(images.collect(Pixels(), [viewable(pixels)]).rows, real.rows)


def test_floats_are_composited_like_bytes():
    for channels in (1, 2, 3, 4, 7):
        floats = to_float(with_bits(to_uint16(drawn(4, channels, 3, 5)), 8))
        bytes_ = viewable(with_bits(to_uint16(floats), 8))
        assert (viewable(floats) - to_float(bytes_)).abs().max() <= 1 / 255 + 1e-6


def test_what_is_said():
    assert unseen(1) == unseen(3) == "" and unseen(3, 16) == "16 bits are rounded to 8"
    assert unseen(2) == unseen(4) == "alpha is composited on white"
    assert unseen(12, 16).startswith("of 12 channels those numbered 0, 5 and 11 stand for red")
    told: set[str] = set()
    facts = {"resolution": (6, 10), "channels": 4, "bits": 16}
    with pytest.warns(
        UserWarning, match="before features are taken, alpha .* white, 16 bits .* to 8, 6x10 .* square"
    ) as caught:
        images.tell(facts, told)
        images.tell(facts, told)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.tell({"resolution": 32, "channels": 3}, set())
        images.tell({"resolution": 32, "channels": 1, "bits": 8}, set())
        images.tell({}, set())


def test_path_length_of_rgba():
    class Synthesis(torch.nn.Linear):
        def forward(self, ws):
            return torch.tanh(super().forward(ws[:, 0])).view(-1, 4, 6, 10)

    class Layers(torch.nn.Module):
        z_dim = 4

        def __init__(self):
            super().__init__()
            self.synthesis = Synthesis(4, 4 * 6 * 10)
            self.mapping = lambda z, c: z[:, None]

    given = []
    found = latent.measure(Layers(), lambda x: given.append(x.shape[1:]) or x.flatten(1), 8)
    assert found["ppl"] > 0 and set(given) == {(3, 6, 10)}


@pytest.mark.parametrize("channels", [1, 2, 4, 31])
def test_nearness_of_any_channels(channels):
    a, b = drawn(3, channels, 12, 20), drawn(3, channels, 12, 20)
    for measure in (pairs.l1, pairs.ssim):
        alone = torch.stack([measure(a[:, i : i + 1], b[:, i : i + 1]) for i in range(channels)]).mean(0)
        torch.testing.assert_close(measure(a, b), alone)
    assert pairs.psnr(a, a).isinf().all() and pairs.psnr(a, b).shape == (3,)


def test_channels_of_a_dataset_of_alpha_are_those_of_load():
    rgba = torch.randint(0, 256, (5, 4, 6, 10), dtype=torch.uint8)
    assert torch.equal(viewable(rgba), with_channels(rgba, 3))
