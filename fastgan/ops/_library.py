"""The one `torch.library.Library` of fastgan: schemas, references, fakes, autograd of every op; the compiled kernels.

An op is defined once, in Python, by `define`. Its reference is registered under CompositeExplicitAutograd, so the op
exists on every device; a compiled or Triton kernel registers for its own dispatch key and then wins by dispatch. The same
definition makes the thinner route that a plain eager call takes (_eager.py).
"""

import contextlib
import functools
import importlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastgan._torch_private import eager, has_kernel, transforming
from fastgan.ops._autocast import outside_autocast
from fastgan.ops._eager import eager_call

NAMESPACE = "fastgan"
CPU_LEVELS = ("portable", "avx2", "avx512")  # instruction sets of the CPU kernels, the weakest first: csrc/cpu/level.h
NOT_COMPILED = "not compiled at installation"
_DISPATCH_KEY = {"cpp": "CPU", "cuda": "CUDA", "triton": "CUDA"}


class Availability(NamedTuple):
    """Whether one implementation of an op can run here, and where it comes from or why it cannot."""

    loaded: bool
    reason: str

    def __bool__(self) -> bool:
        return self.loaded


@dataclass(frozen=True)
class Op:
    """One dispatcher op: what `define` was told about it."""

    name: str
    schema: str
    reference: Callable
    fake: Callable
    setup_context: Callable | None
    backward: Callable | None
    kernels: tuple[str, ...]


@dataclass
class _State:
    ops: dict[str, Op] = field(default_factory=dict)
    libraries: dict[str, torch.library.Library] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    probes: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    # per namespace and op: the function of a plain eager call, and the Python kernels it may call by type of device
    calls: dict[str, dict[str, Callable]] = field(default_factory=dict)
    python_kernels: dict[tuple[str, str], dict[str, Callable]] = field(default_factory=dict)
    found: set[tuple[str, str, str]] = field(default_factory=set)  # namespace, op, key of kernels that are there
    # eager calls, by what was asked for
    chosen: dict[tuple[str, str, torch.device], Callable] = field(default_factory=dict)
    as_torch: bool = False


_STATE = _State()
_STATE.libraries[NAMESPACE] = torch.library.Library(NAMESPACE, "DEF")
for _schema in (  # of the compiled libraries alone: what they are, and n-grams (fastgan/metrics/ngram.py)
    "cpu_level(str level) -> str",
    "compiler() -> str",
    "cuda_archs() -> str",
    "ngram_matches(Tensor tokens, Tensor offsets, int first, int max_n, int threads) -> Tensor",
    "ngram_distinct(Tensor tokens, Tensor offsets, int max_n, int threads) -> Tensor",
):
    _STATE.libraries[NAMESPACE].define(_schema)


class _Ops:
    """The ops of a namespace, as the formula of a gradient calls them."""

    def __init__(self, namespace: str) -> None:
        self._registered, self._calls = getattr(torch.ops, namespace), _STATE.calls.setdefault(namespace, {})

    def __getattr__(self, name: str) -> Callable:
        if eager():
            return self._calls[name]
        return _STATE.ops[name].reference if transforming() else getattr(self._registered, name)


def define(
    schema: str,
    *,
    reference: Callable,
    fake: Callable,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
    kernels: tuple[str, ...] = (),
) -> None:
    """Defines op `schema` ("name(Tensor x, ...) -> Tensor") from torch operations.

    reference: the definition of correct, called with the schema's arguments.
    fake: shapes, dtypes and strides of the result, for torch.compile.
    setup_context(ctx, inputs, output): saves what the gradient needs.
    backward(ops, ctx, *grads): the gradient, written with `ops` (the namespace of the op that ran), so that the same
        formula serves the compiled, the emulated and the interpreted kernels.
    kernels: which of "cpp", "cuda", "triton" exist for it.
    """
    op = Op(schema.split("(")[0], schema, outside_autocast(reference), fake, setup_context, backward, kernels)
    _STATE.ops[op.name] = op
    _install(NAMESPACE, op)
    library = _STATE.libraries[NAMESPACE]
    library.impl(op.name, op.reference, "CompositeExplicitAutograd")
    if "cpp" in kernels:  # csrc/cpu/reference.h calls it where numbers are not finite
        library.define(schema.replace("(", "_reference(", 1))
        library.impl(f"{op.name}_reference", op.reference, "CompositeExplicitAutograd")


