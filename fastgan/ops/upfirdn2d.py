"""Upsample, FIR filter and downsample in one pass: insert zeros, pad or crop, filter, keep every down-th sample.

Per axis, with h = f reversed (h = f when flip_filter) and u the padded signal, u[m] = x[(m - p0) / up] where that is a
sample of x and 0 elsewhere:

    y[o] = gain sum_k h[k] u[o down + k],    0 <= o <= (n up + p0 + p1 - taps) / down

The op is linear in x and in f. Its adjoint in x is the op itself with up and down exchanged, the filter turned and the
padding of `_adjoint_padding`; its gradient in f is the correlation `upfirdn2d_filter_backward`, whose own two gradients
are `upfirdn2d` again. So derivatives of any order exist in both.

Traffic: x read once, y written once. Arithmetic with inserted zeros skipped: per output ceil(taps / up) multiply-adds
along x, and along y, for a separable filter; their product for a 2-D one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fastgan._torch_private import transforming
from fastgan.ops import _library
from fastgan.ops._checks import accumulation_dtype, check_floating, check_number, check_rank


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Inserts up - 1 zeros after every sample, pads, filters, and keeps every down-th sample starting with the first.

    Args:
        x: [N, C, H, W]; float16, bfloat16, float32 or float64 (16-bit types are computed in float32; on a GPU's tensor
            cores, with up to 4 taps along either axis, up 2 or down 2 or neither, by taps within 2^-17 of themselves).
        f: filter of `setup_filter`: [taps] (applied along x and along y), [taps_y, taps_x], or None (one tap of 1).
            It is computed with in float32, or float64 for a float64 x.
        up, down: one factor >= 1, or [x, y].
        padding: samples added to the upsampled image: one number, [x, y] or [x_before, x_after, y_before, y_after];
            negative ones crop.
        flip_filter: False convolves (the filter is reversed while it slides), True correlates.
        gain: factor of the result.
        impl: "auto", "reference", "cpp" (CPU) or "cuda".

    Returns: [N, C, H_out, W_out] of the dtype and memory format of x, with
    H_out = floor((H up + before + after - taps) / down) + 1. Differentiable to any order in x and in f. A tap that is not
    finite makes NaN of inserted zeros and padding too, and so, in the gradient by x, of the zeros that its adjoint inserts.
    In 16 bits on a GPU, with up to 4 taps along either axis, what is not finite makes NaN of up to 4 rows and 31 columns around
    the outputs that it is part of; with separable filters of 12 taps and a factor of 2 of up to 31 rows and columns.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: polyphase resampling (Vaidyanathan 1993, ch. 4), in the form of Karras et al. 2019 (StyleGAN2), appendix B.

    Examples:
        >>> f = fastgan.ops.setup_filter([1, 3, 3, 1])
        >>> upfirdn2d(torch.randn(2, 8, 16, 16), f, up=2, padding=[2, 1, 2, 1], gain=4).shape
        torch.Size([2, 8, 32, 32])
    """
    check_floating("upfirdn2d", "x", x)
    check_rank("upfirdn2d", "x", x, 4)
    fx, fy = as_filter("upfirdn2d", "f", f, x)
    up, down = pair("upfirdn2d", "up", up, 1), pair("upfirdn2d", "down", down, 1)
    padding = four_paddings("upfirdn2d", padding)
    taps = _taps(fx, fy)
    for axis, name in enumerate(("width", "height")):
        size = x.shape[3 - axis] * up[axis] + padding[2 * axis] + padding[2 * axis + 1]
        if size < taps[axis]:
            raise ValueError(
                f"upfirdn2d: {name} of x is {size} with up={up} and padding={padding};"
                f" expected at least {taps[axis]}, the taps of f"
            )
    arguments = (x, fx, fy, up, down, padding, bool(flip_filter), check_number("upfirdn2d", "gain", gain))
    return _library.select("upfirdn2d", impl, x)(*arguments)


