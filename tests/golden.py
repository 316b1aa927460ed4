"""Golden vectors, read in place: never copied into this repository, and no test depends on them alone."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE

GOLDEN = Path(os.environ.get("FASTGAN_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden"))


def golden_cases(file: str, *ops: str) -> list:
    """The cases of ops/`file`.npz (those of the named `ops`, or all) as pytest parameters (case, tensors); none where
    the folder is not there."""
    path = GOLDEN / "ops" / f"{file}.npz"
    if not path.exists():
        return []
    arrays = np.load(path)
    cases = [json.loads(text) for text in arrays["meta"]]
    return [
        pytest.param(
            case,
            {n: torch.from_numpy(arrays[f"{case['id']}.{n}"]).to(DEVICE) for n in case.get("tensors", [])},
            id=case["id"],
        )
        for case in cases
        if not ops or case["op"] in ops
    ]


def golden_model(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """(meta, arrays) of models/`name`.npz: arrays by "sd/...", "in/...", "out/..."; skips where the folder is not there."""
    path = GOLDEN / "models" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no golden vectors in {GOLDEN}")
    arrays = np.load(path)
    return json.loads(str(arrays["meta"])), {
        n: torch.from_numpy(arrays[n]).to(DEVICE) for n in arrays.files if n != "meta"
    }
