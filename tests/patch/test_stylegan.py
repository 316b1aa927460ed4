"""patch_ops("torch_utils.ops") on a stand-in whose operations would compile a plugin."""

import importlib
import sys

import numpy as np
import pytest
import torch
from golden import golden_cases
from stand_ins import stylegan_package
from tolerances import assert_close

import fastgan
from fastgan import ops

NETWORKS = """
    import torch
    from torch_utils.ops import bias_act, upfirdn2d as resampling
    from torch_utils.ops.upfirdn2d import upfirdn2d as filtering, setup_filter

    class Activation(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.Bias = torch.nn.Parameter(torch.randn(4))

        def forward(self, x):
            y = bias_act.bias_act(x, self.Bias.to(x.dtype), act='lrelu', gain=1, impl='ref')
            return filtering(resampling.upsample2d(y, setup_filter([1, 3, 3, 1]), impl='cuda'), None, down=2)
"""
FAMILY = ["bias_act", "upfirdn2d", "filtered_lrelu", "conv2d_gradfix", "conv2d_resample", "fma", "grid_sample_gradfix"]


def check_networks():
    from R3GAN import FusedOperators

    layer = FusedOperators.Activation()
    x = torch.randn(2, 4, 6, 5, requires_grad=True)
    y = layer(x)
    expected = ops.upsample2d(ops.bias_act(x, layer.Bias, act="lrelu", gain=1), ops.setup_filter([1, 3, 3, 1]))
    assert torch.equal(y, expected[:, :, ::2, ::2])
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_imported_package(project):
    project({**stylegan_package(), "R3GAN/FusedOperators.py": NETWORKS})
    networks = importlib.import_module("R3GAN.FusedOperators")
    with pytest.raises(RuntimeError, match="would be compiled"):
        networks.Activation()(torch.randn(2, 4, 6, 5))
    modules = {stem: importlib.import_module(f"torch_utils.ops.{stem}") for stem in FAMILY}
    before = {stem: dict(vars(module)) for stem, module in modules.items()}
    names = dict(vars(networks))

    report = fastgan.patch_ops("torch_utils.ops")
    check_networks()
    replaced = {where for where, _ in report.replaced}
    assert {"R3GAN.FusedOperators.filtering", "torch_utils.ops.fma.fma"} <= replaced
    assert len([w for w in replaced if w.startswith("torch_utils")]) == 13 and not report.refused
    assert "fastgan.patch.stylegan.upfirdn2d" in str(report)
    assert modules["conv2d_gradfix"].enabled is False

    fastgan.unpatch(report)
    for stem, module in modules.items():
        assert sys.modules[f"torch_utils.ops.{stem}"] is module
        assert all(vars(module)[name] is value for name, value in before[stem].items())
    assert all(vars(networks)[name] is value for name, value in names.items())
    fastgan.unpatch(report)


def test_patched_is_a_context(project):
    project({**stylegan_package(), "R3GAN/FusedOperators.py": NETWORKS})
    module = importlib.import_module("torch_utils.ops.bias_act")
    original = module.bias_act
    with pytest.raises(KeyError), fastgan.patched("torch_utils.ops") as report:
        assert module.bias_act is not original and report.replaced
        raise KeyError
    assert module.bias_act is original


def test_patching_twice_and_undoing_in_the_wrong_order(project):
    project(stylegan_package())
    report = fastgan.patch_ops("torch_utils.ops")
    again = fastgan.patch_ops("torch_utils.ops")
    assert not again.replaced and {why for _, why in again.refused} == {"already fastgan's"}
    fma = importlib.import_module("torch_utils.ops.fma")
    ours, fma.fma = fma.fma, print
    with pytest.raises(RuntimeError, match=r"'fma' of module torch_utils\.ops\.fma has been replaced again"):
        fastgan.unpatch(report)
    assert importlib.import_module("torch_utils.ops.bias_act").bias_act.__module__ == "fastgan.patch.stylegan"
    fma.fma = ours
    fastgan.unpatch(report)
    assert fma.fma.__module__ == "torch_utils.ops.fma"


def test_build_helper_that_cannot_be_imported(project):
    """The operations keep their modules; only the helper is stood in for."""
    project({**stylegan_package(helper="import package_that_is_gone"), "R3GAN/FusedOperators.py": NETWORKS})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torch_utils.ops.bias_act")
    report = fastgan.patch_ops("torch_utils.ops")
    assert "No module named 'package_that_is_gone'" in dict(report.inert)["torch_utils.build_helper"]
    check_networks()
    from torch_utils import build_helper

    build_helper.verbosity = "none"
    with pytest.raises(RuntimeError, match="inert stand-in of fastgan"):
        build_helper.compile_plugin("x")
    assert sys.modules["torch_utils.ops.fma"].__file__.endswith("fma.py")
    fastgan.unpatch(report)
    assert "torch_utils.build_helper" not in sys.modules


