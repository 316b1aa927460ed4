"""`patch_ops`: the custom operations of another project's package, replaced in a running process.

A module that can be imported keeps everything but its operations, which are exchanged under every name that any module holds
them by. One that cannot (its build helpers fail, or importing it would compile) is provided whole before anybody imports it.
"""

import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from types import ModuleType

from fastgan.patch import mmcv, rosinality, stylegan
from fastgan.patch.report import MISSING, Assignment, Line, PatchReport

FAMILIES = {"torch_utils.ops": stylegan, "op": rosinality, "mmcv.ops": mmcv}


def patch_ops(package: str) -> PatchReport:
    """Replaces the custom operations of `package` by fastgan's, wherever they have been imported to. Nothing is compiled.

    Args:
        package: dotted name ending in "torch_utils.ops" (StyleGAN2-ADA, StyleGAN3, StyleGAN-XL, R3GAN: bias_act, upfirdn2d,
            filtered_lrelu, conv2d_gradfix, conv2d_resample, fma, grid_sample_gradfix), in "op" (rosinality:
            fused_leaky_relu, FusedLeakyReLU, upfirdn2d, conv2d_gradfix) or in "mmcv.ops" (fused_bias_leakyrelu,
            FusedBiasLeakyReLU, bias_act, upfirdn2d, filtered_lrelu, conv2d_gradfix).

    Returns: a report; `fastgan.unpatch` restores every name. What other modules imported from a module that had to be
    provided whole stays fastgan's, since there is no original to go back to.

    A function whose parameters are not those of the family is refused; so is a class that does not call a replaced function
    by name. Patching twice changes nothing more.

    Raises: TypeError, ValueError for a name of another shape; ImportError where there is no such package.
    """
    if not isinstance(package, str):
        raise TypeError(f"patch_ops: package is {type(package).__name__}; expected the name of a package")
    family = next((f for name, f in FAMILIES.items() if f".{package}".endswith(f".{name}")), None)
    if family is None:
        raise ValueError(f"patch_ops: package={package!r}; expected a name ending in one of {list(FAMILIES)}")
    if not _exists(package):
        raise ImportError(f"patch_ops: there is no package {package!r} on sys.path", name=package)
    report = PatchReport(f"patch_ops({package!r})")
    _Patch(package, family, report).run()
    return report


class _Patch:
    def __init__(self, package: str, family: ModuleType, report: PatchReport):
        self.package, self.family, self.report = package, family, report
        self.names = {f"{package}.{stem}": names for stem, names in family.MODULES.items()}

    def run(self) -> None:
        exchanged: dict[int, tuple[object, object]] = {}
        for full, names in self.names.items():
            if not _exists(full):
                self.report.refused.append(Line(full, "the package has no such module"))
                continue
            if full not in sys.modules and full.rpartition(".")[2] in self.family.COMPILED_AT_IMPORT:
                self.provide(full, "importing it would compile a plugin")
                continue
            module = self.load(full)
            if module is not None and not _is_ours(module):
                for name, replacement in names.items():
                    self.exchange(module, name, replacement, exchanged)
        self.rebind(exchanged)
        self.load(self.package)
        self.bind_provided()

    def load(self, full: str) -> ModuleType | None:
        """The module, imported. Whatever of the package breaks on the way is provided instead, and the import tried again;
        None where that is the module itself."""
        while full not in sys.modules:
            try:
                importlib.import_module(full)
            except Exception as error:
                broken = _innermost(error, self.package.partition(".")[0]) or full
                if broken in sys.modules:
                    raise ImportError(f"patch_ops: {full} cannot be imported: {error!r}", name=full) from error
                self.provide(broken, f"{type(error).__name__}: {error}")
        module = sys.modules[full]
        return None if _is_ours(module) else module

    def provide(self, full: str, why: str) -> None:
        module = ModuleType(full, f"Provided by fastgan.patch_ops({self.package!r}): {why}.")
        module.__fastgan_provided__ = why
        if full in self.names:
            names = {name: _first(choice) for name, choice in self.names[full].items()}
            vars(module).update(names, **self.family.PROVIDED.get(full.rpartition(".")[2], {}))
            self.report.replaced += [Line(f"{full}.{name}", f"provided ({why})") for name in names]
        else:
            self.report.replaced.append(Line(full, f"an inert stand-in ({why})"))
            vars(module)["__getattr__"] = _Inert(full, why)
        spec = _find(full)
        if spec is not None and spec.submodule_search_locations is not None:
            module.__path__ = list(spec.submodule_search_locations)
        self.report.change(Assignment(sys.modules, full, MISSING, module))

    def bind_provided(self) -> None:
        """Makes provided modules attributes of their packages, which only an import would have done."""
        for full, module in list(sys.modules.items()):
            parent, _, stem = full.rpartition(".")
            if not full.startswith(self.package.partition(".")[0] + ".") or not _is_ours(module):
                continue
            parent_names = vars(sys.modules[parent])
            if stem not in parent_names:
                self.report.change(Assignment(parent_names, stem, MISSING, module))
        package = sys.modules[self.package]
        if _is_ours(package):  # its own imports of names never ran
            for full, names in self.names.items():
                for name in names if self.family is not stylegan else ():
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
                self.report.refused.append(Line(where, "a class whose forward calls no function that is replaced"))
        else:
            fitting = [own for own in _choices(choice) if _fits(original, own)]
            if fitting:
                exchanged[id(original)] = original, fitting[0]
            else:
                wanted = ", ".join(inspect.signature(_first(choice)).parameters)
                why = f"its parameters are {inspect.signature(original)}; expected ({wanted})"
                self.report.refused.append(Line(where, why))

    def rebind(self, exchanged: dict[int, tuple[object, object]]) -> None:
        """Every name of every module that is bound to one of the originals."""
        for key, module in list(sys.modules.items()):
            namespace = getattr(module, "__dict__", None)
            if not isinstance(namespace, dict) or key.startswith("fastgan."):
                continue
            for name, value in list(namespace.items()):
                original, replacement = exchanged.get(id(value), (MISSING, None))
                if value is original:
                    self.report.change(Assignment(namespace, name, value, replacement))
                    self.report.replaced.append(Line(f"{key}.{name}", _described(replacement)))


