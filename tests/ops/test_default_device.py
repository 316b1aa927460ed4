"""What an op makes for itself lies where its input lies, whatever the default device is: made elsewhere it would wait for a GPU,
or be captured by no graph. Here the default is `meta`, on which nothing can be read."""

import pytest
import torch

from fastgan import ops

F4 = ops.setup_filter([1, 3, 3, 1])
SEPARABLE = ops.setup_filter([1, 3, 3, 1], separable=True)
X, B, W, S = torch.randn(2, 3, 8, 8), torch.randn(3), torch.randn(4, 3, 3, 3), torch.randn(2, 3)
GRID = torch.rand(2, 8, 8, 2) * 1.6 - 0.8
# Functions of X and of how the op is done.
CASES = {
    **{f"bias_act {act}": lambda x, impl, act=act: ops.bias_act(x, B, act=act, clamp=0.7, impl=impl)
       for act in ("lrelu", "tanh", "swish", "softplus")},
    "upfirdn2d": lambda x, impl: ops.upfirdn2d(x, F4, 2, 1, [2, 1, 2, 1], impl=impl),
    "upfirdn2d separable": lambda x, impl: ops.upfirdn2d(x, SEPARABLE, 1, 2, 1, impl=impl),
    "upfirdn2d without a filter": lambda x, impl: ops.upfirdn2d(x, None, 1, 2, 1, impl=impl),
    "filtered_lrelu": lambda x, impl: ops.filtered_lrelu(x, F4, SEPARABLE, B, 2, 2, 4, clamp=0.7, impl=impl),
    "filtered_lrelu without filters": lambda x, impl: ops.filtered_lrelu(x, clamp=0.7, impl=impl),
    "norm_act": lambda x, impl: ops.norm_act(x, B, B, x, act="swish", impl=impl),
    "grad_penalty": lambda x, impl: ops.grad_penalty(x, "wgan-gp", impl=impl),
    "gumbel_softmax": lambda x, impl: ops.gumbel_softmax(x, 0.7, impl=impl),
    "gumbel_softmax with a seed": lambda x, impl: ops.gumbel_softmax(x, 0.7, seed=5, impl=impl),
    "modulated_conv2d": lambda x, impl: ops.modulated_conv2d(x, W, S, padding=1, impl=impl),
    "modulated_conv2d up": lambda x, impl: ops.modulated_conv2d(x, W, S, up=2, padding=1, resample_filter=F4, impl=impl),
    "conv2d": lambda x, impl: ops.conv2d(x, W, padding=1),
    "conv_transpose2d": lambda x, impl: ops.conv_transpose2d(x, W.transpose(0, 1), stride=2, padding=1),
    "conv2d_resample": lambda x, impl: ops.conv2d_resample(x, W, F4, down=2, padding=1),
    "grid_sample": lambda x, impl: ops.grid_sample(x, GRID),
    "minibatch_stddev": lambda x, impl: ops.minibatch_stddev(x, 2),
    "pixel_norm": lambda x, impl: ops.pixel_norm(x),
    "fma": lambda x, impl: ops.fma(x, x, x),
}  # fmt: skip


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_what_an_op_makes_lies_beside_its_input(name, impl):
    x = X.clone().requires_grad_()
    dy = torch.ones_like(CASES[name](x, impl)).requires_grad_()
    with torch.device("meta"):
        y = CASES[name](x, impl)
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        ddx, ddy = torch.autograd.grad(dx.square().sum(), (x, dy), allow_unused=True)
    assert all(t is None or t.device == X.device for t in (y, dx, ddx, ddy))