def _install(namespace: str, op: Op) -> None:
    library = _STATE.libraries[namespace]
    library.define(op.schema)
    qualified = f"{namespace}::{op.name}"
    torch.library.register_fake(qualified, op.fake, lib=library)
    backward = None
    if op.backward is not None:
        backward = outside_autocast(functools.partial(op.backward, _Ops(namespace)))
        torch.library.register_autograd(qualified, backward, setup_context=op.setup_context, lib=library)
    kernels = _STATE.python_kernels[namespace, op.name] = {}
    registered = getattr(getattr(torch.ops, namespace), op.name).default
    _STATE.calls.setdefault(namespace, {})[op.name] = eager_call(registered, kernels, op.setup_context, backward)


def implement(
    name: str, kernel: Callable, key: str, namespace: str = NAMESPACE, *, check: Callable | None = None
) -> None:
    """Registers a Python kernel (a Triton launcher) of op `name` for dispatch key `key`.

    check: raises for arguments that the kernel must not see. The dispatcher's calls go through it; those of public functions
    and of autograd, which have seen to theirs, do not.
    """

    def checked(*arguments):
        check(*arguments)
        return kernel(*arguments)

    _STATE.libraries[namespace].impl(name, checked if check else kernel, key)
    _STATE.python_kernels[namespace, name][key.lower()] = kernel


def twin(namespace: str, names: tuple[str, ...]) -> None:
    """The ops `names` again in another namespace, without their references: the home of GPU kernels that run on CPU
    tensors (CUDA emulated, Triton interpreted): a missing kernel is an error there, never the reference in disguise.
    """
    if namespace in _STATE.libraries:
        return
    _STATE.libraries[namespace] = torch.library.Library(namespace, "DEF")
    for name in names:
        _install(namespace, _STATE.ops[name])


def _has_kernel(namespace: str, name: str, key: str) -> bool:
    if (namespace, name, key) in _STATE.found:
        return True
    if not hasattr(getattr(torch.ops, namespace), name) or not has_kernel(f"{namespace}::{name}", key):
        return False
    _STATE.found.add((namespace, name, key))
    return True


def availability(name: str, impl: str) -> Availability:
    """Whether implementation `impl` of op `name` can run in this process, and why not."""
    if impl == "reference":
        return Availability(True, "PyTorch operations")
    if impl not in _STATE.ops[name].kernels:
        return Availability(False, "this op has no such kernel")
    if _has_kernel(NAMESPACE, name, _DISPATCH_KEY[impl]):
        if impl == "cpp":
            return Availability(True, f"compiled, {torch.ops.fastgan.cpu_level('')}")
        if torch.cuda.is_available():
            why = _why_not(impl)
            return Availability(why is None, why or torch.cuda.get_device_name())
    stand_in = f"{NAMESPACE}_{impl}"
    if stand_in in _STATE.libraries and _has_kernel(stand_in, name, "CPU"):
        return Availability(True, "on CPU tensors: " + ("interpreted" if impl == "triton" else "emulated"))
    if impl == "cpp":
        return Availability(False, _STATE.failures.get("_C", "not compiled"))
    if not torch.cuda.is_available():
        return Availability(False, "no CUDA device")
    return Availability(False, _STATE.failures.get("triton" if impl == "triton" else "_C_cuda", "not compiled"))


def available() -> dict[str, dict[str, Availability]]:
    """Per op, each implementation, whether it is loaded and, if not, why: `available()["bias_act"]["cpp"].reason`."""
    return {
        name: {impl: availability(name, impl) for impl in ("reference", *op.kernels)}
        for name, op in _STATE.ops.items()
        if not name.endswith("_backward")
    }


def decompositions() -> dict[torch._ops.OpOverload, Callable]:
    """Every fastgan op in PyTorch operations, as `ExportedProgram.run_decompositions` takes it: what a runtime without
    fastgan needs. `torch.onnx.export(network, (z,))` needs nothing of this; a program that was exported before does.

        program = torch.export.export(network, (z,)).run_decompositions(fastgan.ops.decompositions())
        torch.onnx.export(program).save("network.onnx")
    """
    return {getattr(torch.ops.fastgan, name).default: op.reference for name, op in _STATE.ops.items()}


@contextlib.contextmanager
def as_torch() -> Iterator[None]:
    """Graphs that are traced within hold every op as PyTorch's operations: what `torch.export.export` needs for a runtime without
    fastgan, in one pass where `decompositions` needs a second."""
    before, _STATE.as_torch = _STATE.as_torch, True
    try:
        yield
    finally:
        _STATE.as_torch = before


