"""patch_ops on the layouts in which other projects hold their operations, known by structure, under any name."""

import importlib
import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F
from stand_in_families import BASICSR, CUDA_OP, MMCV_LITE
from stand_ins import stylegan_package
from tolerances import assert_close

import fastgan
from fastgan import ops


def test_basicsr_imports_again_and_computes(project):
    project(BASICSR)
    with pytest.raises(ModuleNotFoundError, match="functional_tensor"):
        importlib.import_module("basicsr")
    report = fastgan.patch_ops("basicsr")
    archs = importlib.import_module("basicsr.archs")
    x, layer = torch.randn(2, 4, 6, 5), archs.Net(4)
    assert torch.equal(layer(x), ops.bias_act(x, layer.bias, act="lrelu"))
    kernel = ops.setup_filter([1, 3, 3, 1])
    assert torch.equal(archs.upfirdn2d(x, kernel, up=2, pad=(2, 1)), ops.upfirdn2d(x, kernel, 2, 1, [2, 1, 2, 1]))
    weight, offset, mask = torch.randn(6, 2, 3, 3), torch.zeros(2, 36, 6, 5), torch.full((2, 18, 6, 5), 0.5)
    expected = F.conv2d(x, weight, padding=1, groups=2)
    assert_close(archs.deform_conv(x, offset, weight, 1, 1, 1, 2, 2), expected)
    assert_close(
        archs.modulated_deform_conv(x, offset, mask, weight, torch.ones(6), 1, (1, 1), 1, 2, 2), expected / 2 + 1
    )
    offset[:, 1::2] = 1  # pairs are (y, x): every tap reads its right neighbour
    right = F.conv2d(F.pad(x, (0, 2, 1, 1)), weight, groups=2)
    assert_close(archs.deform_conv(x, offset, weight, 1, 1, 1, 2, 2), right)
    assert not report.refused
    fastgan.unpatch(report)
    assert "torchvision.transforms.functional_tensor" not in sys.modules
    with pytest.raises(NameError):
        layer(x)


def test_basicsr_without_a_package_that_it_needs_says_so_and_changes_nothing(project):
    project({**BASICSR, "basicsr/degradations.py": "import package_that_is_gone"})
    with pytest.raises(ImportError, match="No module named 'package_that_is_gone'"):
        fastgan.patch_ops("basicsr")
    assert "torchvision.transforms.functional_tensor" not in sys.modules


@pytest.mark.parametrize("package", ["models.stylegan2.op", "torch_utils.op_edit", "copies.of_ops"])
def test_rosinality_under_other_names(project, package):
    folder = package.replace(".", "/")
    parents = {f"{folder.split('/')[0]}/__init__.py": ""}
    project({**{f"{folder}/{name}": source for name, source in CUDA_OP.items()}, **parents})
    report = fastgan.patch_ops(package)
    op = importlib.import_module(package)
    assert callable(op.upfirdn2d), "the function, though a submodule has the same name"
    x = torch.randn(2, 3, 6, 5)
    assert torch.equal(op.fused_leaky_relu(x, torch.ones(3)), ops.bias_act(x, torch.ones(3), act="lrelu"))
    older = op.FusedLeakyReLU(3, 0.1, scale=1.0)
    assert (older.negative_slope, older.scale) == (0.1, 1.0) and list(older.state_dict()) == ["bias"]
    assert op.FusedLeakyReLU(3, False, 0.1).bias is None
    latents, bias = torch.randn(2, 7, 3), torch.randn(3)
    assert torch.equal(op.fused_leaky_relu(latents, bias), ops.bias_act(latents, bias, 2, "lrelu"))
    tokens = torch.randn(2, 3, 7)
    assert torch.equal(op.fused_leaky_relu(tokens, bias), ops.bias_act(tokens, bias, 1, "lrelu"))
    fastgan.unpatch(report)
    assert f"{package}.fused_act" not in sys.modules


@pytest.mark.parametrize("package", ["utils.style_ops", "stylegan_human.torch_utils.ops"])
def test_stylegan_under_other_names(project, package):
    folder = package.replace(".", "/")
    files = stylegan_package()
    helper = f"{package.rpartition('.')[0].replace('.', '/')}/build_helper.py"
    moved = {n.replace("torch_utils/ops", folder): s for n, s in files.items() if n.startswith("torch_utils/ops")}
    project({**moved, helper: files["torch_utils/build_helper.py"]})
    x, b = torch.randn(2, 3, 6, 5), torch.randn(3)
    with fastgan.patched(package) as report:
        module = importlib.import_module(f"{package}.bias_act")
        assert torch.equal(module.bias_act(x, b, act="relu", impl="ref"), ops.bias_act(x, b, act="relu"))
        assert len(report.replaced) == 13 and not report.refused
    with pytest.raises(RuntimeError, match="would be compiled"):
        module.bias_act(x)
    with fastgan.patched(importlib.import_module(package)) as again:
        assert len(again.replaced) == 13


