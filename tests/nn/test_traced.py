"""torch.jit.trace of every layer, in training and frozen: the graph holds for other numbers and another batch, and its gradients
are the layer's. The tracer's own check traces a second time, without gradients."""

import warnings

import pytest
import torch

from fastgan import nn

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
IMAGES, SOUND, VECTORS = torch.randn(4, 8, 16, 16), torch.randn(2, 4, 256), torch.randn(4, 8)
LAYERS = {
    "BiasAct": (lambda: nn.BiasAct(8), IMAGES),
    "Blur": (nn.Blur, IMAGES),
    "Conv2d": (lambda: nn.Conv2d(8, 4, 3), IMAGES),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 4, 3), IMAGES),
    "Downsample": (nn.Downsample, IMAGES),
    "Upsample": (nn.Upsample, IMAGES),
    "UpFirDn2d": (lambda: nn.UpFirDn2d(TAPS, up=2, padding=2), IMAGES),
    "EqualConv2d": (lambda: nn.EqualConv2d(8, 4, 3), IMAGES),
    "EqualConv2d up": (lambda: nn.EqualConv2d(8, 4, 3, up=2), IMAGES),
    "EqualConv2d down": (lambda: nn.EqualConv2d(8, 4, 3, down=2), IMAGES),
    "EqualLinear": (lambda: nn.EqualLinear(8, 4), VECTORS),
    "FilteredLReLU": (lambda: nn.FilteredLReLU(8, TAPS / 8, TAPS / 8, 2, 2, 3), IMAGES),
    "FilteredLReLU without a bias": (lambda: nn.FilteredLReLU(None, TAPS / 8, TAPS / 8, 2, 2, 3), IMAGES),
    "FusedLeakyReLU": (lambda: nn.FusedLeakyReLU(8), IMAGES),
    "InstanceNormAct2d": (lambda: nn.InstanceNormAct2d(8), IMAGES),
    "MinibatchStdDev": (nn.MinibatchStdDev, IMAGES),
    "ModulatedConv2d": (lambda: nn.ModulatedConv2d(8, 4, 3, 8), IMAGES, VECTORS),
    "ModulatedConv2d up": (lambda: nn.ModulatedConv2d(8, 4, 3, 8, up=2), IMAGES, VECTORS),
    "ModulatedConv2d to RGB": (lambda: nn.ModulatedConv2d(8, 3, 1, 8, demodulate=False), IMAGES, VECTORS),
    "PixelNorm": (nn.PixelNorm, VECTORS),
    "Snake": (lambda: nn.Snake(4), SOUND),
    "SnakeBeta": (lambda: nn.SnakeBeta(4), SOUND),
    "Activation1d": (lambda: nn.Activation1d(nn.Snake(4)), SOUND),
    "UpSample1d": (nn.UpSample1d, SOUND),
    "DownSample1d": (nn.DownSample1d, SOUND),
    "LowPassFilter1d": (nn.LowPassFilter1d, SOUND),
    "WeightNormConv1d": (lambda: nn.WeightNormConv1d(4, 4, 3), SOUND),
    "WeightNormConv2d": (lambda: nn.WeightNormConv2d(8, 4, 3), IMAGES),
    "WeightNormConvTranspose1d": (lambda: nn.WeightNormConvTranspose1d(4, 4, 3), SOUND),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_traced(name, training):
    make, *inputs = LAYERS[name]
    layer = make().train(training).requires_grad_(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the shapes decide, as they do in eager
        traced = torch.jit.trace(layer, tuple(x.clone().requires_grad_(training) for x in inputs))
    assert not any(node.kind() == "prim::PythonOp" for node in traced.graph.nodes())
    for part in (slice(None), slice(0, 4 if name == "MinibatchStdDev" else 2)):  # whose groups are those of its example
        given = [(x[part] * 2).requires_grad_() for x in inputs]
        found, expected = traced(*given), layer(*given)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        wanted = [*given, *(p for p in layer.parameters() if training)]
        weights = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad((y * weights).sum(), wanted, allow_unused=True) for y in (found, expected))
        for ours_, theirs_ in zip(ours, theirs, strict=True):
            torch.testing.assert_close(ours_, theirs_, rtol=1e-4, atol=1e-4)


def test_every_layer_is_here():
    modules = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    others = {"Activation1dStream", "MelSpectrogram"}  # keeps what it heard; a fixed transform, in tests/nn/test_mel.py
    assert modules == {name.split()[0] for name in LAYERS} | others
