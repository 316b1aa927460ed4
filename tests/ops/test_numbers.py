"""Arguments that are numbers: tensors of one are taken for one where no gradient is lost by it."""

import functools

import numpy as np
import pytest
import torch

from fastgan import ops

X = torch.linspace(-1, 1, 96).view(1, 2, 6, 8)
TAKERS = {  # op and argument -> its function
    "bias_act alpha": functools.partial(ops.bias_act, X, act="lrelu"),
    "bias_act gain": functools.partial(ops.bias_act, X),
    "bias_act clamp": functools.partial(ops.bias_act, X),
    "norm_act alpha": functools.partial(ops.norm_act, X, act="lrelu"),
    "norm_act eps": functools.partial(ops.norm_act, X),
    "upfirdn2d gain": functools.partial(ops.upfirdn2d, X, None),
    "upsample2d gain": functools.partial(ops.upsample2d, X, None),
    "filtered_lrelu gain": functools.partial(ops.filtered_lrelu, X),
    "filtered_lrelu slope": functools.partial(ops.filtered_lrelu, X),
    "filtered_lrelu clamp": functools.partial(ops.filtered_lrelu, X),
    "grad_penalty target": functools.partial(ops.grad_penalty, X, "wgan-gp"),
    "gumbel_softmax temperature": functools.partial(ops.gumbel_softmax, X, seed=1),
    "modulated_conv2d gain": functools.partial(ops.modulated_conv2d, X, torch.ones(3, 2, 1, 1), torch.ones(1, 2)),
    "modulated_conv2d clamp": functools.partial(ops.modulated_conv2d, X, torch.ones(3, 2, 1, 1), torch.ones(1, 2)),
    "pixel_norm eps": functools.partial(ops.pixel_norm, X),
    "snake eps": functools.partial(ops.snake, X, torch.ones(2)),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_number_whose_gradient_would_be_lost_is_refused(taker):
    name, f = taker.split()[1], TAKERS[taker]
    learned = torch.nn.Parameter(torch.tensor(0.5))
    with pytest.raises(TypeError, match=f"^{taker.split()[0]}: {name} is a tensor that requires a gradient"):
        f(**{name: learned})
    with torch.no_grad():
        found = f(**{name: learned})
    assert torch.equal(found, f(**{name: 0.5})) and torch.equal(found, f(**{name: np.float32(0.5)}))


@pytest.mark.parametrize("several", [torch.ones(2), np.ones(2)], ids=["tensor", "array"])
@pytest.mark.parametrize("taker", TAKERS)
def test_several_numbers_are_refused(taker, several):
    op, name = taker.split()
    with pytest.raises(TypeError, match=rf"^{op}: {name}=.*expected"):
        TAKERS[taker](**{name: several})
