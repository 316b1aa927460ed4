"""The instruction sets that the CPU kernels are compiled for and this machine has: the weakest first, none if not compiled."""

import torch
from device import DEVICE

import fastgan.ops  # noqa: F401 - defines torch.ops.fastgan

_ALL = ("portable", "avx2", "avx512")
_best = torch.ops.fastgan.cpu_level("")
LEVELS = _ALL[: _ALL.index(_best) + 1] if _best in _ALL and DEVICE.type == "cpu" else ()