def select(name: str, impl: str, x: torch.Tensor) -> Any:
    """What computes op `name` by `impl` for tensors on the device of x: the op, or its reference.

    Raises ValueError for an unknown `impl`, RuntimeError for one that is not available here; both name those that are.
    """
    plain = eager()
    if plain:
        if impl == "auto":
            return _STATE.calls[NAMESPACE][name]
        if call := _STATE.chosen.get((name, impl, x.device)):
            return call
    kernels = _STATE.ops[name].kernels
    if impl not in ("auto", "reference", *kernels):
        raise ValueError(f"{name}: impl={impl!r} is unknown; expected one of {('auto', 'reference', *kernels)}")
    if impl == "reference" or transforming():
        return _STATE.ops[name].reference
    if impl == "auto":
        # torch.onnx.export knows torch's operations alone.
        as_torch = _STATE.as_torch or torch.onnx.is_in_onnx_export()
        return _STATE.ops[name].reference if as_torch else getattr(torch.ops.fastgan, name)
    key = x.device.type.upper()
    namespace = NAMESPACE if key == _DISPATCH_KEY[impl] else f"{NAMESPACE}_{impl}"
    there = namespace in _STATE.libraries and key in ("CPU", "CUDA") and _has_kernel(namespace, name, key)
    if there and (namespace != NAMESPACE or _why_not(impl) is None):
        if plain:  # nothing looks on: the thin route
            return _STATE.chosen.setdefault((name, impl, x.device), _STATE.calls[namespace][name])
        return getattr(getattr(torch.ops, namespace), name)
    usable = ["auto", "reference", *(k for k in kernels if availability(name, k))]
    why = availability(name, impl).reason if not availability(name, impl) else f"the tensor is on {x.device}"
    raise RuntimeError(f"{name}: impl={impl!r} is not available ({why}); available here: {usable}")


def failure(library: str) -> str | None:
    """Why the compiled library `library` ("_C", "_C_cuda") is not loaded; None where it is."""
    return _STATE.failures.get(library)


def probe(impl: str, why_not: Callable[[], str | None]) -> None:
    """Makes `why_not()`, asked at the first call of `impl`, the reason that none of its kernels can run here; None: they can."""
    _STATE.probes[impl] = why_not


def _why_not(impl: str) -> str | None:
    return _STATE.probes[impl]() if impl in _STATE.probes else None


def reference(name: str) -> Callable:
    """Op `name` in PyTorch's operations."""
    return _STATE.ops[name].reference


def record_failure(library: str, why: str) -> None:
    """Makes `why` the reason that `available()` gives for the kernels of `library`."""
    _STATE.failures[library] = why


def load_kernels() -> None:
    """Loads the compiled libraries; a missing or broken one is recorded, and its ops keep their references."""
    _load("_C")
    if not _has_kernel(NAMESPACE, "cpu_level", "CompositeExplicitAutograd"):
        _STATE.libraries[NAMESPACE].impl("cpu_level", lambda level: "none", "CompositeExplicitAutograd")
    if wanted := os.environ.get("FASTGAN_CPU_LEVEL"):
        check_cpu_level(wanted, torch.ops.fastgan.cpu_level(""))
        if not failure("_C"):
            torch.ops.fastgan.cpu_level(wanted)
    if torch.version.cuda is None:
        _STATE.failures["_C_cuda"] = f"torch {torch.__version__} is a CPU build"
    else:
        _load("_C_cuda")


def check_cpu_level(wanted: str, best: str) -> None:
    """ValueError unless FASTGAN_CPU_LEVEL=wanted names a level, one that a machine whose best is `best` ("none": there are
    no compiled kernels) can run."""
    if wanted not in CPU_LEVELS:
        raise ValueError(f"FASTGAN_CPU_LEVEL={wanted!r}; expected one of {', '.join(CPU_LEVELS)}")
    if best != "none" and wanted not in (here := CPU_LEVELS[: CPU_LEVELS.index(best) + 1]):
        raise ValueError(f"FASTGAN_CPU_LEVEL={wanted!r}: this machine, or this build, has only {', '.join(here)}")


def _load(library: str) -> None:
    if os.environ.get("FASTGAN_DISABLE_EXT") == "1":
        _STATE.failures[library] = "FASTGAN_DISABLE_EXT=1"
        return
    try:
        importlib.import_module(f"fastgan.{library}")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError)
        _STATE.failures[library] = _why_absent(library) if absent else str(error)


def _why_absent(library: str) -> str:
    """With the reason that setup.py left in fastgan/_build.json."""
    try:
        why = json.loads((Path(__file__).parents[1] / "_build.json").read_text(encoding="utf-8"))[library]
    except (OSError, ValueError, KeyError, TypeError):
        why = ""
    return NOT_COMPILED + (f": {why}" if why else "")
