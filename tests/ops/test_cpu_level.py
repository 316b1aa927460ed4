"""FASTGAN_CPU_LEVEL: which instruction set the CPU kernels run with, and what is said of a name that is none of them."""

import os
import subprocess
import sys

import pytest
from cpu_levels import LEVELS

from fastgan.ops._library import CPU_LEVELS, check_cpu_level

LOAD = "import torch, fastgan.ops; print(torch.ops.fastgan.cpu_level(''))"


def load(**environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LOAD]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.skipif(not LEVELS, reason="no compiled CPU kernels")
def test_a_lower_level_is_taken():
    done = load(FASTGAN_CPU_LEVEL=LEVELS[0])
    assert done.stdout.split() == [LEVELS[0]], done.stderr


@pytest.mark.parametrize("name, kernels", [("avx-512", {}), ("AVX2", {"FASTGAN_DISABLE_EXT": "1"})])
def test_a_mistyped_level_is_refused_at_import(name, kernels):
    done = load(FASTGAN_CPU_LEVEL=name, **kernels)
    assert done.returncode == 1 and not done.stdout
    assert (
        done.stderr.splitlines()[-1]
        == f"ValueError: FASTGAN_CPU_LEVEL={name!r}; expected one of portable, avx2, avx512"
    )


@pytest.mark.parametrize("wanted, best", [("avx512", "avx2"), ("avx512", "portable"), ("avx2", "portable")])
def test_a_level_that_the_machine_cannot_run_is_refused(wanted, best):
    with pytest.raises(ValueError, match=f"FASTGAN_CPU_LEVEL='{wanted}': .* has only portable") as error:
        check_cpu_level(wanted, best)
    assert str(error.value).endswith(best)


def test_a_level_that_it_can_run_is_not():
    for i, best in enumerate(CPU_LEVELS):
        for wanted in CPU_LEVELS[: i + 1]:
            check_cpu_level(wanted, best)
    for wanted in CPU_LEVELS:  # nothing compiled: nothing to choose
        check_cpu_level(wanted, "none")
