"""FIR filters and the three common uses of `upfirdn2d`: filter at the same size, upsample, downsample."""

import math
from collections.abc import Sequence

import torch

from fastgan._torch_private import eager
from fastgan.ops._checks import check_number
from fastgan.ops.upfirdn2d import four_paddings, pair, upfirdn2d

SEPARABLE_FROM = 8  # taps from which a 1-D filter stays 1-D: below, one 2-D pass costs a GPU no more than two 1-D ones


def setup_filter(
    f: torch.Tensor | Sequence[float] | Sequence[Sequence[float]] | float | None,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> torch.Tensor:
    """The FIR filter `f` as `upfirdn2d` takes it.

    Args:
        f: [taps] or [taps_y, taps_x] as a tensor, array or (nested) list; a scalar (one tap); None (one tap of 1).
        device: where the filter lives; default: where a tensor f lives, of numbers torch's default device.
        normalize: divide by the sum, so that a constant image keeps its value.
        flip_filter: reverse every axis.
        gain: factor of the image filtered with it: a 1-D filter, applied twice, is multiplied by sqrt(gain).
        separable: keep a 1-D filter 1-D (True) or make it the outer product with itself (False); by default it stays
            1-D from 8 taps on.

    Returns: float32 filter, [taps] or [taps_y, taps_x]; `f` itself is left as it is.

    Raises: TypeError, ValueError for a filter that is empty, has more than 2 dimensions, or is 2-D with separable=True; for one
        whose sum is 0 to float32's rounding, or not finite, where it is to be normalised and its values are at hand (on the host,
        untraced); for a negative gain of a filter that stays 1-D.
    """
    given = 1.0 if f is None else f
    if device is None and isinstance(given, torch.Tensor):
        device = given.device  # as_tensor alone moves it to torch's default device, where one is set
    try:
        f = torch.as_tensor(given, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"setup_filter: f={f!r}; expected numbers ({error})") from None
    if f.is_complex() or f.dtype == torch.bool:
        raise TypeError(f"setup_filter: f has dtype {f.dtype}; expected real numbers")
    if f.dim() > 2 or f.numel() == 0:
        raise ValueError(f"setup_filter: f has shape {tuple(f.shape)}; expected a scalar, [taps] or [taps_y, taps_x]")
    f = f.to(torch.float32)
    gain = check_number("setup_filter", "gain", gain)
    if f.dim() == 0:
        f = f[None]
    if f.dim() == 2 and separable:
        raise ValueError(f"setup_filter: f has shape {tuple(f.shape)} with separable=True; expected a 1-D filter")
    if f.dim() == 1 and not (f.numel() >= SEPARABLE_FROM if separable is None else separable):
        f = torch.outer(f, f)
    if normalize:
        _check_sum(given)
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.dim())))
    if gain < 0 and f.dim() == 1:
        raise ValueError(
            f"setup_filter: gain={gain} with a 1-D filter, applied twice; expected >= 0, or separable=False"
        )
    return f * gain ** (f.dim() / 2)


def _check_sum(f: torch.Tensor | Sequence | float) -> None:
    """ValueError where the sum of the taps f is not finite, or 0 but for the rounding of float32: 2^-24 of each tap. A tensor of
    another device is not waited for."""
    taps = f.detach() if isinstance(f, torch.Tensor) else torch.as_tensor(f, device="cpu")
    if taps.device.type != "cpu" or not eager():
        return
    total, all_of_them = float(taps.double().sum()), float(taps.double().abs().sum())
    if not (math.isfinite(total) and abs(total) > 2**-24 * all_of_them):
        raise ValueError(
            f"setup_filter: f sums to {total:g}, and divided by that it would not sum to 1; normalize=False keeps such a filter"
        )


def _sizes(f: torch.Tensor | None) -> tuple[int, int]:
    """(taps along x, taps along y)"""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def _resampled(op, x, f, up, down, padding, flip_filter, gain, impl):
    """upfirdn2d with the padding that centres the filter, so that the size is that of x times up / down.

    Per axis: upsampling looks floor((t + up - 1) / 2) samples back, the others floor((t - down + 1) / 2).
    """
    if f is not None and not (isinstance(f, torch.Tensor) and f.dim() in (1, 2)):
        raise TypeError(f"{op}: f is {f if f is None else type(f).__name__}; expected a tensor of 1 or 2 dimensions")
    gain = check_number(op, "gain", gain)
    up, down, padding = pair(op, "up", up, 1), pair(op, "down", down, 1), four_paddings(op, padding)
    for axis, taps in enumerate(_sizes(f)):
        if op == "upsample2d":
            padding[2 * axis] += (taps + up[axis] - 1) // 2
            padding[2 * axis + 1] += (taps - up[axis]) // 2
        else:
            padding[2 * axis] += (taps - down[axis] + 1) // 2
            padding[2 * axis + 1] += (taps - down[axis]) // 2
    return upfirdn2d(x, f, up, down, padding, flip_filter, gain * up[0] * up[1], impl=impl)


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Filters x [N, C, H, W] at its own size; `padding` is on top of what keeps the size. Arguments of `upfirdn2d`."""
    return _resampled("filter2d", x, f, 1, 1, padding, flip_filter, gain, impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Upsamples x [N, C, H, W] to [N, C, H up_y, W up_x] with gain * up_x * up_y, which keeps a constant image's value
    under a normalised filter. `padding` is on top of what keeps the sizes. Arguments of `upfirdn2d`."""
    return _resampled("upsample2d", x, f, up, 1, padding, flip_filter, gain, impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Low-pass filters x [N, C, H, W] and keeps every down-th sample. `padding` is on top of what centres the filter.
    Arguments of `upfirdn2d`."""
    return _resampled("downsample2d", x, f, 1, down, padding, flip_filter, gain, impl)
