"""The Triton kernels without a GPU: the ordinary parity tests with the kernels interpreted on CPU tensors.

Triton decides at import whether it interprets, so these run in processes of their own (TRITON_INTERPRET=1); to run one
of them by hand: TRITON_INTERPRET=1 pytest tests/ops/test_bias_act.py -k triton
"""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastgan.ops.triton as kernels
from fastgan.ops import _library

pytest.importorskip("triton")
HERE = Path(__file__).parent
# Everything but what the interpreter takes long for: it runs programs one by one, at 0.1 s per million elements.
CHOSEN = {
    "test_bias_act.py": "triton and not generated and not sizes and not (gradcheck and None)"
    " or triton and sizes and (16385 or 513 or 1-)",
    "test_grad_penalty.py": "triton and not generated and not sizes and not gradcheck or triton and sizes and 16385"
    " or triton and gradcheck and shape2",
    "test_gumbel_softmax.py": "triton and not argmax",
    "test_modulate.py": "triton",
    "test_modulated_activation.py": "triton and not (sizes and (2051 or 67-67))",
    "test_triton_norm_act.py": "triton",
    "test_not_finite_pointwise.py": "norm_act or gumbel",
}


@pytest.mark.slow
@pytest.mark.parametrize("file", CHOSEN)
def test_interpreted(file, runs):
    stdout, stderr = runs[file].communicate()
    assert runs[file].returncode == 0, stdout[-4000:] + stderr[-1000:]
    assert " passed" in stdout


