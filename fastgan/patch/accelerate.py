"""`accelerate`: layers of any network computed by fastgan's kernels, where the result is provably the same."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fastgan._torch_private import hooks, is_compiled, storage_uses
from fastgan.patch import chain, graphed, layers, measure, pairs, source, written_norm
from fastgan.patch.frozen import Frozen
from fastgan.patch.report import MISSING, Assignment, Layout, Line, PatchReport, unpatch
from fastgan.patch.swap import LAID_OUT, Accelerated, Swap, accelerated, original


def accelerate(
    module: nn.Module,
    dry_run: bool = False,
    graphs: bool = False,
    freeze: bool = False,
    example: torch.Tensor | tuple[Any, ...] | None = None,
) -> PatchReport:
    """Computes layers of `module` by fastgan's kernels, in place: instance norm, with the activation and the residual after it;
    depthwise filters that are not learnt; equalised layers; on the CPU convolutions that have a faster form, and the gradients
    of PReLU. Activations write over the layer's result before them where nobody else sees it. Of transposed convolutions in
    evaluation mode the weights are laid out channels last, which is faster on the CPU, though not with gradients (0.86 times
    for 2 images): to train, accelerate in training mode. On a GPU norm, bias and activation are fused under autocast too, and
    weights of convolutions for its matrix units are laid out channels last (not measured there yet).

    Args:
        module: any network. Its state_dict, parameters, submodules and hooks stay the same objects under the same names.
        dry_run: print the plan and change nothing.
        graphs: on a GPU, in evaluation mode and without gradients, replay the whole of `module` as a CUDA graph once inputs of
            a shape were seen twice; what its Python decides by other things than its inputs' shapes is then decided once.
        freeze: on the CPU, in evaluation mode and without gradients, serve `module`: once a kind of input was seen twice, weights
            are packed for oneDNN, norms, activations and sums are folded into the convolutions, and nothing is asked or laid
            out again per call (fastgan.patch.frozen.Frozen; 1.2 to 2 times as fast as eager, twice the memory of the weights).
            What its Python decides by other things than shapes, numbers and strings among its arguments and its modules'
            attributes is then decided once.
        example: a tensor, or a tuple of arguments, as `module` will be called with. Each piece is then timed with the values that
            reach it, without gradients and in training mode with them, against itself as it was, in turn, and kept where it is at
            least 1.02 times as fast beyond chance; the report says how much. In evaluation mode the whole may then run channels
            last for inputs of that shape. In the end the whole is timed, and left as it was unless it is 1.02 times as fast. With
            one thread its own time counts, without what other programs take. Takes some seconds; of large networks at most a
            minute, after which pieces are left as they were, and then the time of a hundred calls. Buffers and random numbers are
            afterwards as before. Without it what pays is decided by size.

    Returns: a report of what is replaced, and of what is not and why. `fastgan.unpatch(report)` takes it all back. A copy
    or an unpickled copy of an accelerated network is accelerated too, but of modules whose class has a `__reduce__`.

    The values are those of the original to rounding, and so are gradients of any order. A layer of torch is replaced by itself,
    whoever calls it; neighbours are joined in a `nn.Sequential`, and in a forward whose source shows that nothing else sees the
    value between them. Whatever a hook looks at stays as it is, also where the hook comes later. Accelerating twice changes
    nothing more. Networks inside `DataParallel` are reached; a part that `torch.compile` or `torch.jit.script` made is left.

    Raises: TypeError unless `module` is a nn.Module in Python (a ScriptModule is not), or for an `example` without a tensor;
    ValueError for `graphs` where it is not all on one CUDA device, and for `freeze` unless it is in evaluation mode and on the
    CPU; what `module` itself raises for `example`.

    Examples:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8), torch.nn.ReLU())
        >>> report = fastgan.accelerate(network)
        >>> fastgan.unpatch(report)
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"accelerate: module is {type(module).__name__}; expected a torch.nn.Module in Python")
    arguments = None if example is None else measure.arguments_of(example)
    device = _graph_device(module) if graphs else None
    if freeze:
        _check_frozen(module)
    report = PatchReport(f"accelerate({type(module).__name__})")
    try:
        pieces = list(_pieces(module, report, arguments is not None, lay_out=not dry_run))
        if arguments is not None:
            pieces = measure.keep_what_pays(module, arguments, pieces, report)
            if not freeze:
                measure.try_channels_last(module, arguments, report)
        for piece in pieces:
            report.replaced += piece.rows
        if arguments is not None:
            measure.keep_if_the_whole_pays(module, arguments, report)
    except BaseException:
        unpatch(report)
        raise
    report.refused += _ways_of_packages(module)
    if freeze:
        _freeze(module, report)
    if device is not None:
        _graph(module, device, report, dry_run)
    if dry_run:
        unpatch(report)
        report.dry_run = True
        print(report)
    return report


