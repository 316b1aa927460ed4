"""The functions of a StyleGAN-shaped `torch_utils.ops`, with the signatures its networks call, on `fastgan.ops`.

`impl` ("cuda", "ref") only chose a backend there; both mean fastgan's own choice here. Sizes may be numpy integers, as some
schedules compute them.
"""

from types import SimpleNamespace

import torch

from fastgan import ops
from fastgan.ops._autocast import autocast, autocast_like
from fastgan.ops.bias_act import ACTIVATIONS


def _check_impl(op: str, impl: str) -> None:
    if impl not in ("cuda", "ref"):
        raise ValueError(f"{op}: impl={impl!r}; expected 'cuda' or 'ref'")


def integers(value):
    """Numbers of Python for numbers or arrays of numpy; anything else as it is, for the op to judge."""
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, torch.Tensor) else _each(value)


def _each(value):
    return [integers(v) for v in value] if isinstance(value, list | tuple) else value


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    _check_impl("bias_act", impl)
    return ops.bias_act(x, b, dim, act, alpha, gain, clamp)


def setup_filter(f, device="cpu", normalize=True, flip_filter=False, gain=1, separable=None):
    return ops.setup_filter(f, device, normalize, flip_filter, gain, separable)


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    _check_impl("upfirdn2d", impl)
    return ops.upfirdn2d(x, f, integers(up), integers(down), integers(padding), flip_filter, gain)


def filter2d(x, f, padding=0, flip_filter=False, gain=1, impl="cuda"):
    _check_impl("filter2d", impl)
    return ops.filter2d(x, f, integers(padding), flip_filter, gain)


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    _check_impl("upsample2d", impl)
    return ops.upsample2d(x, f, integers(up), integers(padding), flip_filter, gain)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    _check_impl("downsample2d", impl)
    return ops.downsample2d(x, f, integers(down), integers(padding), flip_filter, gain)


def filtered_lrelu(
    x,
    fu=None,
    fd=None,
    b=None,
    up=1,
    down=1,
    padding=0,
    gain=2**0.5,
    slope=0.2,
    clamp=None,
    flip_filter=False,
    impl="cuda",
):
    _check_impl("filtered_lrelu", impl)
    up, down, padding = integers(up), integers(down), integers(padding)
    return ops.filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter)


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    up, down, padding = integers(up), integers(down), integers(padding)
    x = autocast(x)
    w = autocast_like(w, x)
    return ops.conv2d_resample(x, w, f, up, down, padding, groups, flip_weight, flip_filter)


# What networks read of each activation besides calling it: its default slope and gain.
activation_funcs = {
    name: SimpleNamespace(
        func=lambda x, alpha=0.2, _act=name, **_: ops.bias_act(x, act=_act, alpha=alpha, gain=1),
        def_alpha=0.2 if name == "lrelu" else 0,
        def_gain=row.gain,
    )
    for name, row in ACTIVATIONS.items()
}

CONV2D_GRADFIX = {
    "conv2d": ops.conv2d,
    "conv_transpose2d": ops.conv_transpose2d,
    "no_weight_gradients": ops.no_weight_gradients,
}

# Module -> name -> what replaces it.
MODULES = {
    "bias_act": {"bias_act": bias_act},
    "upfirdn2d": {
        "setup_filter": setup_filter,
        "upfirdn2d": upfirdn2d,
        "filter2d": filter2d,
        "upsample2d": upsample2d,
        "downsample2d": downsample2d,
    },
    "filtered_lrelu": {"filtered_lrelu": filtered_lrelu},
    "conv2d_gradfix": CONV2D_GRADFIX,
    "conv2d_resample": {"conv2d_resample": conv2d_resample},
    "fma": {"fma": ops.fma},
    "grid_sample_gradfix": {"grid_sample": ops.grid_sample},
}

# What a module needs besides where it has to be provided whole. The `enabled` switches have nothing left to switch.
PROVIDED = {
    "bias_act": {"activation_funcs": activation_funcs},
    "conv2d_gradfix": {"enabled": True},
    "grid_sample_gradfix": {"enabled": True},
}
