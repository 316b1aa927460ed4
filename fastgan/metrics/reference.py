"""Published statistics of a data set's features, to measure samples against without the data: mean and covariance.

.npz: arrays `mu` [D] and `sigma` [D, D], as `numpy.savez` writes them and the field's reference files hold them; what else is in
the file is passed over. .safetensors: the same two tensors. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastgan.data.archive import read_arrays
from fastgan.metrics.fid import Statistics
from fastgan.metrics.weights import sha256
from fastgan.untrusted import BadFile, read_tensors

_ASYMMETRY = 1e-4  # of the largest entry: a covariance that was saved as float32 has 1e-7


def read_reference(path: str | Path, dim: int) -> tuple[Statistics, dict[str, Any]]:
    """Statistics of the features in file `path`, of an extractor of `dim` features; and what is to be said of it: `reference`,
    its name, and `reference_sha256`.

    Raises FileNotFoundError, and BadFile, a ValueError, for another kind of file, other shapes and what is no covariance.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise BadFile(
            f"{path}: expected .npz or .safetensors with mu [{dim}] and sigma [{dim}, {dim}]; where they are in a pickle, "
            "write them with numpy.savez(FILE, mu=mu, sigma=sigma)"
        )
    digest = sha256(path)
    if path.suffix == ".npz":
        arrays = read_arrays(path, ["mu", "sigma"])
        for name, array in arrays.items():
            if array.dtype.kind != "f":
                raise BadFile(f"{path}: {name} is {array.dtype} {list(array.shape)}, expected floats")
        found = {name: torch.from_numpy(array.astype("f8")) for name, array in arrays.items()}
    else:
        found = read_tensors(path)[0]
    for name, shape in {"mu": [dim], "sigma": [dim, dim]}.items():
        if name not in found or not found[name].is_floating_point() or list(found[name].shape) != shape:
            held = f"{found[name].dtype} {list(found[name].shape)}" if name in found else "absent"
            raise BadFile(f"{path}: {name} is {held}, expected floats {shape} for an extractor of {dim} features")
    mu, sigma = found["mu"].double(), found["sigma"].double()
    largest = float(sigma.abs().max())
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise BadFile(f"{path}: mu or sigma holds NaN or Inf")
    if (sigma - sigma.mT).abs().max() > _ASYMMETRY * largest or (sigma.diagonal() < 0).any():
        raise BadFile(f"{path}: sigma is no covariance: it is not symmetric, or has negative variances")
    return Statistics.of_moments(mu, sigma), {"reference": path.name, "reference_sha256": digest}
