"""The Triton kernels as machine code for sm_80, sm_90 and sm_100, compiled here without a GPU: no spills, no local
memory, and 128-bit global loads and stores where the tensors are contiguous and 16-byte aligned."""

import concurrent.futures
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("triton")
ARCHS = (80, 90, 100)
WORKER = Path(__file__).with_name("triton_cases.py")
specification = importlib.util.spec_from_file_location("triton_cases", WORKER)
cases = importlib.util.module_from_spec(specification)
specification.loader.exec_module(cases)


def compiled(arch: int) -> dict[str, tuple[str, str]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, WORKER, str(arch)]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


@functools.cache
def machine_codes() -> dict[int, concurrent.futures.Future]:
    pool = concurrent.futures.ThreadPoolExecutor(2)
    return {arch: pool.submit(compiled, arch) for arch in ARCHS}


@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize("arch", ARCHS)
def test_machine_code(arch, case):
    usage, sass = machine_codes()[arch].result()[case]
    figures = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    assert figures["STACK"] == figures["LOCAL"] == "0" and int(figures["REG"]) <= 128, usage
    assert not re.search(r"\b(LDL|STL)\b", sass)
    for instruction in cases.CASES[case][4]:
        assert instruction in sass, sorted(set(re.findall(r"\b(?:LDG|STG)[.\w]*", sass)))
