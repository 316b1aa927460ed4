"""`.ci/gpu` as a module, for the tests of it."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def gpu():
    loader = importlib.machinery.SourceFileLoader("ci_gpu", str(ROOT / ".ci" / "gpu"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("ci_gpu", loader))
    sys.modules["ci_gpu"] = module
    loader.exec_module(module)
    return module
