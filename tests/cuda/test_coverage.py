"""Every kernel is executed where it is said to be: some case that `.ci/gpu` gives to a GPU's checkers launches it, and some case
that runs under sanitizers here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation import emulated

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")
# As on a GPU: "auto" takes the CUDA kernels, emulated, and the Triton kernels, of which the stub's launch only tells the name.
CHECKED = r"""
import json, sys
import smoke, torch, triton_stub
from cuda_emulation import emulated
import fastgan.ops.triton as kernels
from fastgan.ops import _library

class Recording(triton_stub.Driver):
    def launcher_cls(self, source, metadata):
        launched.add(f"{source.fn.__module__.rsplit('.', 1)[1]}.{source.fn.__name__}")
        return super().launcher_cls(source, metadata)

def select(name, impl, x, select=_library.select):
    found = [k for k in ("cuda", "triton") if k in _library._STATE.ops[name].kernels]
    return select(name, *(found or [impl])[:1], x)

launched = set()
emulated.load()
kernels.register_for_cpu()
triton_stub.driver.set_active(Recording(90))
_library.select = select
smoke.place_filters(torch.device("cpu"))
for name in json.loads(sys.argv[1]):
    function, shapes = smoke.OPS[name]
    dtype = torch.bfloat16 if name in smoke.SHORT else torch.float32
    smoke.planes(function, [torch.randn(shape).to(dtype) for shape in shapes])
print(json.dumps(sorted(launched)))
"""
SANITIZED = """
from cuda_emulation import emulated, sanitize
emulated.load()
for _, run in sanitize.cases():
    run("cuda")
"""


def executed(script: str, log: Path, *arguments: str) -> tuple[dict[int, str], str]:
    """(the emulated kernels that a process of this script launches, what it prints)"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "cuda")))
    environment["FASTGAN_EMULATED_LAUNCHES"] = str(log)
    command = [sys.executable, "-c", script, *arguments]
    printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    names = emulated.kernels_of(emulated.build(emulated.kernels()))
    return {at: names[at] for at in map(int, log.read_text().split())}, printed


def without_forms(kernels: dict[int, str]) -> set[str]:
    return {name.split("<")[0] for name in kernels.values()}


@pytest.fixture(scope="module")
def every_kernel():
    return emulated.kernels_of(emulated.build(emulated.kernels()))


def triton_kernels() -> set[str]:
    sources = (ROOT / "fastgan" / "ops" / "triton").glob("*.py")
    return {
        f"{s.stem}.{name}" for s in sources for name in re.findall(r"@triton.jit\ndef (\w+_kernel)\(", s.read_text())
    }


def test_a_gpus_checkers_see_every_kernel(gpu, every_kernel, tmp_path):
    pytest.importorskip("triton")
    found, printed = executed(CHECKED, tmp_path / "launches", json.dumps(gpu.KERNELS))
    assert without_forms(every_kernel) == without_forms(found)
    assert triton_kernels() == set(json.loads(printed))


def test_its_profiler_counts_all_of_ours_and_none_of_torchs(gpu, every_kernel):
    ours = re.compile(gpu.OURS.removeprefix("regex:"))
    names = {name.split("::")[-1] for name in without_forms(every_kernel)} | {k.split(".")[1] for k in triton_kernels()}
    assert len(names) > 15 and all(ours.match(name) for name in names)
    for name in ("vectorized_elementwise_kernel", "reduce_kernel", "elementwise_kernel", "softmax_warp_forward"):
        assert not ours.match(name)


def test_sanitizers_see_every_kernel(every_kernel, tmp_path):
    assert without_forms(every_kernel) == without_forms(executed(SANITIZED, tmp_path / "launches")[0])