class _Inert:
    """The names of a build helper that is not there: callable to the eye, an error when called."""

    def __init__(self, module: str, why: str):
        self.module, self.why = module, why

    def __call__(self, name: str) -> Callable:
        if name.startswith("__") or _find(f"{self.module}.{name}") is not None:  # a submodule yet to be imported
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise RuntimeError(
                f"{self.module}.{name} is an inert stand-in of fastgan.patch_ops, since the module cannot be imported"
                f" ({self.why}); nothing is compiled"
            )

        return missing


def _is_ours(module: ModuleType) -> bool:
    return "__fastgan_provided__" in getattr(module, "__dict__", ())


def _find(full: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module, found without importing any of its packages."""
    top, *rest = full.split(".")
    loaded = sys.modules.get(top)
    spec = getattr(loaded, "__spec__", None) if loaded is not None else importlib.util.find_spec(top)
    locations = getattr(loaded, "__path__", None) or (spec and spec.submodule_search_locations)
    for stem in rest:
        if locations is None:
            return None
        top = f"{top}.{stem}"
        spec = importlib.machinery.PathFinder.find_spec(top, list(locations))
        locations = getattr(sys.modules.get(top), "__path__", None) or (spec and spec.submodule_search_locations)
    return spec


def _exists(full: str) -> bool:
    return full in sys.modules or _find(full) is not None


def _innermost(error: Exception, root: str) -> str | None:
    """The module of package `root` whose own top level raised `error`."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    modules = [frame.f_globals.get("__name__", "") for frame in frames]
    return next((name for name in reversed(modules) if name.partition(".")[0] == root), None)


def _choices(choice) -> tuple:
    return choice if isinstance(choice, tuple) else (choice,)


def _first(choice):
    return _choices(choice)[0]


def _called(cls: type) -> Iterable[str]:
    code = getattr(vars(cls).get("forward"), "__code__", None)
    return code.co_names if code is not None else ()


def _fits(original: Callable, replacement: Callable) -> bool:
    """Whether whatever the original is called with means the same to the replacement: the same parameters in the same
    places. A decorator's (*args, **kwargs) says nothing and is taken."""
    known = list(inspect.signature(replacement).parameters)
    taken = inspect.signature(original).parameters.values()
    return all(
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or [parameter.name] == known[i : i + 1]
        for i, parameter in enumerate(taken)
    )


def _described(replacement: Callable) -> str:
    return f"{replacement.__module__}.{replacement.__qualname__}"
