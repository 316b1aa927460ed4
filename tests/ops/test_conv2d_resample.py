import pytest
import torch
import torch.nn.functional as F
from derivatives import derivatives
from device import seeded
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from fastgan.ops import conv2d_resample, setup_filter, upfirdn2d


def definition(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """The order of the docstring, one step at a time."""
    pads = [padding] * 4 if isinstance(padding, int) else list(padding)
    pads = [pads[0], pads[0], pads[1], pads[1]] if len(pads) == 2 else pads
    for axis in range(2):
        taps = 1 if f is None else f.shape[-1] if axis == 0 else f.shape[0]
        for factor, shift in ((up, up - 1), (down, 1 - down)):
            if factor > 1:
                pads[2 * axis] += (taps + shift) // 2
                pads[2 * axis + 1] += (taps - factor) // 2
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=pads, gain=up**2, flip_filter=flip_filter)
    x = F.conv2d(x, w if flip_weight else w.flip((2, 3)), groups=groups)
    return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)


@pytest.mark.parametrize(("case", "tensors"), golden_cases("conv2d_resample"))
def test_golden(case, tensors):
    inputs = {"x": tensors["x"], "w": tensors["w"]}
    found = derivatives(
        lambda x, w: conv2d_resample(x, w, tensors.get("f"), **case["kwargs"]), inputs, tensors["gy"], tensors["v"], "x"
    )
    for name, value in found.items():
        assert_close(value, tensors[name], 1e-10 if case["filter_gain_exact_in_float32"] else 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_definition(data):
    draw = data.draw
    up, down, groups = (draw(st.integers(1, m)) for m in (3, 3, 2))
    kh, kw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    taps = draw(st.sampled_from([None, 1, 3, 4, 8, 12]))
    f = None if taps is None else setup_filter(torch.arange(1.0, taps + 1), separable=draw(st.booleans()))
    random = seeded(draw(st.integers(0, 99)))
    x = torch.randn(
        draw(st.integers(1, 2)), 2 * groups, draw(st.integers(4, 7)), draw(st.integers(4, 7)), generator=random
    )
    w = torch.randn(3 * groups, 2, kh, kw, generator=random)
    padding = [draw(st.integers(-1, 5)) + (taps or 1) for _ in range(4)]
    flips = dict(flip_weight=draw(st.booleans()), flip_filter=draw(st.booleans()))
    arguments = (None if f is None else f.double(), up, down, padding, groups)
    expected = definition(x.double(), w.double(), *arguments, **flips)
    assert_close(conv2d_resample(x.double(), w.double(), *arguments, **flips), expected)
    assert_close(conv2d_resample(x, w, f, *arguments[1:], **flips), expected, 1e-4)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_filter_has_a_gradient_and_layouts_agree(up, down):
    x, w = torch.randn(2, 4, 5, 7, dtype=torch.float64), torch.randn(3, 4, 3, 3, dtype=torch.float64)
    f = torch.rand(4, dtype=torch.float64, requires_grad=True)
    y = conv2d_resample(x, w, f, up, down, 1)
    assert y.requires_grad == (up + down > 2)
    assert_close(conv2d_resample(x.to(memory_format=torch.channels_last), w, f, up, down, 1), y)
    assert conv2d_resample(x[:0], w, f, up, down, 1).shape == (0, *y.shape[1:])
    compiled = torch.compile(lambda x: conv2d_resample(x, w, f, up, down, 1), fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), y)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=torch.ones(2, 3, 4)), ValueError, "x has shape"),
        (dict(x=torch.ones(1, 2, 4, 4, dtype=torch.int64)), TypeError, "dtype torch.int64"),
        (dict(w=torch.ones(1, 3, 3, 3)), ValueError, "w has shape"),
        (dict(w=torch.ones(1, 2, 3, 3, dtype=torch.float64)), TypeError, "w has dtype"),
        (dict(up=0), ValueError, "up=0"),
        (dict(down=1.5), ValueError, "down=1.5"),
        (dict(groups=3), ValueError, "groups=3"),
        (dict(padding=[1, 2, 3]), ValueError, "padding"),
        (dict(padding=-2), ValueError, "width of x is 0"),
        (dict(f=[1.0, 2.0]), ValueError, "f is list"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = dict(x=torch.ones(1, 2, 4, 4), w=torch.ones(1, 2, 3, 3)) | change
    with pytest.raises(error, match=message):
        conv2d_resample(**arguments)
