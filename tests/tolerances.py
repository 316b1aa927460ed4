"""Tolerances of comparisons with a float64 result, next to their reason.

float64  1e-10  sums of up to 1e4 terms of order 1, 2^-53 each.
float32  2e-5   the same sums, 2^-24 each; the golden models' own bound.
float16  4e-3   one rounding of the result to 11 bits (2^-11 = 4.9e-4) and a few of the inputs.
bfloat16 3e-2   one rounding of the result to 8 bits (2^-8 = 3.9e-3) and a few of the inputs.
"""

import torch

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> None:
    """Fails unless max|actual - expected| <= tolerance * max(1, max|expected|); shapes equal, NaN never close."""
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if not expected.numel():
        return
    tolerance = TOLERANCE[actual.dtype] if tolerance is None else tolerance
    difference = (actual.detach().double() - expected.detach().double()).abs().max().item()
    limit = tolerance * max(1.0, expected.detach().double().abs().max().item())
    assert difference <= limit, f"max difference {difference:.3e}, expected at most {limit:.3e}"