@dataclass
class Piece:
    """What is changed for one module, and the rows of the report that say so."""

    module: nn.Module
    name: str
    changes: list[Assignment | Layout | Swap] = field(default_factory=list)
    rows: list[Line] = field(default_factory=list)


def _pieces(module: nn.Module, report: PatchReport, measured: bool, lay_out: bool) -> Iterator[Piece]:
    """The changes of `module`, each done when it is yielded: layers first, then what joins them, from the inside out."""
    names = {m: name for name, m in _reachable(module, "", report)}
    for m, name in names.items():
        if isinstance(m, Accelerated):
            report.refused.append(Line(name or type(m).__name__, "already accelerated"))
    fresh = {m: name for m, name in names.items() if not isinstance(m, Accelerated)}
    for m, name in fresh.items():
        form = layers.form_of(m, measured) or written_norm.form_of(m)
        if isinstance(form, tuple):
            yield _swap(Piece(m, name), accelerated(form[0], type(m)), [(name, form[1])], report)
        elif form:
            report.refused.append(Line(name or type(m).__name__, form))
    for m, name in reversed(fresh.items()):
        if isinstance(m, Accelerated):
            continue
        if pairs.runs_in_order(type(m)):
            yield from _chain(m, name, names, report, lay_out)
        elif not _is_torchs(m) and (m._modules or m._parameters or m._buffers):
            where = name or type(m).__name__
            plan = "it has a forward of its own" if "forward" in vars(m) else source.plan(m)
            if isinstance(plan, str):
                report.refused.append(Line(where, plan))
            else:
                rows = [(f"{name}.{part}".strip("."), what) for part, what in plan[1]]
                yield _swap(Piece(m, name), plan[0], rows, report)


def _swap(piece: Piece, cls: type, rows: list[tuple[str, str]], report: PatchReport) -> Piece:
    piece.rows += [Line(name or type(piece.module).__name__, what) for name, what in rows]
    return _changed(piece, Swap(piece.module, type(piece.module), cls), report)


def _changed(piece: Piece, change: Assignment | Layout | Swap, report: PatchReport) -> Piece:
    report.change(change)
    piece.changes.append(change)
    return piece