def test_mmgen(project):
    project(
        {
            "mmgen/__init__.py": "",
            "mmgen/ops/__init__.py": "from .fused_bias_leakyrelu import fused_bias_leakyrelu",
            "mmgen/ops/fused_bias_leakyrelu.py": "def fused_bias_leakyrelu(input, bias, negative_slope=0.2, scale=1.4): 1 / 0",
            "mmgen/ops/upfirdn2d.py": "def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)): 1 / 0",
        }
    )
    fastgan.patch_ops("mmgen")
    mmgen_ops = importlib.import_module("mmgen.ops")
    x, b = torch.randn(2, 3, 6, 5), torch.randn(3)
    assert torch.equal(mmgen_ops.fused_bias_leakyrelu(x, b), ops.bias_act(x, b, act="lrelu"))
    f = ops.setup_filter([1, 3, 3, 1])
    assert torch.equal(mmgen_ops.upfirdn2d.upfirdn2d(x, f, 1, 2, (1, 1)), ops.upfirdn2d(x, f, 1, 2, 1))


def test_mmcv_lite(project):
    """Only its compiled part is missing: what is replaced works, and what else needs that part is said to be inert."""
    project(MMCV_LITE)
    report = fastgan.patch_ops("mmcv.ops")
    mmcv_ops = importlib.import_module("mmcv.ops")
    x, f = torch.randn(2, 3, 6, 5), ops.setup_filter([1, 3, 3, 1])
    assert torch.equal(mmcv_ops.upsample2d(x, f), ops.upsample2d(x, f))
    assert torch.equal(mmcv_ops.filter2d(x, f), ops.filter2d(x, f))
    assert mmcv_ops.nms.__module__ == "mmcv.ops.nms"
    with pytest.raises(RuntimeError, match=r"mmcv\._ext\.nms is an inert stand-in"):
        mmcv_ops.nms(x)
    assert [line.where for line in report.inert] == ["mmcv._ext"] and "inert 1" in str(report)
    assert all(line.what.startswith("fastgan.") for line in report.replaced)
    fastgan.unpatch(report)
    assert "mmcv._ext" not in sys.modules


ONE_FILE = """
    import torch
    from torch.nn.functional import conv2d

    def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='cuda'): 1 / 0
    def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2 ** 0.5): 1 / 0
    def filtered_lrelu(x, weight): return x

    def layer(x): return fused_leaky_relu(upfirdn2d(x, None))
"""


@pytest.mark.parametrize("by", ["name", "module", "unregistered module"])
def test_a_single_module_by_its_names(project, tmp_path, by):
    project({"own_ops.py": ONE_FILE})
    if by == "unregistered module":
        spec = importlib.util.spec_from_file_location("own_ops", tmp_path / "own_ops.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module("own_ops")
    before = dict(vars(module))
    report = fastgan.patch_ops("own_ops" if by == "name" else module)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(module.layer(x), ops.bias_act(x, act="lrelu"))
    assert module.conv2d is F.conv2d, "what it only imported stays"
    assert (
        "its parameters are (x, weight); expected (input, filter_up" in dict(report.refused)["own_ops.filtered_lrelu"]
    )
    fastgan.unpatch(report)
    assert vars(module) == before


def test_what_was_found_and_what_was_expected(project):
    project({"strange/__init__.py": "def blur(x): return x", "strange/kernels.py": ""})
    with pytest.raises(ValueError) as error:
        fastgan.patch_ops("strange")
    assert "Found: kernels, blur." in str(error.value)
    assert "fused_bias_leakyrelu or" in str(error.value) and "filtered_lrelu" in str(error.value)


def test_zero_gradients_of_a_penalty_alone_are_zeros(project):
    """As torch has them where an activation has a kink and no curvature: an optimiser then moves the bias on by its momentum."""
    project(stylegan_package())
    fastgan.patch_ops("torch_utils.ops")
    bias_act = importlib.import_module("torch_utils.ops.bias_act").bias_act
    x, w = torch.randn(2, 3, requires_grad=True), torch.randn(3, 3)
    for act in ("relu", "lrelu", "linear"):
        theirs, ours = (torch.randn(3, requires_grad=True) for _ in range(2))
        forms = {
            theirs: lambda b, act=act: {"relu": F.relu, "lrelu": lambda t: F.leaky_relu(t, 0.2)}.get(act, lambda t: t)(
                x @ w + b
            ),
            ours: lambda b, act=act: bias_act(x @ w, b, act=act),
        }
        for b, form in forms.items():
            (gradient,) = torch.autograd.grad(form(b).sum(), x, create_graph=True)
            if gradient.requires_grad:
                gradient.square().sum().backward()
        assert (ours.grad is None) == (theirs.grad is None), act
        assert ours.grad is None or not ours.grad.any()
