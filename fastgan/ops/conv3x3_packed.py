"""3x3 convolutions of stride 1 on the CPU with weights that stay, for networks that are served (fastgan/patch/frozen).

By Winograd's F(4x4, 3x3): a quarter of a plain convolution's products. No gradients.
"""

from __future__ import annotations

import torch

from fastgan.ops import _library

PANEL = 16  # outputs that lie side by side in a packed weight
_A, _B = 0.6, 1.6


def _matrix() -> torch.Tensor:
    """G of w -> G w G^T for the points 0, +-a, +-b and infinity."""
    rows = [[1 / (_A * _B) ** 2, 0.0, 0.0]]
    for p, q in ((_A, _B), (-_A, _B), (_B, _A), (-_B, _A)):
        n = 2 * p * p * (p * p - q * q)
        rows.append([1 / n, p / n, p * p / n])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def sloped(z: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """z [N, O, H, W], times slope [O] where not above 0. A slope of 0 is ReLU's: 0 at -inf, where the product is NaN."""
    slope = slope[:, None, None]
    return torch.where(z > 0, z, torch.where((z <= 0) & (slope == 0), 0.0, z * slope))


def _pack(weight):
    g = _matrix()
    u = torch.einsum("ra,oiab,sb->rsoi", g, weight.double(), g).flatten(0, 1)
    u = torch.nn.functional.pad(u, (0, 0, 0, -len(weight) % PANEL)).unflatten(1, (-1, PANEL))
    return u.permute(1, 0, 3, 2).float().contiguous()


def _packed(y, x, u, bias, slope, other, padding):
    back = torch.linalg.pinv(_matrix())
    full = u.double().permute(0, 3, 2, 1).flatten(0, 1)[: y.shape[1]].unflatten(2, (6, 6))
    weight = torch.einsum("ar,oirs,bs->oiab", back, full, back).float()
    z = torch.nn.functional.conv2d(x, weight, bias, padding=padding)
    return y.copy_(sloped(z if other is None else z + other, slope))


# weight [O, I, 3, 3] -> [ceil(O / 16), 36, I, 16]
_library.define(
    "conv3x3_pack(Tensor weight) -> Tensor",
    reference=_pack,
    fake=lambda weight: weight.new_empty(-(-weight.shape[0] // PANEL), 36, weight.shape[1], PANEL),
    kernels=("cpp",),
)

# y = act(convolution of x + bias + other); act: `sloped`. A tile of 4x4 outputs that sees a number which is not finite becomes
# NaN, as neighbours are subtracted. y, x and other [N, C, H, W] have the channels of a pixel side by side; they may be channels
# of wider images.
_library.define(
    "conv3x3_packed(Tensor(a!) y, Tensor x, Tensor u, Tensor bias, Tensor slope, Tensor? other, int padding) -> Tensor(a!)",
    reference=_packed,
    fake=lambda y, *_: y,
    kernels=("cpp",),
)