@pytest.fixture(scope="module")
def runs():
    """The files' processes, side by side."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k"]
    started = {
        file: subprocess.Popen(
            [*command, chosen, str(HERE / file)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for file, chosen in CHOSEN.items()
    }
    yield started
    for process in started.values():
        process.kill()


def test_nothing_of_triton_is_imported_with_the_package():
    command = "import sys, fastgan.ops; assert not any(m.split('.')[0] == 'triton' for m in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", command], env=environment, check=True)


def test_without_triton_the_package_works_and_says_why():
    command = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
import torch
torch.cuda.is_available = lambda: True
import fastgan.ops
print(fastgan.ops._library.availability("bias_act", "triton").reason)
"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "triton is not installed"


@pytest.mark.skipif(torch.version.cuda is None, reason="a CPU build of torch")
def test_where_triton_does_not_start_the_references_run_and_it_is_said_once():
    """As on a GPU without a C compiler, which Triton's driver needs at its first start."""
    command = """
import warnings
import torch
from triton.runtime import driver
import fastgan.ops
from fastgan.ops import _library

class Driver:
    def get_current_device(self):
        raise RuntimeError("Failed to find C compiler.\\nPlease specify via CC")

driver.set_active(Driver())
torch.cuda.is_available = lambda: True
x, b = torch.randn(2, 3, 4), torch.randn(3)
arguments = (x, b, 1, "lrelu", 0.2, 1.0, -1.0)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        kernels = _library._STATE.python_kernels
        y = kernels["fastgan", "bias_act"]["cuda"](*arguments)
        g = kernels["fastgan", "grad_penalty_backward"]["cuda"](x[:, 0, 0], x, x[:, 0, 0], "r1", 0.0)
assert torch.equal(y, _library._STATE.ops["bias_act"].reference(*arguments))
assert g.shape == x.shape
print([str(one.message) for one in said])
print(_library.availability("bias_act", "triton"))
class OnGpu:
    device = torch.device("cuda")
try:
    _library.select("bias_act", "triton", OnGpu)
except RuntimeError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    why = "Triton does not start (Failed to find C compiler. Please specify via CC); it needs a C compiler and Python's headers"
    said, state, refused = done.stdout.splitlines()
    assert said.count("fastgan: ") == said.count(why) == 1 and "PyTorch's operations" in said
    assert state.startswith("Availability(loaded=False") and why in state
    assert refused.startswith("bias_act: impl='triton' is not available") and why in refused


@pytest.mark.skipif(torch.version.cuda is None, reason="a CPU build of torch")
def test_every_kernel_is_registered_for_cuda():
    for names in kernels.MODULES.values():
        for name in names:
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"fastgan::{name}", "CUDA")


X, V, M = torch.zeros(2, 3, 4, 5), torch.zeros(3), torch.zeros(2, 3)
# Calls that work.
LAUNCHES = {
    "bias_act": (X, V, 1, "lrelu", 0.2, 1.0, -1.0),
    "bias_act_backward": (X, X, V, 1, "swish", 0.2, 1.0, -1.0, True),
    "grad_penalty_backward": (M[:, 0], X, M[:, 0], "r1", 0.0),
    "gumbel_softmax": (X, 1.0, torch.zeros(1, dtype=torch.int64)),
    "modulate": (X, M),
    "modulate_backward": (X, X, M),
    "modulated_activation": (X, M, X[:, :1], V, 0.2, 1.0, -1.0),
    "modulated_activation_backward": (X, X, X, M, V, 0.2, 1.0, -1.0),
    "norm_act": (X, V, V, X, "relu", 0.2, 1e-5),
    "norm_act_backward": (X, X, V, V, M, M, "relu", 0.2, 1e-5),
}
FIRST = {
    "bias_act": 0,
    "grad_penalty_backward": 1,
    "gumbel_softmax": 0,
    "modulate": 0,
    "modulate_backward": 1,
    "modulated_activation": 0,
    "modulated_activation_backward": 2,
    "norm_act": 0,
}  # what the others are compared with


@pytest.fixture(scope="module")
def checked():
    """The ops as the dispatcher calls them, on CPU tensors, but for the launch."""

    def launch(*arguments):
        raise RuntimeError("launched")

    _library.twin("fastgan_checked", tuple(name for names in kernels.MODULES.values() for name in names))
    for module, names in kernels.MODULES.items():
        for name in names:
            _library.implement(name, launch, "CPU", "fastgan_checked", check=kernels._check(module, name))
    return torch.ops.fastgan_checked


@pytest.mark.parametrize(
    ("name", "index"),
    [
        (n, i)
        for n, call in LAUNCHES.items()
        for i, t in enumerate(call)
        if isinstance(t, torch.Tensor) and i != FIRST.get(n)
    ],
)
def test_an_op_called_directly_reads_no_memory_that_is_not_its_tensors(name, index, checked):
    (module,) = [module for module, names in kernels.MODULES.items() if name in names]
    arguments = list(LAUNCHES[name])
    with pytest.raises(RuntimeError, match="launched"):
        getattr(checked, name)(*arguments)
    for change in (lambda t: t[..., :-1], lambda t: t[None]):
        arguments[index] = change(LAUNCHES[name][index])
        with pytest.raises(ValueError, match="a tensor is"):
            getattr(checked, name)(*arguments)
    arguments[index] = LAUNCHES[name][index].to("meta")  # which the dispatcher would take elsewhere
    with pytest.raises(ValueError, match="a tensor is"):
        kernels._check(module, name)(*arguments)


def test_64_bit_offsets_only_when_needed():
    from fastgan.ops.triton.launch import TILE, Tiles

    assert not Tiles.of(1, 2**31 - TILE).wide and Tiles.of(1, 2**31 + 1).wide
    assert not Tiles.of(2**19, 4095).wide and Tiles.of(2**19, 4097).wide
    assert not Tiles.of(2**31 - 2**27, 1).wide and Tiles.of(2**31 + 1, 1).wide
    for rows, columns in ((1, 5 << 31), ((1 << 31) + 5, 3), (7, 1 << 29), (1 << 22, 513), (5, 7)):
        tiles = Tiles.of(rows, columns)
        assert (tiles.row_tiles - 1) * tiles.tile_rows < rows <= tiles.row_tiles * tiles.tile_rows
        assert (tiles.column_tiles - 1) * tiles.tile_columns < columns <= tiles.column_tiles * tiles.tile_columns
        columns_of_programs, *rows_of_programs = tiles.grid
        assert columns_of_programs == tiles.column_tiles < 2**31
        assert tiles.row_tiles <= math.prod(rows_of_programs) < tiles.row_tiles + 65535 >= max(rows_of_programs)


@pytest.mark.parametrize("reads", [1, 2])
def test_norm_act_is_cut_into_tiles_that_hold_it(reads):
    from fastgan.ops.triton.planes import MOST, Plan

    for shape, last in itertools.product(
        ((1, 1, 1), (3, 70, 64), (2, 512, 4096), (1, 3, 2**18), (70000, 2, 4)), (False, True)
    ):
        x = torch.empty(shape, device="meta")
        x = x.mT.contiguous().mT if last else x
        plan = Plan.of(x.shape, x.stride(), x.itemsize, reads)
        assert plan.tile_p * plan.tile_c <= MOST and 1 <= plan.warps <= 16
        assert plan.part % plan.tile_p == 0 and plan.part * plan.parts >= plan.pixels
        blocks, parts = plan.grid
        assert blocks * plan.tile_c >= plan.planes and parts == plan.parts <= (1 if plan.whole else 64)
