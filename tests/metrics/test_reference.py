"""Reference files: mean and covariance by name, and what is none of them."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastgan.metrics.fid import Statistics, frechet_distance
from fastgan.metrics.reference import read_reference


@pytest.fixture
def seen():
    seen = Statistics(4)
    seen.update(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    return seen


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_reference_is_the_statistics_it_was_made_of(seen, tmp_path, suffix, dtype):
    mu, sigma = seen.mean.numpy().astype(dtype), seen.covariance.numpy().astype(dtype)
    path = tmp_path / f"r{suffix}"
    if suffix == ".npz":
        np.savez(path, mu=mu, sigma=sigma, arr_0=np.zeros((2, 8, 8, 3), np.uint8))
    else:
        save_file({"mu": torch.from_numpy(mu), "sigma": torch.from_numpy(sigma)}, path)
    found, said = read_reference(path, 4)
    other = Statistics(4)
    other.update(torch.randn(50, 4, generator=torch.Generator().manual_seed(1)))
    assert frechet_distance(found, other) == pytest.approx(frechet_distance(seen, other), rel=1e-6)
    assert said["reference"] == path.name and len(said["reference_sha256"]) == 64


WRONG = {
    "no sigma": ({"mu": np.zeros(4)}, "sigma is absent"),
    "other features": ({"mu": np.zeros(5), "sigma": np.eye(5)}, r"mu is torch.float64 \[5\], expected floats \[4\]"),
    "integers": ({"mu": np.zeros(4, int), "sigma": np.eye(4)}, "mu is int64"),
    "flat": ({"mu": np.zeros(4), "sigma": np.zeros(16)}, r"sigma is torch.float64 \[16\]"),
    "NaN": ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "NaN or Inf"),
    "lopsided": ({"mu": np.zeros(4), "sigma": np.triu(np.ones((4, 4)))}, "not symmetric"),
    "negative": ({"mu": np.zeros(4), "sigma": -np.eye(4)}, "negative variances"),
    "pickled": ({"mu": np.array([None] * 4), "sigma": np.eye(4)}, "mu"),
    "text": ({"mu": np.array(["a"] * 4), "sigma": np.eye(4)}, "mu is <U1"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_reference_is_refused_by_name(tmp_path, kind):
    arrays, message = WRONG[kind]
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(ValueError, match=rf"r\.npz.*{message}"):
        read_reference(tmp_path / "r.npz", 4)


def test_other_files(tmp_path):
    for name in ("r.pkl", "r.npy"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(ValueError, match=r"expected \.npz or \.safetensors.*numpy\.savez"):
            read_reference(tmp_path / name, 4)
    (tmp_path / "r.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"r\.npz"):
        read_reference(tmp_path / "r.npz", 4)
    with pytest.raises(FileNotFoundError):
        read_reference(tmp_path / "none.npz", 4)
