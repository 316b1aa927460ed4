"""Gumbel-softmax (Jang et al., 2017; Maddison et al., 2017): y = softmax((logits + g) / temperature), g = -log(-log
u).

The uniform numbers are a function of (seed, row, column), so no noise is stored, and every implementation, device and
thread count draws the same: u = (k + 1/2) 2^-23, k the upper 23 bits of Philox4x32-10 (Salmon et al., 2011) with key
`seed` and counter (column // 4, row, 0, 0), word column % 4.

Bytes moved per element of float32: 8 forward (logits in, y out; the row stays in cache between the passes) and 12
backward. The backward is torch's softmax backward, which is bandwidth-bound already and differentiable to any order:
no kernel.
"""

import torch
from torch import Tensor

from fastgan._torch_private import softmax_backward
from fastgan.ops import _library
from fastgan.ops._checks import accumulation_dtype, check_floating, check_integer, check_number

_LOW = 0xFFFFFFFF


def gumbel_softmax(
    logits: Tensor, temperature: float = 1.0, *, seed: int | Tensor | None = None, impl: str = "auto"
) -> Tensor:
    """A relaxed draw from softmax(logits) for each row; its argmax is an exact draw at every temperature, but where rounding to
    16 bits makes the two largest equal.

    Args:
        logits: [..., V]; float16, bfloat16, float32 or float64 (16-bit types are computed in float32).
        temperature: above 0; the smaller, the nearer to one-hot.
        seed: 63-bit number that decides the noise, or an int64 tensor [1] on the device of `logits` that holds it (its
            value is not checked: nothing waits for the device). None: drawn by torch.randint on that device, so that each
            replay of a captured CUDA graph draws anew.
        impl: "auto", "reference", "cpp" (CPU) or "triton" (CUDA).

    Returns: [..., V], rows that sum to 1. Differentiable to any order in `logits`, the noise held fixed.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Examples:
        >>> gumbel_softmax(torch.zeros(2, 5), temperature=0.5, seed=0).argmax(-1).shape
        torch.Size([2])
    """
    check_floating("gumbel_softmax", "logits", logits)
    if logits.dim() < 1:
        raise ValueError("gumbel_softmax: logits has no dimensions; expected rank >= 1")
    temperature = check_number("gumbel_softmax", "temperature", temperature)
    if not temperature > 0:
        raise ValueError(f"gumbel_softmax: temperature={temperature}; expected a number above 0")
    seed = _as_tensor(seed, logits.device)
    return _library.select("gumbel_softmax", impl, logits)(logits, temperature, seed)


def _as_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    if seed is None:
        return torch.randint(2**62, (1,), device=device)
    if not isinstance(seed, Tensor):
        check_integer("gumbel_softmax", "seed", seed)
        if not 0 <= seed < 2**63:
            raise ValueError(f"gumbel_softmax: seed={seed}; expected 0 <= seed < 2^63")
        return torch.full((1,), seed, dtype=torch.int64, device=device)
    if seed.dtype != torch.int64 or seed.shape != (1,):
        raise ValueError(
            f"gumbel_softmax: seed is {seed.dtype} {tuple(seed.shape)}; expected a number or an int64 tensor [1]"
        )
    if seed.device != device:
        raise ValueError(f"gumbel_softmax: seed is on {seed.device}; expected {device}, the device of the input")
    return seed


def _uniform(rows: int, columns: int, seed: int | Tensor, device: torch.device) -> Tensor:
    """float64 [rows, columns] in (0, 1), multiples of 2^-24."""
    block = torch.arange(-(-columns // 4), device=device).expand(rows, -1)
    words = [block, torch.arange(rows, device=device)[:, None].expand_as(block) & _LOW]
    words += [torch.zeros_like(block)] * 2
    key = [seed & _LOW, seed >> 32]
    for _ in range(10):
        # int64 keeps the low 64 bits of a product of two 32-bit words; its shift repeats the sign, hence the mask.
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            (second >> 32 & _LOW) ^ words[1] ^ key[0],
            second & _LOW,
            (first >> 32 & _LOW) ^ words[3] ^ key[1],
            first & _LOW,
        ]
        key = [key[0] + 0x9E3779B9 & _LOW, key[1] + 0xBB67AE85 & _LOW]
    drawn = torch.stack(words, dim=2).flatten(1)[:, :columns]
    return ((drawn >> 9).double() + 0.5) * 2.0**-23


def _reference(logits: Tensor, temperature: float, seed: Tensor) -> Tensor:
    columns = logits.shape[-1]
    rows = logits.numel() // max(columns, 1)
    u = _uniform(rows, columns, seed, logits.device).to(accumulation_dtype(logits.dtype)).view(logits.shape)
    noisy = logits.to(u.dtype) - (-u.log()).log()
    return (noisy / temperature).softmax(-1).to(logits.dtype)


def _setup(ctx, inputs, output):
    logits, ctx.temperature, seed = inputs
    narrow = logits.dtype != accumulation_dtype(logits.dtype)
    ctx.save_for_backward(*((logits, seed, None) if narrow else (None, None, output)))


def _backward(ops, ctx, dy):
    logits, seed, y = ctx.saved_tensors
    if y is None:  # 16 bits of y are too few: its gradient is a difference, and that of the gradient one of products
        y = ops.gumbel_softmax(logits.to(accumulation_dtype(dy.dtype)), ctx.temperature, seed)
    dx = softmax_backward(dy.to(y.dtype), y) / ctx.temperature
    return dx.to(dy.dtype), None, None


# The gradient y (dy - sum(y dy)) / temperature is in torch operations of dy and y, so higher orders follow through y.
_library.define(
    "gumbel_softmax(Tensor logits, float temperature, Tensor seed) -> Tensor",
    reference=_reference,
    fake=lambda logits, temperature, seed: torch.empty_like(logits, memory_format=torch.contiguous_format),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "triton"),
)
