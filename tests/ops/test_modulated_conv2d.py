from unittest.mock import Mock, patch

import pytest
import torch
from derivatives import derivatives
from device import DEVICE, kernels
from golden import golden_cases
from tolerances import TOLERANCE, assert_close

from fastgan.ops import _library, conv_forms, modulated_conv2d, no_weight_gradients

GROUPED, SHARED = "reference", "auto"
IMPLS = [GROUPED, SHARED, *kernels("modulated_conv2d_weight")]


def stylegan2(impl, case, tensors):
    options = {k: v for k, v in case["kwargs"].items() if k != "fused_modconv"}
    options |= dict(noise=tensors.get("noise"), resample_filter=tensors.get("resample_filter"))
    return lambda x, weight, styles: modulated_conv2d(x, weight, styles, impl=impl, **options)


def stylegan3(impl, case, tensors):
    options = dict(case["kwargs"])
    if isinstance(options.get("padding"), list):
        options["padding"] = options["padding"][::-1]  # recorded as [y, x]
    gain = tensors.get("input_gain")
    return lambda x, w, s: modulated_conv2d(x, w, s, prenormalize=True, input_gain=gain, impl=impl, **options)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("case", "tensors"), golden_cases("modulated_conv2d"))
def test_golden(case, tensors, impl):
    if case["op"] == "modulated_conv2d_sg2":
        names, f = ("x", "weight", "styles"), stylegan2(impl, case, tensors)
    else:
        names, f = ("x", "w", "s"), stylegan3(impl, case, tensors)
    inputs = {name: tensors[name] for name in names}
    tolerance = 1e-10 if case.get("filter_gain_exact_in_float32", True) else 1e-6
    for name, value in derivatives(f, inputs, tensors["gy"], tensors["v"], "x").items():
        assert_close(value, tensors[name], tolerance)
    style = names[2]
    found = derivatives(f, inputs, tensors["gy"], tensors[f"v_{style}"], style)
    for name in (*names, "gy"):
        assert_close(found[f"ds_{name}"], tensors[f"ds_{style}__{name}"], tolerance)


