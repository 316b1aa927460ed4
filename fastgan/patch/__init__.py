"""Reversible replacement of other projects' custom operations and layers by fastgan's."""

import contextlib
from collections.abc import Iterator

from fastgan.patch.ops import patch_ops
from fastgan.patch.report import PatchReport, unpatch

__all__ = ["PatchReport", "patch_ops", "patched", "unpatch"]


@contextlib.contextmanager
def patched(target: str) -> Iterator[PatchReport]:
    """`patch_ops(target)` until the end of the block."""
    report = patch_ops(target)
    try:
        yield report
    finally:
        unpatch(report)
