"""`accelerate`: layers of any network computed by fastgan's kernels, where the result is provably the same."""

from collections.abc import Iterator

import torch
from torch import nn

from fastgan._torch_private import storage_uses
from fastgan.patch import forms, graphed, rules
from fastgan.patch.chain import LAID_OUT, PLAN, Accelerated, Chain, Steps, Straight, accelerated
from fastgan.patch.frozen import Frozen
from fastgan.patch.report import MISSING, Assignment, Layout, Line, PatchReport
from fastgan.patch.straight import Plan, make_plan


def accelerate(module: nn.Module, dry_run: bool = False, graphs: bool = False, freeze: bool = False) -> PatchReport:
    """Fuses layers of `module` in place: activations into the layer before them, instance norm with activation and residual,
    depthwise filters that are not learnt, equalised layers; on the CPU some convolutions take a faster form. Of transposed ones
    in evaluation mode the weights are laid out channels last, which is faster (a DCGAN generator in all: 1.25 to 1.7 times),
    though not with gradients (0.86 times for 2 images): to train, accelerate in training mode. On a GPU norm, bias and
    activation are fused under autocast too, and the weights of convolutions for its matrix units are laid out channels last
    (not measured there yet).

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

    Returns: a report of what is replaced, and of what is not and why. `fastgan.unpatch(report)` takes it all back. A copy
    or an unpickled copy of an accelerated network is accelerated too.

    The values are those of the original to rounding, and so are gradients of any order. Proof is by structure: neighbours in a
    `nn.Sequential`, or in a forward without loops, optional arguments and impure calls, which `torch.fx` traces. Whatever a hook
    looks at stays as it is, also where the hook comes later. Accelerating twice changes nothing more.

    Raises: TypeError unless `module` is a nn.Module in Python (a ScriptModule is not); ValueError for `graphs` where it is not
    all on one CUDA device, and for `freeze` unless it is in evaluation mode and on the CPU.

    Examples:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8), torch.nn.ReLU())
        >>> report = fastgan.accelerate(network)
        >>> fastgan.unpatch(report)
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"accelerate: module is {type(module).__name__}; expected a torch.nn.Module in Python")
    device = _graph_device(module) if graphs else None
    if freeze:
        _check_frozen(module)
    report = PatchReport(f"accelerate({type(module).__name__})", dry_run)
    names = {m: name for name, m in module.named_modules()}
    inside: set[nn.Module] = set()  # run by a chain around them
    for m, name in names.items():
        if isinstance(m, Accelerated):
            report.refused.append(Line(name or type(m).__name__, "already accelerated"))
            inside.update(_sequences_in(m) if isinstance(m, Chain) else ())
        elif m in inside or isinstance(m, torch.jit.ScriptModule):
            continue
        elif rules.is_sequence(m):
            inside.update(_sequences_in(m))
            _chain(m, names, report)
        elif not _is_torchs(m) and (m._modules or m._parameters):
            _straight(m, name, report)
    if freeze:
        _freeze(module, report)
    if device is not None and isinstance(vars(module).get("forward"), graphed.Graphed):
        report.refused.append(Line(type(module).__name__, "already runs by CUDA graphs"))
    elif device is not None and "forward" in vars(module):
        report.refused.append(Line(type(module).__name__, "it has a forward of its own, which no graph is made of"))
    elif device is not None:
        if not dry_run:
            report.change(Assignment(vars(module), "forward", MISSING, graphed.Graphed(module, device)))
        report.replaced.append(Line(type(module).__name__, "forward -> CUDA graphs, without gradients"))
    if dry_run:
        print(report)
    return report


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


def _graph_device(module: nn.Module) -> torch.device:
    devices = {t.device for t in (*module.parameters(), *module.buffers())}
    why = "it has no parameters" if not devices else next(filter(None, map(graphed.Backend.why_not, devices)), "")
    if why or len(devices) > 1:
        raise ValueError(f"accelerate: no graphs of {type(module).__name__}: {why or 'it is on several devices'}")
    return devices.pop()


def _sequences_in(sequence: nn.Sequential) -> Iterator[nn.Module]:
    """The sequences that run as a part of this one."""
    for child in filter(rules.is_sequence, sequence._modules.values()):
        yield child
        yield from _sequences_in(child)


def _chain(sequence: nn.Sequential, names: dict[nn.Module, str], report: PatchReport) -> None:
    modules = rules.flat(sequence._modules.values())
    i, fused = 0, False
    while i < len(modules):
        step, count, what = rules.rule(modules, i)
        if what:
            line = Line(" + ".join(names[m] for m in modules[i : i + count]), what)
            (report.refused if step is None else report.replaced).append(line)
        fused = fused or step is not None
        i += count
    laid_out = [m for m in modules if all(map(_is_torchs, modules)) and _wants_channels_last(m)]
    for m in laid_out:
        report.change(Layout(m.weight))
        report.replaced.append(Line(names[m], "weight channels last"))
    if fused or laid_out:
        report.change(Assignment(vars(sequence), LAID_OUT, MISSING, bool(laid_out)))
        report.change(Assignment(vars(sequence), PLAN, MISSING, Steps()))
        report.change(Assignment(sequence, "__class__", type(sequence), accelerated(Chain, type(sequence))))


def _straight(module: nn.Module, name: str, report: PatchReport) -> None:
    where = name or type(module).__name__
    plan = "it has a forward of its own" if "forward" in vars(module) else make_plan(module, type(module))
    if not isinstance(plan, Plan):
        report.refused.append(Line(where, plan))
        return
    report.replaced += [Line(f"{name}.{part}".lstrip("."), what) for part, what in plan.lines]
    report.change(Assignment(vars(module), PLAN, MISSING, plan))
    report.change(Assignment(module, "__class__", type(module), accelerated(Straight, type(module))))


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _wants_channels_last(module: nn.Module) -> bool:
    """Whether laying out the weight speeds up the convolution, and nobody else holds its memory."""
    if type(module) not in (nn.Conv2d, nn.ConvTranspose2d) or rules.hooks(module):
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
    if type(module) is not nn.ConvTranspose2d or module.training or forms.other_form(module):
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
