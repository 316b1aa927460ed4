"""Convolution with up- and downsampling around it, done at the lowest resolution that gives the same numbers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fastgan.ops._autocast import autocast_like, outside_autocast
from fastgan.ops._checks import check_floating, check_like, check_rank
from fastgan.ops.conv2d import conv2d, conv_transpose2d
from fastgan.ops.upfirdn2d import four_paddings, upfirdn2d


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Pads, upsamples by `up` with f (gain up^2), convolves with w, low-passes with f and downsamples by `down`.

    Filtering and convolving commute once the padding is done, so the convolution runs as a transposed one on the small image
    (up > 1), as a strided one (down > 1), or, for a 1x1 kernel, at the lower of the two resolutions.

    Args:
        x: [N, C, H, W]; float16, bfloat16, float32 or float64.
        w: [O, C / groups, kh, kw] of the dtype of x.
        f: filter of `setup_filter`, or None (one tap of 1); without resampling it is not used.
        up, down: factors >= 1, the same for both axes.
        padding: on the upsampled image: one number, [x, y] or [x_before, x_after, y_before, y_after]; negative ones crop.
            What keeps the filters centred is added to it: with t taps, (t + up - 1) // 2 before and (t - up) // 2 after
            for up > 1; (t - down + 1) // 2 and (t - down) // 2 for down > 1.
        flip_weight: True correlates (what torch calls a convolution), False reverses the kernel.
        flip_filter: as in `upfirdn2d`.

    Returns: [N, O, H', W'] of the dtype of x, differentiable to any order in x, w and f.
    Raises: TypeError, ValueError for wrong arguments.
    Source: Karras et al. 2019 (StyleGAN2), appendix B.
    """
    op = "conv2d_resample"
    check_floating(op, "x", x)
    check_rank(op, "x", x, 4)
    check_floating(op, "w", w)
    check_rank(op, "w", w, 4)
    w = autocast_like(w, x)
    check_like(op, "w", w, x)
    for name, value in (("up", up), ("down", down), ("groups", groups)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{op}: {name}={value!r}; expected an integer >= 1")
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(
            f"{op}: w has shape {tuple(w.shape)} with groups={groups}; expected one for the {x.shape[1]} channels of x"
        )
    check_filter(op, "f", f)
    pads = _centred(four_paddings(op, padding), f, up, down)
    kernel = (w.shape[3], w.shape[2])
    for axis, name in enumerate(("width", "height")):
        size = x.shape[3 - axis] * up + pads[2 * axis] + pads[2 * axis + 1]
        if size < kernel[axis]:
            raise ValueError(
                f"{op}: {name} of x is {size} with up={up} and padding={padding}; expected at least {kernel[axis]}"
            )
    return _resampled(x, w, f, up, down, pads, groups, flip_weight, flip_filter)


def check_filter(op: str, name: str, f: torch.Tensor | None) -> None:
    """ValueError for what is no filter, also where nothing is resampled by it."""
    if f is not None and (not isinstance(f, torch.Tensor) or f.dim() not in (1, 2)):
        got = tuple(f.shape) if isinstance(f, torch.Tensor) else type(f).__name__
        raise ValueError(
            f"{op}: {name} is {got}; expected a filter of setup_filter: [taps] or [taps_y, taps_x], or None"
        )


@outside_autocast
def _resampled(x, w, f, up, down, pads, groups, flip_weight, flip_filter):
    kernel, filtering = (w.shape[3], w.shape[2]), dict(flip_filter=flip_filter)
    if up == 1 and down == 1:
        return _padded_convolution(x, w, pads, groups, flip_weight)
    if kernel == (1, 1) and up == 1:
        x = upfirdn2d(x, f, down=down, padding=pads, **filtering)
        return _padded_convolution(x, w, [0] * 4, groups, flip_weight)
    if kernel == (1, 1) and down == 1:
        x = _padded_convolution(x, w, [0] * 4, groups, flip_weight)
        return upfirdn2d(x, f, up=up, padding=pads, gain=up**2, **filtering)
    if up == 1:
        x = upfirdn2d(x, f, padding=pads, **filtering)
        return _padded_convolution(x, w, [0] * 4, groups, flip_weight, stride=down)
    x = _upsampling_convolution(x, w, f, up, pads, groups, flip_weight, flip_filter)
    return x if down == 1 else upfirdn2d(x, f, down=down, **filtering)


def _centred(padding: list[int], f: torch.Tensor | None, up: int, down: int) -> list[int]:
    taps = (1, 1) if f is None else (f.shape[-1], f.shape[0])
    pads = list(padding)
    for axis, t in enumerate(taps):
        if up > 1:
            pads[2 * axis] += (t + up - 1) // 2
            pads[2 * axis + 1] += (t - up) // 2
        if down > 1:
            pads[2 * axis] += (t - down + 1) // 2
            pads[2 * axis + 1] += (t - down) // 2
    return pads


def _padded_convolution(x, w, pads, groups, flip_weight, stride=1):
    if not flip_weight and w.shape[2:] != (1, 1):
        w = w.flip((2, 3))
    px0, px1, py0, py1 = pads
    if px0 == px1 >= 0 and py0 == py1 >= 0:
        return conv2d(x, w, stride=stride, padding=(py0, px0), groups=groups)
    return conv2d(F.pad(x, pads), w, stride=stride, groups=groups)


def _upsampling_convolution(x, w, f, up, pads, groups, flip_weight, flip_filter):
    """Of a kernel of k taps, the full transposed convolution c has (n - 1) up + k samples, and the convolution u of the
    padded image is u[j] = c[j + k - 1 - p0] with n up + p0 + p1 - k + 1 samples: c padded by p0 - k + 1 before and by
    p1 + up - k after (mostly negative: what can be cropped on both sides, the transposed convolution does not compute).
    """
    out, per_group, kh, kw = w.shape
    w = w.reshape(groups, out // groups, per_group, kh, kw).transpose(1, 2)
    w = w.reshape(groups * per_group, out // groups, kh, kw)
    if flip_weight:  # a transposed convolution spreads the kernel: it convolves where conv2d correlates
        w = w.flip((2, 3))
    px0, px1, py0, py1 = pads
    before_x, after_x, before_y, after_y = px0 - kw + 1, px1 + up - kw, py0 - kh + 1, py1 + up - kh
    crop_x, crop_y = max(0, min(-before_x, -after_x)), max(0, min(-before_y, -after_y))
    x = conv_transpose2d(x, w, stride=up, padding=(crop_y, crop_x), groups=groups)
    rest = [before_x + crop_x, after_x + crop_x, before_y + crop_y, after_y + crop_y]
    return upfirdn2d(x, f, padding=rest, gain=up**2, flip_filter=flip_filter)
