"""A launch past Triton's own look at its arguments passes the same on to the driver, and is Triton's own where it must be.

In a process of its own: the active driver is one per process. A failure after an upgrade of Triton names what changed: read its
`JITFunction.run` and `CudaLauncher`, then fastgan/_triton_private.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
TESTS = Path(__file__).resolve().parents[1]
WORKER = r"""
import json, sys
import torch, triton, triton.language as tl
import triton_stub
from fastgan import _triton_private as private

calls = []
class Recording(triton_stub.Driver):
    def launcher_cls(self, source, metadata):
        return lambda *arguments: calls.append(arguments)

stub = Recording(90)
triton.runtime.driver.set_active(stub)

@triton.jit
def kernel(x, b, y, rows, scale, TILE: tl.constexpr, SQUARE: tl.constexpr):
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    t = tl.load(x + at, mask=at < rows)
    if b is not None:
        t += tl.load(b + at, mask=at < rows)
    tl.store(y + at, t * t if SQUARE else t * scale, mask=at < rows)

x, y = torch.zeros(64), torch.zeros(64)
own = []
inner = kernel.run
kernel.run = lambda *a, **k: own.append(1) or inner(*a, **k)

made = {}

def launch(x=x, b=None, y=y, rows=64, scale=0.5, grid=(4,), **options):
    options = {"SQUARE": False, "TILE": 16, "num_warps": 4} | options
    key = rows, scale, grid, *options.values()
    if key not in made:
        made[key] = private.Launch(kernel, grid, (rows, scale), options)
    made[key](x, b, y)
    arguments = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in calls[-1]]
    return len(own), arguments[:4] + arguments[9:], (arguments[4] == calls[0][4], arguments[5] == calls[0][5])

out = {}
out["first"] = launch()
out["second"] = launch()
out["grid"] = [launch(grid=(2, 3)), launch(grid=(2, 3))]
out["other scale"] = [launch(scale=0.25)[0], launch(scale=0.25)[0]]
out["other rows"] = [launch(rows=1)[0], launch(rows=1)[0]]
out["with b"] = [launch(b=x)[0], launch(b=x)[0]]
out["other type"] = [launch(x=x.double())[0], launch(x=x.double())[0]]
out["other constant"] = [launch(SQUARE=True)[0], launch(SQUARE=True)[0]]
out["other option"] = [launch(num_warps=8)[0], launch(num_warps=8)[0]]
class There(torch.Tensor):  # on device 1, while 0 is the current one
    is_cuda, device = True, 1
    def get_device(self):
        return 1

class On:
    def __init__(self, device):
        self.device = device
    def __enter__(self):
        stub.get_current_device = lambda: self.device
    def __exit__(self, *_):
        del stub.get_current_device

torch.cuda.device = On
stub.get_current_stream = lambda device: 7 * device
there = [launch(x=x.as_subclass(There)) for _ in range(2)]
out["other device"] = [own for own, *_ in there], there[1][1][3], stub.get_current_device()
shifted = torch.zeros(65)[1:]
out["unaligned"] = [launch(x=shifted)[0], launch(x=shifted)[0]]
hook = lambda metadata: None
chain = triton.knobs.runtime.launch_enter_hook
triton.knobs.runtime.launch_enter_hook = hook
out["hooked"] = [launch()[0], launch()[0]]
triton.knobs.runtime.launch_enter_hook = chain
out["unhooked"] = launch()[0]
made.clear()
kernel.run = lambda *a, **k: own.append(1) or (inner(*a, **k), None)[1]
out["nameless"] = [launch()[0], launch()[0]]
json.dump(out, sys.stdout)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("launch")
    (folder / "worker.py").write_text(WORKER)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder / "cache"), "FASTGAN_DISABLE_EXT": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    run = subprocess.run([sys.executable, folder / "worker.py"], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout)


def test_the_second_launch_is_not_tritons_own_and_passes_the_same(seen):
    own, arguments, same = seen["first"]
    assert own == 1
    assert seen["second"] == [1, arguments, [True, True]]  # (function, packed metadata) among them
    assert same == [True, True]
    assert arguments[:4] == [4, 1, 1, 0]
    assert len(arguments) == 4 + 7  # the kernel's own, constants included
    assert arguments[-2:] == [16, False]
    assert (
        seen["grid"] == [[2, [2, 3, 1, 0, *arguments[4:]], [True, True]]] * 2
    )  # of the code that was compiled for the first


@pytest.mark.parametrize("change", ["scale", "rows", "type", "constant", "option"])
def test_another_form_is_compiled_once_and_remembered(seen, change):
    first, second = seen[f"other {change}"]
    assert first == second


def test_absent_tensors_are_part_of_the_form(seen):
    assert seen["with b"][0] == seen["with b"][1] == seen["other rows"][1] + 1


def test_alignment_is_part_of_the_form(seen):
    assert seen["unaligned"][0] == seen["unaligned"][1] == seen["other device"][0][1] + 1


def test_a_launch_is_on_the_device_and_the_stream_of_its_tensors(seen):
    (first, second), stream, after = seen["other device"]
    assert first == second == seen["other option"][1] + 1  # compiled for that device, once
    assert (stream, after) == (7, 0)


def test_what_is_hooked_or_has_other_names_is_tritons_own(seen):
    for case in ("hooked", "nameless"):
        first, second = seen[case]
        assert second == first + 1, case
    assert seen["unhooked"] == seen["hooked"][1]
