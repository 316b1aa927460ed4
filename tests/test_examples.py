"""The examples in the docstrings of public names run, and print what they say."""

import doctest
import importlib

import pytest
import torch

import fastgan

MODULES = ["ops", "nn", "models", "data", "media", "patch", "training", "recipes", "convert"]
MODULES += [f"losses.{name}" for name in ("adversarial", "penalty", "cycle", "batch")]


def examples():
    """(name, test) of every docstring with an example; some are public in two modules."""
    finder, found = doctest.DocTestFinder(recurse=False), {}
    for name in MODULES:
        module = importlib.import_module(f"fastgan.{name}")
        for public in getattr(module, "__all__", dir(module)):
            value = getattr(module, public)
            kind = value if callable(value) else type(value)
            if getattr(kind, "__module__", "").startswith("fastgan."):
                names = {"torch": torch, "fastgan": fastgan, kind.__name__: kind}
                for test in finder.find(kind, kind.__name__, globs=names):
                    if test.examples:
                        found[f"{kind.__module__}.{kind.__name__}"] = test
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name):
    failures = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(EXAMPLES[name], out=failures.append)
    assert not failures, "".join(failures)


def test_what_users_call_most_has_an_example():
    wanted = {"bias_act", "upfirdn2d", "filtered_lrelu", "norm_act", "modulated_conv2d", "grad_penalty"}
    wanted |= {"accelerate", "build", "load", "r1"}
    assert {name.rpartition(".")[2] for name in EXAMPLES} >= wanted
