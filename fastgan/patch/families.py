"""Families of packages whose operations fastgan replaces, known by their modules or by the names in them."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch

from fastgan.patch import basicsr, mmcv, rosinality, stylegan, vocoder
from fastgan.patch.imports import exists, submodules
from fastgan.patch.report import MISSING, Assignment, Line, PatchReport


class Family(NamedTuple):
    """modules: what replaces each name of each module of the package, or several for its signatures.

    marks: modules that only this family has. compiled_at_import: modules that are provided rather than imported, first in
    `modules`. provided: what else is in a module that is provided. renamed: modules outside that are gone, and who has their
    names now. complete: what it imports from others has to
    be installed; only its own modules may be missing. reexports: the package holds the names of its modules.
    """

    modules: Mapping[str, Mapping[str, Any]]
    marks: tuple[str, ...] = ()
    compiled_at_import: tuple[str, ...] = ()
    provided: Mapping[str, Mapping[str, Any]] = {}
    renamed: Mapping[str, str] = {}
    complete: bool = False
    reexports: bool = True


FAMILIES = (
    Family(mmcv.MODULES, marks=("fused_bias_leakyrelu",), complete=True),
    Family(
        basicsr.MODULES,
        marks=("fused_act.fused_act",),
        # torchvision's module of that name was private, and is gone; what BasicSR takes from it is public elsewhere.
        renamed={"torchvision.transforms.functional_tensor": "torchvision.transforms.functional"},
        complete=True,
    ),
    Family(
        rosinality.MODULES,
        marks=("fused_act",),
        compiled_at_import=("fused_act", "upfirdn2d"),  # importing the package imports them
        provided={"conv2d_gradfix": {"enabled": True}},
    ),
    Family(
        stylegan.MODULES,
        marks=("bias_act", "upfirdn2d", "conv2d_gradfix"),
        provided=stylegan.PROVIDED,
        reexports=False,
    ),
    Family(
        vocoder.ALIAS_FREE,
        marks=("cuda.activation1d", "torch.act"),
        compiled_at_import=("cuda.activation1d",),
        provided=vocoder.PROVIDED,
        reexports=False,
    ),
    Family(vocoder.ALIAS_FREE_TORCH, marks=("resample",)),
    Family(vocoder.CODEC),
)
# Names that say nothing without their neighbour: torch and others have functions of the same names.
ONLY_WITH = {"conv2d": "no_weight_gradients", "conv_transpose2d": "no_weight_gradients", "grid_sample": "", "fma": ""}


def of(package: str) -> tuple[str, Family]:
    """The package that holds the operations (`package` or the `ops` in it) and its family.

    Raises: ValueError where it has neither modules nor names of any.
    """
    for name in (package, f"{package}.ops"):
        family = marked(name)
        if family is not None:
            return name, family
    module = sys.modules.get(package) or importlib.import_module(package)
    return package, one_module(module)


def marked(package: str) -> Family | None:
    """The family that the modules of a package tell, none of which is imported."""
    return next((f for f in FAMILIES if any(exists(f"{package}.{mark}") for mark in f.marks)), None)


def rename(family: Family, report: PatchReport) -> None:
    """Makes modules that a family imports from elsewhere, and that are gone, those which have their names now."""
    for old, new in family.renamed.items():
        if not exists(old):
            report.change(Assignment(sys.modules, old, MISSING, importlib.import_module(new)))
            report.replaced.append(Line(old, f"{new}, as this version calls it"))


def one_module(module: ModuleType) -> Family:
    """The family of a single module, by what is defined in it. Raises: ValueError where nothing is known."""
    own = {n: v for n, v in vars(module).items() if callable(v) and _is_of(v, module) and not _inherits(v)}
    names = {n: choices for n, choices in _by_name().items() if n in own and ONLY_WITH.get(n, n) in own}
    names |= {n: vocoder.forward_of for n, v in own.items() if vocoder.is_known(v)}
    if not names:
        found = ", ".join([*submodules(module.__name__), *own]) or "nothing"
        raise ValueError(
            f"patch_ops: nothing of {module.__name__!r} is known. Found: {found}. Expected a package with the module"
            f" {' or '.join(mark for family in FAMILIES for mark in family.marks)}, or a module that defines one of"
            f" {', '.join(_by_name())}, a Snake activation or filters around one"
        )
    return Family({"": names})


def _is_of(value: object, module: ModuleType) -> bool:
    """Whether it was defined there, or fastgan has replaced it. A scripted function does not say where it is from."""
    where = getattr(value, "__module__", None) or ""
    return where == module.__name__ or where.startswith("fastgan.patch.") or isinstance(value, torch.jit.ScriptFunction)


def _inherits(value: object) -> bool:
    """Whether it is a module whose forward is another's, which is served there."""
    return isinstance(value, type) and issubclass(value, torch.nn.Module) and "forward" not in vars(value)


def _by_name() -> dict[str, tuple]:
    """Every name that is replaced in any family, with all that it may mean."""
    choices: dict[str, list] = {}
    for family in FAMILIES:
        for names in family.modules.values():
            for name, choice in names.items():
                several = choice if isinstance(choice, tuple) else (choice,)
                choices.setdefault(name, []).extend(c for c in several if c not in choices.get(name, ()))
    return {name: tuple(several) for name, several in choices.items()}