def by_definition(x, weight, styles, demodulate=True, prenormalize=False, input_gain=None):
    """One sample after the other: its weight is w s, divided by the root of its sum of squares over inputs and taps (Karras
    et al., 2020, eq. 1 and 3); `prenormalize` first divides w by its root mean square per output, s by its own."""
    if prenormalize:
        weight = weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        styles = styles / styles.square().mean().sqrt()
    made = []
    for image, style in zip(x, styles, strict=True):
        w = weight * style[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if input_gain is not None:
            w = w * input_gain[None, :, None, None]
        made.append(torch.nn.functional.conv2d(image[None], w, padding=weight.shape[2] // 2))
    return torch.cat(made)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "options",
    [{}, dict(demodulate=False), dict(prenormalize=True), dict(prenormalize=True, input_gain=0.7)],
    ids=lambda options: "-".join(options) or "plain",
)
@pytest.mark.parametrize(("n", "out", "k", "size"), [(2, 5, 3, 7), (3, 3, 1, 6)])
@pytest.mark.parametrize("by", ["x", "weight", "styles"])
def test_definition(by, n, out, k, size, options, impl):
    inputs = {"x": torch.randn(n, 3, size, size), "weight": torch.randn(out, 3, k, k), "styles": torch.randn(n, 3)}
    inputs = {name: t.double() for name, t in inputs.items()}
    gy, v = torch.randn(n, out, size, size).double(), torch.randn_like(inputs[by])
    gain = {"input_gain": torch.rand(3).double() + 0.5} if "input_gain" in options else {}

    def ours(x, weight, styles):
        return modulated_conv2d(x, weight, styles, padding=k // 2, impl=impl, **options | gain)

    def defined(x, weight, styles):
        return by_definition(x, weight, styles, **options | gain)

    found, expected = (derivatives(f, inputs, gy, v, by) for f in (ours, defined))
    for name, value in expected.items():
        assert_close(found[name], value)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [3, 16])
@pytest.mark.parametrize("recorded", [False, True])
def test_every_form_that_is_chosen_gives_the_same_numbers(recorded, size, k, layout):
    """size 3: more weights than pixels, shared, and turned where they are fewer yet (k = 3); 16: per sample, as a grouped
    convolution or (k = 1) a product."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, size, size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_(recorded)
    weight = torch.randn(12, 8, k, k, dtype=torch.float64, requires_grad=recorded)
    styles = torch.randn(2, 8, dtype=torch.float64, requires_grad=recorded)
    y, expected = (modulated_conv2d(x, weight, styles, padding=k // 2, impl=i) for i in ("auto", "reference"))
    assert_close(y, expected)
    if DEVICE.type == "cpu":  # cuDNN convolves float64 in planes alone
        assert y.is_contiguous(memory_format=layout)
    if recorded:
        inputs = (x, weight, styles)
        with no_weight_gradients():  # must not reach the styles
            found = torch.autograd.grad(y.sin().sum(), styles, retain_graph=True)
        assert_close(found[0], torch.autograd.grad(expected.sin().sum(), styles, retain_graph=True)[0])
        for g, e in zip(torch.autograd.grad(y.sin().sum(), inputs),
                        torch.autograd.grad(expected.sin().sum(), inputs), strict=True):  # fmt: skip
            assert_close(g, e)


@pytest.mark.parametrize(
    ("n", "size", "recorded", "form"),
    [(2, 256, False, "_grouped"), (1, 256, False, "_product"), (2, 16, False, "_product"), (2, 256, True, "_product")],
)
@pytest.mark.skipif(DEVICE.type != "cpu", reason="a rule for the CPU")
def test_few_outputs_of_a_large_batch_are_a_grouped_convolution(n, size, recorded, form):
    x, weight, styles = torch.randn(n, 16, size, size), torch.randn(3, 16, 1, 1), torch.randn(n, 16)
    own = modulated_conv2d.__globals__
    with torch.set_grad_enabled(recorded), patch.dict(own, {form: Mock(wraps=own[form])}):
        found = modulated_conv2d(x, weight, styles.requires_grad_(recorded))
        assert own[form].called
        assert_close(found, modulated_conv2d(x, weight, styles, impl="reference"))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.skipif(DEVICE.type != "cpu" or not conv_forms.is_fast("conv3x3"), reason="no fast conv3x3")
def test_several_samples_share_the_weight_where_conv3x3_computes_it(n):
    x, weight, styles = torch.randn(n, 64, 40, 40), torch.randn(64, 64, 3, 3), torch.randn(n, 64)
    options = dict(padding=1, noise=torch.randn(n, 1, 40, 40))
    own = modulated_conv2d.__globals__
    with torch.no_grad(), patch.dict(own, _shared=Mock(wraps=own["_shared"])):
        found = modulated_conv2d(x, weight, styles, **options)
        assert own["_shared"].called == (n > 1)  # one sample: its weight is a plain convolution's
        assert_close(found, modulated_conv2d(x, weight, styles, impl="reference", **options))


@pytest.mark.parametrize("impl", ["auto", *kernels("modulated_conv2d_squares")])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "shape",
    [(5, 7, 3, 3), (3, 4, 1, 1), (2, 3, 5, 4), (0, 3, 3, 3), (3, 0, 3, 3), (3, 4, 0, 3), (65, 513, 3, 3), (3, 2, 9, 8)],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "unaligned"])
def test_squares(shape, dtype, impl, layout):
    weight = torch.randn(shape).to(dtype)
    if layout == "channels_last":
        weight = weight.contiguous(memory_format=torch.channels_last)
    elif layout == "unaligned":
        weight = torch.cat([weight.new_zeros(1), weight.flatten()])[1:].view(shape)
    q = _library.select("modulated_conv2d_squares", impl, weight)(weight)
    assert q.dtype == (dtype if dtype == torch.float64 else torch.float32)
    assert_close(q, weight.double().square().sum((2, 3)))


def test_squares_has_gradients_of_any_order():
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.ops.fastgan.modulated_conv2d_squares, weight, fast_mode=True)
    assert torch.autograd.gradgradcheck(torch.ops.fastgan.modulated_conv2d_squares, weight, fast_mode=True)
    torch.library.opcheck(torch.ops.fastgan.modulated_conv2d_squares, (weight.float().detach().requires_grad_(),))


def test_a_filter_is_checked_where_nothing_is_resampled():
    x, weight, styles = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 1, 1), torch.randn(1, 2)
    with pytest.raises(ValueError, match=r"resample_filter is list; expected a filter of setup_filter"):
        modulated_conv2d(x, weight, styles, resample_filter=[1.0])
