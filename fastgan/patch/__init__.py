"""Reversible replacement of other projects' custom operations and layers by fastgan's."""

import contextlib
from collections.abc import Iterator

from torch import nn

from fastgan.patch.accelerate import accelerate
from fastgan.patch.ops import patch_ops
from fastgan.patch.report import PatchReport, unpatch

__all__ = ["PatchReport", "accelerate", "patch_ops", "patched", "unpatch"]


@contextlib.contextmanager
def patched(target: str | nn.Module) -> Iterator[PatchReport]:
    """`patch_ops(target)` of a package's name, `accelerate(target)` of a module, until the end of the block."""
    report = accelerate(target) if isinstance(target, nn.Module) else patch_ops(target)
    try:
        yield report
    finally:
        unpatch(report)