def as_filter(op: str, name: str, f: torch.Tensor | None, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """f as the kernels take it, in the dtype x is accumulated in: (along x, along y), or (2-D filter, None)."""
    dtype = accumulation_dtype(x.dtype)
    if f is None:
        one = torch.ones(1, dtype=dtype, device=x.device)
        return one, one
    check_floating(op, name, f)
    if f.dim() not in (1, 2) or f.numel() == 0:
        raise ValueError(f"{op}: {name} has shape {tuple(f.shape)}; expected [taps] or [taps_y, taps_x]")
    if f.device != x.device:
        raise ValueError(f"{op}: {name} is on {f.device}; expected {x.device}, the device of x")
    f = f.to(dtype)
    return (f, f) if f.dim() == 1 else (f, None)


def _integers(op: str, name: str, value: int | Sequence[int], lengths: tuple[int, ...]) -> list[int]:
    values = [value] if isinstance(value, int) else value
    if values is value and torch.jit.is_tracing():  # where sizes are tensors, those of filters too
        values = [value] if isinstance(value, torch.Tensor) else value
        values = [int(v) if isinstance(v, torch.Tensor) else v for v in values]
    if isinstance(value, str) or not isinstance(values, Sequence) or any(not isinstance(v, int) for v in values):
        raise TypeError(f"{op}: {name}={value!r}; expected an integer or a sequence of {lengths[-1]} integers")
    if len(values) not in (1, *lengths):
        raise ValueError(f"{op}: {name}={value!r}; expected one number or {' or '.join(map(str, lengths))}")
    return list(values)


def pair(op: str, name: str, value: int | Sequence[int], least: int) -> list[int]:
    """[x, y] from one number or two. TypeError, ValueError unless they are integers >= least."""
    values = _integers(op, name, value, (2,))
    if min(values) < least:
        raise ValueError(f"{op}: {name}={value!r}; expected >= {least}")
    return values * 2 if len(values) == 1 else values


def four_paddings(op: str, value: int | Sequence[int]) -> list[int]:
    """[x_before, x_after, y_before, y_after] from one number, [x, y] or four; TypeError, ValueError otherwise."""
    values = _integers(op, "padding", value, (2, 4))
    if len(values) == 2:
        return [values[0], values[0], values[1], values[1]]
    return values * 4 if len(values) == 1 else values


def _taps(f: torch.Tensor, fy: torch.Tensor | None) -> tuple[int, int]:
    return (f.shape[1], f.shape[0]) if fy is None else (f.shape[0], fy.shape[0])


def _channels_last(x: torch.Tensor) -> bool:
    return x.shape[1] > 1 and x.stride(1) == 1 and x.stride(3) > 1 and not transforming()


def _out_shape(x, taps, up, down, padding):
    h = (x.shape[2] * up[1] + padding[2] + padding[3] - taps[1]) // down[1] + 1
    w = (x.shape[3] * up[0] + padding[0] + padding[1] - taps[0]) // down[0] + 1
    return x.shape[0], x.shape[1], h, w


def _adjoint_padding(shape, out_shape, taps, up, down, padding) -> list[int]:
    result = []
    for axis in range(2):
        before = padding[2 * axis]
        size, out = shape[3 - axis], out_shape[3 - axis]
        result += [taps[axis] - 1 - before, size * up[axis] - out * down[axis] + before - up[axis] + 1]
    return result


def _adjoint(ops, g, f, fy, shape, up, down, padding, flip_filter, gain):
    """The gradient in x, of this shape, of <upfirdn2d(x, f, ...), g>."""
    if 0 in shape[2:]:  # the adjoint's padding would leave less than one filter; the sum keeps the graph
        return g.new_zeros(shape) + 0 * g.sum()
    adjoint_padding = _adjoint_padding(shape, g.shape, _taps(f, fy), up, down, padding)
    return ops.upfirdn2d(g, f, fy, down, up, adjoint_padding, not flip_filter, gain)


def _zero_inserted(x: torch.Tensor, up: Sequence[int], padding: Sequence[int]) -> torch.Tensor:
    n, c, h, w = x.shape
    if up[0] > 1 or up[1] > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up[0] - 1, 0, 0, 0, up[1] - 1]).reshape(n, c, h * up[1], w * up[0])
    # Grow, then crop: the crop may reach beyond x into the padding of the other side.
    if min(padding) < 0 < max(padding):
        x, padding = F.pad(x, [max(p, 0) for p in padding]), [min(p, 0) for p in padding]
    return F.pad(x, padding) if any(padding) else x