def test_module_that_cannot_be_imported(project):
    """An operation's own module that fails is provided whole, before anybody imports it."""
    project({**stylegan_package(gradfix="import package_that_is_gone"), "R3GAN/FusedOperators.py": NETWORKS})
    report = fastgan.patch_ops("torch_utils.ops")
    check_networks()
    from torch_utils.ops import conv2d_gradfix

    conv2d_gradfix.enabled = True
    w = torch.randn(4, 3, 3, 3, requires_grad=True)
    with conv2d_gradfix.no_weight_gradients():
        y = conv2d_gradfix.conv2d(torch.randn(1, 3, 5, 5, requires_grad=True), w)
        y.sum().backward()
    assert w.grad is None
    fastgan.unpatch(report)
    assert "torch_utils.ops.conv2d_gradfix" not in sys.modules and not hasattr(
        sys.modules["torch_utils.ops"], "fastgan"
    )
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torch_utils.ops.conv2d_gradfix")


@pytest.mark.parametrize("package", ["torch_utils/__init__.py", "torch_utils/ops/__init__.py"])
def test_package_that_cannot_be_imported(project, package):
    project({**stylegan_package(), package: "import package_that_is_gone", "R3GAN/FusedOperators.py": NETWORKS})
    report = fastgan.patch_ops("torch_utils.ops")
    check_networks()
    from torch_utils import misc

    assert misc.assert_shape(None, None) is None
    fastgan.unpatch(report)
    assert package.removesuffix("/__init__.py").replace("/", ".") not in sys.modules


def test_provided_activation_table(project):
    files = stylegan_package()
    files["torch_utils/ops/bias_act.py"] = "import package_that_is_gone"
    project(files)
    fastgan.patch_ops("torch_utils.ops")
    table = importlib.import_module("torch_utils.ops.bias_act").activation_funcs
    assert table["lrelu"].def_gain == 2**0.5 and table["lrelu"].def_alpha == 0.2 and table["linear"].def_gain == 1
    assert_close(table["lrelu"].func(torch.tensor([-1.0, 2.0]), alpha=0.1), torch.tensor([-0.1, 2.0]))


def test_function_with_other_parameters_is_refused(project):
    files = stylegan_package()
    files["torch_utils/ops/fma.py"] = "def fma(a, scale, b, c): return a"
    del files["torch_utils/ops/filtered_lrelu.py"]
    project(files)
    report = fastgan.patch_ops("torch_utils.ops")
    refused = dict(report.refused)
    assert refused["torch_utils.ops.fma.fma"] == "its parameters are (a, scale, b, c); expected (a, b, c)"
    assert refused["torch_utils.ops.filtered_lrelu"] == "the package has no such module"
    assert importlib.import_module("torch_utils.ops.fma").fma(1, 2, 3, 4) == 1


def test_wrong_packages(project):
    project({"own/ops/__init__.py": ""})
    with pytest.raises(ImportError, match=r"no package 'torch_utils\.ops' on sys\.path"):
        fastgan.patch_ops("torch_utils.ops")
    with pytest.raises(
        ValueError, match=r"nothing of 'own\.ops' is known\. Found: nothing\. Expected a package with the module"
    ):
        fastgan.patch_ops("own.ops")
    with pytest.raises(TypeError, match="expected the name of a package, or a package or module"):
        fastgan.patch_ops(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="expected the PatchReport"):
        fastgan.unpatch("torch_utils.ops")


def test_sizes_of_numpy_and_wrong_impl(project):
    project(stylegan_package())
    fastgan.patch_ops("torch_utils.ops")
    upfirdn2d = importlib.import_module("torch_utils.ops.upfirdn2d")
    x = torch.randn(1, 2, 5, 5)
    f = upfirdn2d.setup_filter(np.array([1, 3, 3, 1]))
    y = upfirdn2d.upfirdn2d(x, f, up=np.int64(2), padding=[np.int64(2), 1, np.int64(2), 1])
    assert torch.equal(y, ops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1]))
    assert torch.equal(y, upfirdn2d.upfirdn2d(x, f, up=2, padding=np.array([2, 1, 2, 1]), impl="ref"))
    for stem in ("bias_act", "upfirdn2d", "filtered_lrelu"):
        call = getattr(importlib.import_module(f"torch_utils.ops.{stem}"), stem)
        with pytest.raises(ValueError, match=r"impl='fast'; expected 'cuda' or 'ref'"):
            call(x, None, impl="fast")


@pytest.mark.parametrize(
    ("case", "tensors"),
    [
        case
        for file in ("bias_act", "upfirdn2d", "filtered_lrelu", "conv2d_resample", "grid_sample")
        for case in golden_cases(file)[::15]
    ],
)
def test_golden_through_the_patched_names(project, case, tensors):
    project(stylegan_package())
    fastgan.patch_ops("torch_utils.ops")
    op = case["op"]
    stem = {"grid_sample": "grid_sample_gradfix"}.get(op, "upfirdn2d" if op.endswith("2d") else op)
    function = getattr(importlib.import_module(f"torch_utils.ops.{stem}"), op)
    inputs = {name: t for name, t in tensors.items() if name in ("x", "b", "f", "fu", "fd", "w", "grid")}
    if op == "grid_sample":
        inputs["input"] = inputs.pop("x")
    elif op.endswith("2d"):
        inputs.setdefault("f", None)
    exact = case.get("filter_gain_exact_in_float32", True)
    assert_close(function(**inputs, **case["kwargs"]), tensors["y"], 1e-10 if exact else 1e-6)
