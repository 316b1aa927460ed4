"""Programs of others, patched as they import, without an edit: `python -m fastgan.run` and FASTGAN_PATCH."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stand_in_families import BASICSR, CUDA_OP, MMCV_LITE, PROJECT
from stand_ins import stylegan_package

import fastgan
from fastgan import import_hook, ops
from fastgan.patch import families

ROOT = Path(fastgan.__file__).parents[1]
SITE = ROOT / "fastgan" / "_site"


@pytest.fixture
def hook(monkeypatch):
    """hook(mode) installs the finder until the test is over."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return import_hook.install


def python(*arguments, folder, **environment):
    path = os.pathsep.join([environment.pop("PYTHONPATH", ""), str(ROOT)]).lstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_packages_are_patched_as_they_are_imported(project, hook, capsys):
    op = {f"models/stylegan2/op/{name}": source for name, source in CUDA_OP.items()}
    project({**stylegan_package(), **op, **BASICSR, **MMCV_LITE, **PROJECT, "torch_utils/training/resample.py": ""})
    hook("1")
    x, b = torch.randn(1, 3, 4, 4), torch.randn(3)
    from models.stylegan2.op import fused_leaky_relu, upfirdn2d
    from torch_utils.ops import bias_act

    assert torch.equal(bias_act.bias_act(x, b), ops.bias_act(x, b)) and callable(upfirdn2d)
    assert torch.equal(fused_leaky_relu(x, b), ops.bias_act(x, b, act="lrelu"))
    layer = importlib.import_module("basicsr").Net(3)
    assert torch.equal(layer(x), ops.bias_act(x, layer.bias, act="lrelu"))
    assert importlib.import_module("mmcv.ops").filter2d.__module__ == "fastgan.patch.mmcv"
    bigvgan = importlib.import_module("bigvgan")
    assert bigvgan.Net(use_cuda_kernel=True).acts[0].forward.__module__ == "fastgan.nn.snake"
    assert bigvgan.activations.Snake.forward.__module__ == "fastgan.patch.vocoder"
    assert sys.modules["basicsr.ops"].__spec__.loader.__class__.__name__ == "SourceFileLoader"
    said = capsys.readouterr().err
    assert "patch_ops('torch_utils.ops'): replaced 13" in said and "patch_ops('basicsr.ops')" in said
    assert "basicsr.ops.fused_act'" not in said and "runs as it is" not in said


def test_what_cannot_be_patched_runs_as_it_is(project, hook, capsys):
    project({"own/__init__.py": "", "own/ops/__init__.py": "value = 3", "own/ops/upfirdn2d.py": "import gone"})
    project({"activations.py": "def relu(x): return x"})
    hook("1")
    assert importlib.import_module("own.ops").value == 3 and importlib.import_module("activations").relu(1) == 1
    assert "activations runs as it is: patch_ops: nothing of 'activations' is known" in capsys.readouterr().err


def test_marks_and_modes(hook):
    hook_marks = {mark.removeprefix("ops/").replace("/", ".") for mark in import_hook.MARKS}
    assert {m for f in families.FAMILIES for m in f.marks} - {"fused_act.fused_act"} == hook_marks
    with pytest.raises(ValueError, match="FASTGAN_PATCH='yes'; expected one of 1, accelerate"):
        hook("yes")
    hook("1")
    hook("1")
    assert sum(isinstance(finder, import_hook.Finder) for finder in sys.meta_path) == 1


def test_networks_are_accelerated_when_they_are_first_called(capsys):
    class Module(torch.nn.Sequential):
        pass

    import_hook.accelerate_networks(Module)
    block = (torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8), torch.nn.ReLU())
    network, x = Module(*block), torch.randn(1, 3, 8, 8)
    expected = torch.nn.Sequential(*block)(x)
    assert torch.allclose(network(x), expected, atol=1e-5)
    assert torch.allclose(network(x), expected, atol=1e-5)
    said = capsys.readouterr().err
    assert said.startswith("fastgan: accelerate(Module): replaced ") and said.count("\n") == 1, "once"


def test_a_script(project, tmp_path):
    script = "import sys\nfrom torch_utils.ops import fma\nprint(__name__, sys.argv[1:], fma.fma(2, 3, 4))"
    project({**stylegan_package(), "train.py": script.replace("fma(2, 3, 4)", "fma.__module__")})
    code, out, err = python("-m", "fastgan.run", "train.py", "--gamma", "8", folder=tmp_path)
    assert (code, out) == (0, "__main__ ['--gamma', '8'] fastgan.ops.fma\n"), err
    assert "fastgan: patch_ops('torch_utils.ops'): replaced 13" in err


def test_the_hook_without_torch(tmp_path):
    """A program that imports neither torch nor such a package is left alone, and another sitecustomize runs too."""
    (tmp_path / "sitecustomize.py").write_text("print('another')")
    (tmp_path / "plain.py").write_text("import sys\nprint('torch' in sys.modules, 'fastgan' in sys.modules)")
    code, folder, _ = python("-m", "fastgan.run", "--hook", folder=tmp_path)
    assert code == 0 and Path(folder.strip()).samefile(SITE)
    for mode, expected in (("1", "False True"), ("", "False False")):
        path = os.pathsep.join([folder.strip(), str(tmp_path)])
        code, out, err = python("plain.py", folder=tmp_path, PYTHONPATH=path, FASTGAN_PATCH=mode)
        assert (code, out.split("\n")[-3:-1], err) == (0, ["another", expected], "")


@pytest.mark.parametrize("arguments", [[], ["--fast", "train.py"], ["gone.py"]])
def test_wrong_commands(arguments, capsys):
    run = importlib.util.module_from_spec(spec := importlib.util.find_spec("fastgan.run"))
    spec.loader.exec_module(run)
    assert run.main(arguments) == 2 and capsys.readouterr().err
    assert run.main(["--help"]) == 0 and "--accelerate" in capsys.readouterr().out
    assert callable(fastgan.run)


def test_the_module_trains_when_called():
    """`import fastgan.run` makes the module the attribute that `fastgan.run("dcgan", ...)` looks up."""
    code = "import fastgan.run, fastgan; assert fastgan.run.main; fastgan.run('nothing')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "unknown recipe" in done.stderr or "'nothing'" in done.stderr.splitlines()[-1]