def _reference(
    x: torch.Tensor,
    f: torch.Tensor,
    fy: torch.Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip_filter: bool,
    gain: float,
) -> torch.Tensor:
    layout = torch.channels_last if _channels_last(x) else torch.contiguous_format
    shape = _out_shape(x, _taps(f, fy), up, down, padding)
    c = shape[1]
    filters = [f[None, :], fy[:, None]] if fy is not None else [f]
    filters[0] = filters[0] * gain
    if not flip_filter:
        filters = [h.flip([0, 1]) for h in filters]
    if 0 in shape or 0 in x.shape:  # conv2d refuses some of these; the sum keeps the graph
        return x.new_zeros(shape).contiguous(memory_format=layout) + 0 * (x.sum() + sum(h.sum() for h in filters)).to(
            x.dtype
        )
    t = _zero_inserted(x.to(f.dtype), up, padding)
    strides = [(1, down[0]), (down[1], 1)] if fy is not None else [(down[1], down[0])]
    for h, stride in zip(filters, strides, strict=True):
        t = F.conv2d(t, h.expand(c, 1, *h.shape), stride=stride, groups=c)
    return t.to(x.dtype).contiguous(memory_format=layout)


def _fake(x, f, fy, up, down, padding, flip_filter, gain):
    layout = torch.channels_last if _channels_last(x) else torch.contiguous_format
    shape = _out_shape(x, _taps(f, fy), up, down, padding)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _setup(ctx, inputs, output):
    x, f, fy, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain = inputs
    filter_needs_grad = ctx.needs_input_grad[1] or (fy is not None and ctx.needs_input_grad[2])
    ctx.shape = x.shape
    ctx.save_for_backward(x if filter_needs_grad else None, f, fy)


def _backward(ops, ctx, dy):
    x, f, fy = ctx.saved_tensors
    dx = df = dfy = None
    taps = _taps(f, fy)
    if ctx.needs_input_grad[0]:
        dx = _adjoint(ops, dy, f, fy, ctx.shape, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain)
    if x is not None:
        df = ops.upfirdn2d_filter_backward(x, dy, taps, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain)
        if fy is not None:  # of the outer product fy f
            df, dfy = fy @ df, df @ f
    return dx, df, dfy, None, None, None, None, None


def _filter_grad_reference(x, dy, taps, up, down, padding, flip_filter, gain):
    """d<y, dy>/df [taps_y, taps_x]: one sum of products per tap."""
    dtype = accumulation_dtype(x.dtype)
    u, dy = _zero_inserted(x.to(dtype), up, padding), dy.to(dtype)
    h, w = dy.shape[2:]
    sums = [
        (u[:, :, i : i + h * down[1] : down[1], j : j + w * down[0] : down[0]][:, :, :h, :w] * dy).sum()
        for i in range(taps[1])
        for j in range(taps[0])
    ]
    df = torch.stack(sums).reshape(taps[1], taps[0]) * gain
    return df if flip_filter else df.flip([0, 1])


def _setup_filter_grad(ctx, inputs, output):
    x, dy, ctx.taps, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain = inputs
    ctx.save_for_backward(x, dy)


def _filter_grad_backward(ops, ctx, g):
    x, dy = ctx.saved_tensors
    dx = ddy = None
    if ctx.needs_input_grad[0]:
        dx = _adjoint(ops, dy, g, None, x.shape, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain)
    if ctx.needs_input_grad[1]:
        ddy = ops.upfirdn2d(x, g, None, ctx.up, ctx.down, ctx.padding, ctx.flip_filter, ctx.gain)
    return dx, ddy, None, None, None, None, None, None


# f is [taps_y, taps_x] without fy; with fy it is [taps] along x and fy [taps] along y. up, down: [x, y]; padding:
# [x_before, x_after, y_before, y_after]. f and fy have the dtype sums are kept in: float32, or float64 for float64 x.
_library.define(
    "upfirdn2d(Tensor x, Tensor f, Tensor? fy, int[] up, int[] down, int[] padding, bool flip_filter, float gain)"
    " -> Tensor",
    reference=_reference,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "cuda"),
)

# The gradient in f is an op of its own, since its derivatives are upfirdn2d again and not those of its loops.
_library.define(
    "upfirdn2d_filter_backward(Tensor x, Tensor dy, int[] taps, int[] up, int[] down, int[] padding, bool flip_filter,"
    " float gain) -> Tensor",
    reference=_filter_grad_reference,
    fake=lambda x, dy, taps, *_: torch.empty(taps[1], taps[0], dtype=accumulation_dtype(x.dtype), device=x.device),
    setup_context=_setup_filter_grad,
    backward=_filter_grad_backward,
    kernels=("cpp", "cuda"),
)
