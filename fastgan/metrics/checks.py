"""What metrics ask of the features they are given."""

import torch

LARGEST = 1e50  # sums of squares, and the cube in the kernel distance, of what is smaller are finite in float64


def check_rows(least: int, **sets: torch.Tensor) -> None:
    """ValueError unless all of `sets` are finite [N >= least, D] of one D >= 1: of a NaN every comparison is false, which
    some figures would take for the best there is."""
    shapes = " and ".join(f"{name} {list(x.shape)}" for name, x in sets.items())
    if any(x.ndim != 2 or len(x) < least or not x.shape[1] for x in sets.values()):
        raise ValueError(f"{shapes}: expected [N > {least - 1}, D]")
    if len({x.shape[1] for x in sets.values()}) > 1:
        raise ValueError(f"{shapes}: expected [N, D] of one D")
    for name, x in sets.items():
        if x.is_complex():
            raise TypeError(f"{name} is {x.dtype}, expected real numbers")
        low, high = (float(end) for end in x.aminmax())
        if not (low > -LARGEST and high < LARGEST):
            bad = int((~(x.double().abs() < LARGEST)).any(1).sum())
            raise ValueError(f"{name}: {bad} of {len(x)} rows hold NaN, Inf or numbers beyond {LARGEST:.0e}")