def _reachable(module: nn.Module, name: str, report: PatchReport) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose Python runs when they are called, each once; what is compiled is named in the report."""
    seen: set[nn.Module] = set()

    def walk(m: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if m in seen:
            return
        seen.add(m)
        if isinstance(m, torch.jit.ScriptModule) or is_compiled(m):
            how = "torch.jit" if isinstance(m, torch.jit.ScriptModule) else "torch.compile"
            report.refused.append(Line(name or type(m).__name__, f"it is compiled by {how}, which runs no other code"))
            return
        yield name, m
        for part, child in m._modules.items():
            if child is not None:
                yield from walk(child, f"{name}.{part}".lstrip("."))

    return walk(module, name)


def _chain(
    sequence: nn.Sequential, name: str, names: dict[nn.Module, str], report: PatchReport, lay_out: bool
) -> Iterator[Piece]:
    piece = Piece(sequence, name)
    modules, rows, i = [*sequence._modules.values()], [], 0
    while i + 1 < len(modules):
        layer, act = modules[i : i + 2]
        where = f"{names.get(layer)} + {names.get(act)}"
        if chain.gains(layer, act):
            rows.append((where, chain.what(layer, act)))
            i += 1
        elif why := chain.why_not(layer, act):
            report.refused.append(Line(where, why))
        i += 1
    plain = all(map(_is_torchs, modules)) and not any(map(hooks, modules))
    laid_out = [m for m in modules if plain and _wants_channels_last(m)]
    if not rows and not laid_out:
        return
    for m in laid_out:
        rows.append((names[m], "weight channels last"))
        if lay_out:
            _changed(piece, Layout(m.weight), report)
            _changed(piece, Assignment(vars(m), LAID_OUT, MISSING, True), report)
            form = None if isinstance(m, Accelerated) else layers.form_of(m)
            if isinstance(form, tuple):  # some forms want the weight so
                rows.append((names[m], form[1]))
            if not isinstance(m, Accelerated):
                _changed(piece, Swap(m, type(m), accelerated(layers.Convolution, type(m))), report)
    _changed(piece, Assignment(vars(sequence), LAID_OUT, MISSING, bool(laid_out)), report)
    yield _swap(piece, accelerated(chain.Chain, type(sequence)), rows, report)


# Modules whose functions `patch_ops` replaces, by the last part of their names.
OPS = {"upfirdn2d", "bias_act", "fused_act", "fused_bias_leakyrelu", "conv2d_gradfix", "filtered_lrelu"}


def _ways_of_packages(module: nn.Module) -> list[Line]:
    """Which packages with operations of their own the classes of `module` use: they have another way."""
    packages: dict[str, str] = {}
    scopes = {original(m).__module__: original(m).__name__ for m in module.modules()}
    for scope, name in scopes.items():
        for value in list(vars(sys.modules.get(scope, types.SimpleNamespace())).values()):
            # Others may be imported lazily: to ask them would do that.
            if type(value) in (types.ModuleType, types.FunctionType) or issubclass(type(value), type):
                origin = value.__name__ if type(value) is types.ModuleType else value.__module__
                package, _, last = origin.rpartition(".") if isinstance(origin, str) else ("", "", "")
                if last in OPS and package and package.split(".")[0] != "fastgan":
                    packages.setdefault(package, name)
    return [
        Line(f"{cls} and others", f"they use operations of {package}: fastgan.patch_ops({package!r}) is their way")
        for package, cls in packages.items()
    ]


def _check_frozen(module: nn.Module) -> None:
    devices = {t.device.type for t in (*module.parameters(), *module.buffers())} - {"cpu"}
    if devices:
        raise ValueError(
            f"accelerate: freeze is for the CPU, {type(module).__name__} is on {devices.pop()}; use graphs=True"
        )
    if any(m.training for m in module.modules()):
        raise ValueError(f"accelerate: freeze wants evaluation mode; call {type(module).__name__}.eval() first")


def _freeze(module: nn.Module, report: PatchReport) -> None:
    name, own = type(module).__name__, vars(module).get("forward")
    if own is not None:
        why = "already frozen" if isinstance(own, Frozen) else "it has a forward of its own, which is not frozen"
        report.refused.append(Line(name, why))
        return
    report.change(Assignment(vars(module), "forward", MISSING, Frozen(module)))
    report.replaced.append(Line(name, "forward -> recorded and packed, without gradients"))


def _graph(module: nn.Module, device: torch.device, report: PatchReport, dry_run: bool) -> None:
    name = type(module).__name__
    if isinstance(vars(module).get("forward"), graphed.Graphed):
        report.refused.append(Line(name, "already runs by CUDA graphs"))
    elif "forward" in vars(module):
        report.refused.append(Line(name, "it has a forward of its own, which no graph is made of"))
    else:
        if not dry_run:
            report.change(Assignment(vars(module), "forward", MISSING, graphed.Graphed(module, device)))
        report.replaced.append(Line(name, "forward -> CUDA graphs, without gradients"))


def _graph_device(module: nn.Module) -> torch.device:
    devices = {t.device for t in (*module.parameters(), *module.buffers())}
    why = "it has no parameters" if not devices else next(filter(None, map(graphed.Backend.why_not, devices)), "")
    if why or len(devices) > 1:
        raise ValueError(f"accelerate: no graphs of {type(module).__name__}: {why or 'it is on several devices'}")
    return devices.pop()


def _is_torchs(module: nn.Module) -> bool:
    return original(module).__module__.startswith("torch.nn.")


def _wants_channels_last(module: nn.Module) -> bool:
    """Whether laying out the weight speeds up the convolution, and nobody else holds its memory."""
    if original(module) not in (nn.Conv2d, nn.ConvTranspose2d):
        return False
    weight = module.weight
    windows = module.groups == 1 and max(module.kernel_size) > 1
    faster = _on_tensor_cores(weight) if weight.device.type == "cuda" else _faster_on_cpu(module)
    return windows and faster and weight.is_contiguous() and weight.is_leaf and _is_alone(weight)


def _on_tensor_cores(weight: nn.Parameter) -> bool:
    """Whether a GPU's matrix units multiply by the weight: then cuDNN wants channels last, and without this it turns images and
    weights to and fro at each layer. Not in float64, nor where a row of channels is no whole number of 16 bytes."""
    fits = weight.dtype in (torch.float16, torch.bfloat16) or torch.backends.cudnn.allow_tf32
    return fits and weight.dtype != torch.float64 and all(channels % 8 == 0 for channels in weight.shape[:2])


def _faster_on_cpu(module: nn.Module) -> bool:
    """Not where gradients will be taken, nor of convolutions: 4x4 with stride 2 takes 0.87 to 1.2 times as long, 3x3 has
    `conv3x3`."""
    if not isinstance(module, nn.ConvTranspose2d) or module.training or layers.other_form(module):
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and module.padding != (0, 0)


def _is_alone(weight: nn.Parameter) -> bool:
    storage = weight.untyped_storage()
    mine = 2  # the parameter and `storage`
    return (
        storage_uses(storage) == mine
        and not storage.is_shared()
        and storage.nbytes() == weight.numel() * weight.itemsize
    )
