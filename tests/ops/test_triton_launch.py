"""Every Triton kernel compiles in every form its public function can give it: element type x activation x layout x size class.

The launchers run as on a GPU, under a driver that compiles and does not launch (tests/triton_stub.py). By default a part of the
forms for sm_90; -m slow: all of them, and a part for other architectures.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
TESTS = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("triton_launches.py")


def launch(arch: int, first: int, every: int, cache: Path) -> dict:
    """What the worker says of the forms first, first + every, ..."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", "FASTGAN_DISABLE_EXT": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    command = [sys.executable, str(WORKER), *map(str, (arch, first, every))]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def check(result: dict) -> None:
    assert not result["failed"]
    assert min(result["compiled"].values()) > 0


def test_a_part_of_the_forms_compiles(tmp_path):
    check(launch(90, 0, 11, tmp_path))  # coprime to the numbers of types, activations and layouts: each is met


@pytest.mark.slow
def test_every_form_compiles(tmp_path):
    runs = ((90, 0, 2), (90, 1, 2), (80, 3, 13), (100, 5, 13))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda run: launch(*run, tmp_path), runs):
            check(result)
