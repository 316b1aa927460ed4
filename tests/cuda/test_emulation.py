"""The emulation can fail: faults seeded in a throw-away kernel are each caught by the means that is there for them."""

import subprocess
import sys

import pytest
import torch
from cuda_emulation import emulated

NONE, OUT_OF_BOUNDS, NO_BARRIER, GRID_TOO_SMALL, MISALIGNED, APART = range(6)
SOURCE = emulated.HERE / "faulty.cu"
N = 64 * 3 - 5  # a tail in the last block


def reversed_blocks(x):
    return torch.cat([part.flip(0) for part in x.split(64)])


def sanitized(kind, fault, n=N):
    script = f"""
import torch
from cuda_emulation import emulated
emulated.load([emulated.HERE / "faulty.cu"], {kind!r})
torch.ops.fastgan_cuda.faulty_reverse(torch.arange({n}.), {fault})
"""
    environment = emulated.sanitized_environment(kind)
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def reverse():
    emulated.load([SOURCE])
    return torch.ops.fastgan_cuda.faulty_reverse


def test_a_right_kernel_is_right(reverse):
    x = torch.randn(N)
    assert torch.equal(reverse(x, NONE), reversed_blocks(x))


def test_a_missing_barrier_gives_wrong_numbers(reverse):
    x = torch.randn(N)
    assert not torch.equal(reverse(x, NO_BARRIER), reversed_blocks(x))


def test_a_grid_that_is_too_small_leaves_nan(reverse):
    y = reverse(torch.randn(N), GRID_TOO_SMALL)
    assert y[128:].isnan().all() and not y[:128].isnan().any()


def test_an_empty_grid_is_refused(reverse):
    with pytest.raises(RuntimeError, match="reverse: invalid configuration"):
        reverse(torch.randn(64), GRID_TOO_SMALL)


def test_an_access_between_addresses_of_its_size_is_refused(reverse):
    with pytest.raises(RuntimeError, match="reverse: misaligned address"):
        reverse(torch.randn(64), MISALIGNED)
    assert torch.equal(reverse(torch.arange(64.0), NONE), torch.arange(64.0).flip(0))


def test_a_failed_launch_names_its_shape_and_leaves_nothing_behind(reverse):
    with pytest.raises(RuntimeError, match="0 blocks of 64 threads with 256 bytes of shared memory"):
        reverse(torch.randn(64), GRID_TOO_SMALL)
    assert torch.ops.fastgan_cuda.faulty_last_error() == 0
    assert torch.equal(reverse(torch.arange(64.0), NONE), torch.arange(64.0).flip(0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_sanitizers_are_silent_on_a_right_kernel(kind):
    result = sanitized(kind, NONE)
    assert result.returncode == 0, result.stderr
    assert "Sanitizer" not in result.stderr


@pytest.mark.slow
def test_an_index_out_of_bounds_is_found():
    result = sanitized("address", OUT_OF_BOUNDS)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr and "faulty.cu" in result.stderr


@pytest.mark.slow
def test_a_missing_barrier_is_a_race():
    result = sanitized("thread", NO_BARRIER)
    assert result.returncode == 66
    assert "data race" in result.stderr and "faulty.cu" in result.stderr


def test_lanes_that_meet_in_a_bank_are_counted(tmp_path, monkeypatch):
    seen = tmp_path / "launches"
    monkeypatch.setenv("FASTGAN_EMULATED_BANKS", str(seen))
    for fault, conflicts in ((NONE, 1), (APART, 2)):
        seen.write_text("")
        blocks, warps, accesses = 3, 2, 2
        assert sanitized("banks", fault, 64 * blocks).returncode == 0
        _, threads, size, turns, least = map(int, seen.read_text().split())
        assert (threads, size, least) == (64, 256 * conflicts, blocks * warps * accesses) and turns == conflicts * least
