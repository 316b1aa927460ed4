"""Convolutions under weight normalisation against recorded numbers and torch's own."""

import copy

import pytest
import torch
from golden import golden_cases
from tolerances import assert_close

from fastgan.nn import weight_norm

KINDS = {"Conv1d": weight_norm.WeightNormConv1d, "Conv2d": weight_norm.WeightNormConv2d}
KINDS["ConvTranspose1d"] = weight_norm.WeightNormConvTranspose1d


@pytest.mark.parametrize(("case", "t"), golden_cases("audio", "weight_norm"))
def test_golden(case, t):
    k = dict(case["kwargs"])
    kind, _ = KINDS[k.pop("module")], k.pop("dim")
    conv = kind(k.pop("in_channels"), k.pop("out_channels"), bias="bias" in t, **k).double()
    conv.load_state_dict({n: t[n] for n in ("weight_g", "weight_v", "bias") if n in t})
    assert_close(conv.weight, t["weight"])
    assert_close(conv(t["conv_x"]), t["conv_y"])
    gv, gg = torch.autograd.grad(conv.weight, (conv.weight_v, conv.weight_g), t["gweight"], create_graph=True)
    assert_close(gv, t["gweight_v"])
    assert_close(gg, t["gweight_g"])
    dv, dg = torch.autograd.grad((gv * t["v"]).sum(), (conv.weight_v, conv.weight_g))
    assert_close(dv, t["ds_weight_v"])
    assert_close(dg, t["ds_weight_g"])


@pytest.mark.parametrize("kind", KINDS)
def test_names_forms_and_copies(kind):
    conv = KINDS[kind](3, 4, 3)
    assert list(conv.state_dict()) == ["bias", "weight_g", "weight_v"]
    torch.nn.init.uniform_(conv.weight_g, 0.5, 2)
    x = torch.randn(2, 3, 9, 5)[..., 0] if kind != "Conv2d" else torch.randn(2, 3, 9, 5)
    expected = conv(x)
    theirs = torch.nn.utils.parametrizations.weight_norm(getattr(torch.nn, kind)(3, 4, 3))
    conv2 = KINDS[kind](3, 4, 3)
    theirs.load_state_dict(conv.state_dict())
    conv2.load_state_dict(theirs.state_dict())
    assert_close(theirs(x), expected)
    assert torch.equal(conv2(x), expected)
    copied = copy.deepcopy(conv)
    copied.fold()
    assert list(copied.state_dict()) == ["bias", "weight"]
    assert_close(copied(x), expected)
    copied.unfold()
    copied(x).sum().backward()
    assert copied.weight_g.grad is not None
    assert_close(copied(x), expected)
