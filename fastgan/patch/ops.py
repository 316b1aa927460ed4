"""`patch_ops`: the custom operations of another project's package, replaced in a running process.

A module that can be imported keeps everything but its operations, which are exchanged under every name that any module holds
them by. One that cannot (its build helpers fail, or importing it would compile) is provided whole before anybody imports it.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

from fastgan.patch import families, vocoder
from fastgan.patch.imports import Inert, culprit, exists, is_ours, stand_in
from fastgan.patch.report import MISSING, Assignment, Line, PatchReport, unpatch


def patch_ops(package: str | ModuleType) -> PatchReport:
    """Replaces the custom operations of `package` by fastgan's, wherever they have been imported to. Nothing is compiled.

    Args:
        package: dotted name of a package, or the package or module itself. What it is, its modules tell, under whatever name
            it was copied: those of StyleGAN's `torch_utils.ops` (bias_act, upfirdn2d, filtered_lrelu, conv2d_gradfix,
            conv2d_resample, fma, grid_sample_gradfix), of rosinality's `op` (fused_act, upfirdn2d), of `basicsr.ops`, of
            `mmcv.ops` (fused_bias_leakyrelu), of `alias_free_activation` and `alias_free_torch`. A single module is searched
            for functions of these names, and for Snake activations and filters around them. "basicsr" stands for "basicsr.ops".

    Returns: a report; `fastgan.unpatch` restores every name. What other modules imported from a module that had to be
    provided whole stays fastgan's, since there is no original to go back to. `report.inert` lists the modules that could not be
    imported and that nothing replaces: calling what is in them is an error.

    A function whose parameters are not those of the family is refused; so is a class that does not call a replaced function
    by name. Patching twice changes nothing more.

    Raises: TypeError; ImportError where there is no such package, or where it lacks something that has to be installed;
    ValueError where nothing in it is known, with what was found and what was expected.

    Examples:
        >>> fastgan.patch_ops("torch_utils.ops")  # doctest: +SKIP
    """
    if not isinstance(package, str | ModuleType):
        raise TypeError(
            f"patch_ops: package is {type(package).__name__}; expected the name of a package, or a package or module"
        )
    name = package if isinstance(package, str) else package.__name__
    report = PatchReport(f"patch_ops({name!r})")
    if isinstance(package, ModuleType) and sys.modules.get(name) is not package:
        patch = _Patch(name, families.one_module(package), report, {name: package})
    elif exists(name):
        patch = _Patch(*families.of(name), report, sys.modules)
    else:
        raise ImportError(f"patch_ops: there is no package {name!r} on sys.path", name=name)
    try:
        patch.run()
    except Exception:
        unpatch(report)
        raise
    return report


class _Patch:
    def __init__(self, package: str, family: families.Family, report: PatchReport, loaded: dict[str, ModuleType]):
        self.package, self.family, self.report, self.loaded = package, family, report, loaded
        self.names = {f"{package}.{stem}".rstrip("."): names for stem, names in family.modules.items()}

    def run(self) -> None:
        exchanged: dict[int, tuple[object, object]] = {}
        families.rename(self.family, self.report)
        for full, names in self.names.items():
            if full not in self.loaded and not exists(full):
                self.report.refused.append(Line(full, "the package has no such module"))
                continue
            if full not in self.loaded and full[len(self.package) + 1 :] in self.family.compiled_at_import:
                self.provide(full, "importing it would compile a plugin")
                continue
            module = self.load(full)
            if module is not None and not is_ours(module):
                for name, replacement in names.items():
                    self.exchange(module, name, replacement, exchanged)
        self.rebind(exchanged)
        self.load(self.package)
        self.bind_provided()

    def load(self, full: str) -> ModuleType | None:
        """The module, imported. Whatever of the package breaks on the way is provided instead, and the import tried again;
        None where that is the module itself."""
        while full not in self.loaded:
            try:
                importlib.import_module(full)
            except Exception as error:
                root = self.package.partition(".")[0]
                broken = culprit(error, root) or full
                own = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == root
                if broken in sys.modules or (self.family.complete and not own):
                    raise ImportError(f"patch_ops: {full} cannot be imported: {error!r}", name=full) from error
                self.provide(broken, f"{type(error).__name__}: {error}")
        module = self.loaded[full]
        return None if is_ours(module) else module

    def provide(self, full: str, why: str) -> None:
        module = stand_in(full, why)
        if full in self.names:
            names = {name: _first(choice) for name, choice in self.names[full].items()}
            vars(module).update(names, **self.family.provided.get(full[len(self.package) + 1 :], {}))
            self.report.replaced += [Line(f"{full}.{name}", f"provided ({why})") for name in names]
        else:
            self.report.inert.append(Line(full, f"an inert stand-in ({why})"))
            vars(module)["__getattr__"] = Inert(full, why)
        self.report.change(Assignment(sys.modules, full, MISSING, module))

    def bind_provided(self) -> None:
        """Makes provided modules attributes of their packages, which only an import would have done."""
        for full, module in list(sys.modules.items()):
            parent, _, stem = full.rpartition(".")
            if not full.startswith(self.package.partition(".")[0] + ".") or not is_ours(module):
                continue
            parent_names = vars(sys.modules[parent]) if parent in sys.modules else {stem: module}
            if stem not in parent_names:
                self.report.change(Assignment(parent_names, stem, MISSING, module))
        package = self.loaded[self.package]
        if is_ours(package):  # its own imports of names never ran
            for full, names in self.names.items():
                for name in names if self.family.reexports else ():
                    module = sys.modules.get(full)
                    if module is not None and hasattr(module, name):
                        before = vars(package).get(name, MISSING)
                        self.report.change(Assignment(vars(package), name, before, getattr(module, name)))

    def exchange(self, module: ModuleType, name: str, choice, exchanged: dict[int, tuple[object, object]]) -> None:
        where, original = f"{module.__name__}.{name}", vars(module).get(name)
        if original is None:
            self.report.refused.append(Line(where, "the module has no such name"))
        elif any(original is own for own in _choices(choice)):
            self.report.refused.append(Line(where, "already fastgan's"))
        elif isinstance(original, type):
            called = [n for n in self.names[module.__name__] if n in _called(original)]
            if called:
                self.report.replaced.append(Line(where, f"kept: it calls {called[0]}, which is fastgan's now"))
            else:
                self.exchange_forward(where, original)
        else:
            fitting = [own for own in _choices(choice) if _fits(original, own)]
            if fitting:
                exchanged[id(original)] = original, fitting[0]
            else:
                wanted = " or ".join(f"({', '.join(inspect.signature(own).parameters)})" for own in _choices(choice))
                why = f"its parameters are {inspect.signature(original)}; expected {wanted}"
                self.report.refused.append(Line(where, why))

    def exchange_forward(self, where: str, cls: type) -> None:
        forward = vocoder.forward_of(cls)
        if isinstance(forward, str):
            self.report.refused.append(Line(where, forward))
        else:
            self.report.change(Assignment(cls, "forward", vars(cls)["forward"], forward))
            self.report.replaced.append(Line(f"{where}.forward", "fastgan.ops, where a probe agrees"))

    def rebind(self, exchanged: dict[int, tuple[object, object]]) -> None:
        """Every name of every module that is bound to one of the originals."""
        for key, module in [*sys.modules.items(), *(self.loaded.items() if self.loaded is not sys.modules else ())]:
            namespace = getattr(module, "__dict__", None)
            if not isinstance(namespace, dict) or key.startswith("fastgan."):
                continue
            for name, value in list(namespace.items()):
                original, replacement = exchanged.get(id(value), (MISSING, None))
                if value is original:
                    self.report.change(Assignment(namespace, name, value, replacement))
                    self.report.replaced.append(Line(f"{key}.{name}", _described(replacement)))


def _choices(choice) -> tuple:
    return choice if isinstance(choice, tuple) else (choice,)


def _first(choice):
    return _choices(choice)[0]


def _called(cls: type) -> Iterable[str]:
    code = getattr(vars(cls).get("forward"), "__code__", None)
    return code.co_names if code is not None else ()


def _fits(original: Callable, replacement: Callable) -> bool:
    """Whether whatever the original is called with means the same to the replacement: the same parameters in the same
    places. A decorator's (*args, **kwargs), or no signature, says nothing and is taken."""
    known = list(inspect.signature(replacement).parameters)
    if hasattr(original, "schema"):  # a torch.jit.ScriptFunction
        taken = [argument.name for argument in original.schema.arguments]
    else:
        try:
            parameters = inspect.signature(original).parameters.values()
        except ValueError:  # of a torch.autograd.Function's apply
            return True
        taken = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return taken == known[: len(taken)]


def _described(replacement: Callable) -> str:
    return f"{replacement.__module__}.{replacement.__qualname__}"
