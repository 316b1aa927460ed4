"""Golden vectors, read in place: never copied into this repository, and no test depends on them alone. Where the folder is
absent, the tests marked `golden` are left out (tests/conftest.py), and tests/test_golden.py says so in one skip."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE

GOLDEN = Path(os.environ.get("FASTGAN_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden"))


def golden_cases(file: str, *ops: str) -> list:
    """The cases of ops/`file`.npz (those of the named `ops`, or all) as pytest parameters (case, tensors), marked `golden`;
    where the folder is absent, one that stands for them."""
    if not GOLDEN.is_dir():
        return [pytest.param(None, None, marks=pytest.mark.golden, id="golden")]
    arrays = np.load(GOLDEN / "ops" / f"{file}.npz")
    cases = [json.loads(text) for text in arrays["meta"]]
    return [
        pytest.param(
            case,
            {n: torch.from_numpy(arrays[f"{case['id']}.{n}"]).to(DEVICE) for n in case.get("tensors", [])},
            marks=pytest.mark.golden,
            id=case["id"],
        )
        for case in cases
        if not ops or case["op"] in ops
    ]


def golden_model(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """(meta, arrays) of models/`name`.npz: arrays by "sd/...", "in/...", "out/..."; for tests marked `golden`."""
    arrays = np.load(GOLDEN / "models" / f"{name}.npz")
    return json.loads(str(arrays["meta"])), {
        n: torch.from_numpy(arrays[n]).to(DEVICE) for n in arrays.files if n != "meta"
    }
