"""Modules of other projects: found without importing them, imported, and stood in for where they cannot be."""

import importlib.machinery
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

PROVIDED = "__fastgan_provided__"  # a name in the namespace of modules that fastgan has made


class Inert:
    """`__getattr__` of a module that is not there: any name is callable to the eye, and an error when called."""

    def __init__(self, module: str, why: str):
        self.module, self.why = module, why

    def __call__(self, name: str) -> Callable:
        if name.startswith("__") or find(f"{self.module}.{name}") is not None:  # a submodule yet to be imported
            raise AttributeError(name)
        return self.named(name)

    def named(self, name: str) -> Callable:
        def missing(*args, **kwargs):
            raise RuntimeError(
                f"{self.module}.{name} is an inert stand-in of fastgan.patch_ops, since the module cannot be imported"
                f" ({self.why}); nothing is compiled"
            )

        return missing


def stand_in(full: str, why: str) -> ModuleType:
    """An empty module under a name, whose submodules can still be imported."""
    module = ModuleType(full, f"Provided by fastgan.patch_ops: {why}.")
    vars(module)[PROVIDED] = why
    spec = find(full)
    if spec is not None and spec.submodule_search_locations is not None:
        module.__path__ = list(spec.submodule_search_locations)
    return module


def is_ours(module: ModuleType) -> bool:
    return PROVIDED in getattr(module, "__dict__", ())


def find(full: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module, found without importing any of its packages."""
    top, *rest = full.split(".")
    loaded = sys.modules.get(top)
    spec = getattr(loaded, "__spec__", None) if loaded is not None else importlib.util.find_spec(top)
    locations = getattr(loaded, "__path__", None) or (spec and spec.submodule_search_locations)
    for stem in rest:
        if locations is None:
            return None
        top = f"{top}.{stem}"
        spec = _spec_in(list(locations), top)
        locations = getattr(sys.modules.get(top), "__path__", None) or (spec and spec.submodule_search_locations)
    return spec


def _spec_in(folders: list[str], full: str) -> importlib.machinery.ModuleSpec | None:
    """What PathFinder finds, also where a parent that is a folder without an __init__ has not been imported."""
    finders = filter(None, map(pkgutil.get_importer, folders))
    specs = [spec for finder in finders if (spec := finder.find_spec(full)) is not None]
    return next((spec for spec in specs if spec.loader is not None), specs[0] if specs else None)


def exists(full: str) -> bool:
    return full in sys.modules or find(full) is not None


def submodules(full: str) -> list[str]:
    """The names of the modules directly in a package, imported or not."""
    spec, loaded = find(full), sys.modules.get(full)
    locations = getattr(loaded, "__path__", None) or (spec and spec.submodule_search_locations) or ()
    imported = {name[len(full) + 1 :].partition(".")[0] for name in sys.modules if name.startswith(f"{full}.")}
    return sorted(imported | {module.name for module in pkgutil.iter_modules(list(locations))})


def culprit(error: Exception, root: str) -> str | None:
    """The module of package `root` that an import failed for: one that is not there, such as a compiled part, or the one
    whose own top level raised `error`."""
    absent = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if absent and absent.partition(".")[0] == root and absent not in sys.modules and absent.partition(".")[2]:
        return absent
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    modules = [frame.f_globals.get("__name__", "") for frame in frames]
    return next((name for name in reversed(modules) if name.partition(".")[0] == root), None)
