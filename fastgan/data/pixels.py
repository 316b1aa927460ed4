"""Pixels in arrays: their range for networks, their channels and bits, and what of a picture is shown.

Images are uint8 or uint16 [N, C, H, W]. One channel is grey, two are grey and alpha, three are RGB, four are RGB and alpha; more
are bands that mean nothing here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WHITE = {torch.uint8: 255, torch.uint16: 65535}
# Pixels whose three steps are done in the cache: 64 RGB images of 256 pixels take 0.7 of the time of all at once.
_PART = 2**19


def bits_of(images: torch.Tensor) -> int:
    """8 or 16. TypeError for images of another dtype."""
    if images.dtype not in WHITE:
        raise TypeError(f"images has dtype {images.dtype}, expected torch.uint8 or torch.uint16")
    return 8 * images.element_size()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Pixels, any shape -> float32 in [-1, 1]: ``x / 127.5 - 1`` of uint8, ``x / 32767.5 - 1`` of uint16; a new tensor, exact
    at both ends."""
    if images.dtype not in WHITE:
        raise TypeError(f"to_float: images has dtype {images.dtype}, expected torch.uint8 or torch.uint16")
    out = torch.empty_like(images, dtype=torch.float32)
    parts = [(images, out)]
    if images.device.type == "cpu" and images.is_contiguous() and images.numel() > 2 * _PART:
        parts = zip(images.view(-1).split(_PART), out.view(-1).split(_PART), strict=True)
    for source, target in parts:
        target.copy_(source).div_(WHITE[images.dtype] / 2).sub_(1.0)
    return out


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Floating images in [-1, 1], any shape -> uint8: rounded and clipped; NaN becomes mid-grey.

    Inverts `to_float` exactly: ``to_uint8(to_float(x)) == x`` for all 256 values.
    """
    return _to_integers("to_uint8", images, torch.uint8)


def to_uint16(images: torch.Tensor) -> torch.Tensor:
    """Floating images in [-1, 1], any shape -> uint16, as `to_uint8`: inverts `to_float` for all 65,536 values."""
    return _to_integers("to_uint16", images, torch.uint16)


def _to_integers(name: str, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not images.is_floating_point():
        raise TypeError(f"{name}: images has dtype {images.dtype}, expected a floating type")
    white = WHITE[dtype]
    # Casting NaN to an integer type is undefined in C and differs between machines.
    x = images.detach().to(torch.float32).nan_to_num(0.0).add(1.0).mul_(white / 2).round_().clamp_(0, white)
    return x.to(dtype)


def with_bits(images: torch.Tensor, bits: int) -> torch.Tensor:
    """``images`` in 8 or 16 bits: ``v * 257``, or ``v / 257`` rounded, so that black and white stay what they are."""
    if bits_of(images) == bits:
        return images
    dtype = {8: torch.uint8, 16: torch.uint16}[bits]

    def convert(x: torch.Tensor) -> torch.Tensor:
        return x * 257 if bits == 16 else (x + 128) // 257

    return _in_parts(convert, images, dtype)


def with_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """``images`` [N, C, H, W] with 1, 2, 3 or 4 ``channels``; the same tensor where they have them. Grey to RGB is a view.

    Alpha that is not asked for is composited on white, alpha that is not there is opaque, RGB becomes luma (ITU-R 601).

    Raises ValueError where either number is none of these four.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if not (1 <= have <= 4 and 1 <= channels <= 4):
        raise ValueError(
            f"channels is {channels}, and the images have {have}: only 1 to 4 channels (grey, grey and alpha, RGB, RGBA) "
            "are converted"
        )
    alpha = images[:, -1:] if have in (2, 4) else None
    colour = images if alpha is None else images[:, :-1]
    white = WHITE[images.dtype]
    if alpha is not None and channels in (1, 3):

        def on_white(x: torch.Tensor) -> torch.Tensor:
            colour, alpha = x[:, :-1], x[:, -1:]
            return (colour * alpha + white * (white - alpha) + white // 2) // white

        colour = _in_parts(on_white, images, images.dtype, have - 1)
    if colour.shape[1] == 3 and channels <= 2:
        colour = _in_parts(_luma, colour, images.dtype, 1)
    elif colour.shape[1] == 1 and channels >= 3:
        colour = colour.expand(-1, 3, -1, -1)
    if channels in (1, 3):
        return colour
    return torch.cat([colour, torch.full_like(images[:, :1], white) if alpha is None else alpha], 1)


def viewable(images: torch.Tensor) -> torch.Tensor:
    """What is shown and measured of pixels [N, C, H, W]: [N, 1 or 3, H, W], uint8, or floats in [-1, 1] of such. 16 bits are
    rounded to 8, alpha is composited on white, and of more than four channels three stand for all: first, middle and last."""
    channels = images.shape[1]
    if channels > 4:
        images = images[:, _spread(channels)]
    if not images.is_floating_point():
        images = with_bits(images, 8)
        return with_channels(images, channels - 1) if channels in (2, 4) else images
    if channels in (2, 4):
        alpha = (images[:, -1:] + 1).div(2).clamp(0, 1)
        images = images[:, :-1] * alpha + 1 - alpha
    return images


def unseen(channels: int, bits: int = 8) -> str:
    """What `viewable` does to such images, in words; empty where it changes nothing."""
    first, middle, last = _spread(channels)
    done = f"of {channels} channels those numbered {first}, {middle} and {last} stand for red, green and blue"
    what = {1: "", 2: "alpha is composited on white", 3: "", 4: "alpha is composited on white"}.get(channels, done)
    return ", ".join(filter(None, (what, "16 bits are rounded to 8" if bits == 16 else "")))


def _spread(channels: int) -> list[int]:
    return [0, (channels - 1) // 2, channels - 1]


def _in_parts(
    convert: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    dtype: torch.dtype,
    channels: int | None = None,
) -> torch.Tensor:
    """``convert`` of ``images`` as int64, a few of them at a time, so that a large set does not need eight times its memory."""
    shape = (images.shape[0], channels or images.shape[1], *images.shape[2:])
    out = torch.empty(shape, dtype=dtype, device=images.device)
    few = max(1, (1 << 22) // max(1, images[:1].numel()))
    for source, target in zip(images.split(few), out.split(few), strict=True):
        target.copy_(convert(source.to(torch.int64)))
    return out


def _luma(x: torch.Tensor) -> torch.Tensor:
    """ITU-R 601 in 16-bit fixed point, as Pillow's."""
    r, g, b = x.split(1, 1)
    return (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16
