"""Private names of torch that frozen networks use: a torch that changes one fails here, and what runs without it."""

import pytest
import torch
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan import _torch_packed, _torch_private


def test_packed_convolutions_are_there():
    assert _torch_packed.has_packed()


@pytest.mark.parametrize("asked", [_torch_packed.has_packed, _torch_private.has_turned_product])
def test_what_is_there_does_not_depend_on_defaults(asked):
    """It is asked once and kept: a default of the caller's at that moment must not decide it."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert asked.__wrapped__()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("act", ["none", "relu", "tanh", "sigmoid", "swish", "leaky_relu", "hardtanh"])
def test_activations_by_name(act):
    numbers = {"leaky_relu": (0.2,), "hardtanh": (-0.5, 0.25)}.get(act, ())
    x, w = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    form = ((1, 1), (1, 1), (1, 1), 1)
    plain = nn.functional.conv2d(x, w, padding=1)
    functions = {"none": lambda y: y, "swish": nn.functional.silu}
    function = functions.get(act) or getattr(nn.functional, act)
    packed = _torch_packed.pack(w, (0, 0), *form, False, x.shape)
    actual = _torch_packed.convolve(x, packed, None, (0, 0), *form, False, act, numbers)
    assert_close(actual, function(plain, *numbers), 1e-5)
    other = torch.randn_like(plain)
    actual = _torch_packed.convolve_add(x, other, packed, None, *form, False)
    assert_close(actual, plain + other, 1e-5)
    for value in (torch.nan, torch.inf, -torch.inf) if _torch_packed.keeps_nan(act, numbers) else ():
        x[0, 1, 2, 2] = value
        actual = _torch_packed.convolve(x, packed, None, (0, 0), *form, False, act, numbers)
        torch.testing.assert_close(actual, function(nn.functional.conv2d(x, w, padding=1), *numbers), equal_nan=True)


def test_without_them_networks_freeze_too(monkeypatch):
    monkeypatch.setattr(_torch_packed, "has_packed", lambda: False)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = net(x)
        fastgan.accelerate(net, freeze=True)
        for _ in range(3):
            assert_close(net(x), expected, 1e-5)
    assert vars(net)["forward"].refused == ""
