"""What cannot be exported says which operation is in the way, and leaves nothing behind."""

import pytest
import torch
from saved_runs import SMALL, write_run

from fastgan import convert, export, models, recipes
from fastgan.cli import main
from fastgan.untrusted import BadFile

GAN = SMALL["gan"]


def gan():
    torch.manual_seed(0)
    kind = recipes.get("gan")
    recipe = kind(kind.Config(**GAN[0]), dict(GAN[1]))
    return recipe, {"generator": recipe.networks["generator"].eval()}


class Odd(torch.nn.Module):
    """A generator with an operation of somebody's own behind it."""

    def __init__(self, function):
        super().__init__()
        self.inner, self.function = gan()[1]["generator"], function

    def forward(self, latents):
        return self.function(self.inner(latents))


@torch.library.custom_op("fastgan_test_export::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


twice.register_fake(torch.empty_like)
ODD = {
    "fastgan_test_export.twice": lambda x: twice(x),
    "aten.histc": lambda x: x + torch.histc(x, 4).sum(),
    "decides by numbers of a tensor": lambda x: x if x.sum() > 0 else -x,
}


@pytest.mark.parametrize("named", ODD)
def test_the_operation_is_named(named, tmp_path):
    recipe, _ = gan()
    with pytest.raises(export.ExportError, match=named.replace(".", "[.:]+")):
        export.to_onnx((recipe, {"generator": Odd(ODD[named])}), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [lambda y: y + 2e-4, lambda y: y * float("nan"), lambda y: y[..., :-1]])
def test_an_exported_form_that_differs_is_not_kept(wrong, tmp_path, monkeypatch):
    right = export.engines.pt2

    def engine(path):
        run, about = right(path)
        return lambda inputs: wrong(run(inputs)), about

    monkeypatch.setattr(export.engines, "pt2", engine)
    with pytest.raises(export.ExportError, match=r"differs|makes"):
        export.to_pt2(gan(), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 0.5}, "truncation=0.5: gan has none"),
        ({"class_label": 1}, "class_label=1: gan was trained"),
        ({"noise": "none"}, "noise is 'none', and gan has no noise"),
        ({"direction": "AtoB"}, "direction='AtoB' is nothing for gan"),
    ],
)
def test_options_that_a_network_does_not_have(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.to_onnx(gan(), tmp_path / "x.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "0.5"}, "truncation is '0.5', expected a finite number"),
        ({"truncation": float("inf")}, "truncation is inf, expected a finite number"),
        ({"class_label": "2"}, "class_label is '2', expected a whole number from 0 to 2"),
        ({"class_label": 1.5}, "class_label is 1.5, expected a whole number from 0 to 2"),
        ({"class_label": True}, "class_label is True, expected a whole number"),
        ({"class_label": 3}, "class_label is 3, expected a whole number"),
        ({"noise": 1}, "noise is 1, expected 'const', 'none' or 'input'"),
    ],
)
def test_options_that_make_no_sense(options, message, tmp_path):
    kind = recipes.get("stylegan2")
    config = kind.Config(width=2, max_width=4, latent=4, augment="none", conditional=True)
    data = dict(name="x", resolution=8, channels=3, num_classes=3, class_names=["a", "b", "c"])
    recipe = kind(config, data)
    with pytest.raises(ValueError, match=message):
        export.to_pt2((recipe, {"generator": recipe.networks["generator"]}), tmp_path / "x.pt2", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_networks_run_in_float32(dtype, tmp_path):
    recipe, networks = gan()
    network = networks["generator"].to(dtype).train()
    assert export.to_pt2((recipe, {"generator": network}), tmp_path / "x.pt2") < 1e-4
    assert network.training and {p.dtype for p in network.parameters()} == {dtype}
    run, _ = export.engines.pt2(tmp_path / "x.pt2")
    expected = recipe.sample({"generator": gan()[1]["generator"].to(dtype).float()}, [1])
    assert (run({"latents": recipe.latents([1])}) - expected).abs().max() < 1e-5


def test_text_and_networks_that_draw_nothing(tmp_path):
    kind = recipes.get("mle")
    options, data = SMALL["mle"]
    text = kind(kind.Config(**options), dict(data))
    with pytest.raises(export.ExportError, match="token by token"):
        export.to_onnx((text, dict(text.networks)), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"dcgan\.discriminator is no generator"):
        export.to_onnx(models.build("dcgan.discriminator"), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"expected a name that ends with \.aoti\.pt2, \.pt2, \.onnx, \.xml"):
        export.export(gan(), tmp_path / "x.tflite")


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "r")
    assert main(["export", "r", "x.onnx"]) == 0
    assert "largest difference" in capsys.readouterr().out
    draw = ["--seeds", "0-3", "--separate"]
    assert main(["sample", "r", *draw, "--out", "a", "--device", "cpu"]) == 0
    assert main(["sample", "x.onnx", *draw, "--out", "b"]) == 0
    assert main(["sample", "r", *draw, "--out", "c", "--engine", "openvino"]) == 0
    capsys.readouterr()
    from PIL import Image

    for name in ("seed0000.png", "seed0003.png"):
        pictures = [torch.tensor(list(Image.open(tmp_path / f / name).tobytes())).int() for f in "abc"]
        assert max((pictures[0] - other).abs().max() for other in pictures[1:]) <= 1  # rounding to 256 values
    assert main(["export", "r", "x.tflite"]) == 1 and "expected a name" in capsys.readouterr().err
    assert main(["export", "r", "x.pt2", "--truncation", "0.5"]) == 1
    assert "--truncation 0.5: gan has none" in capsys.readouterr().err
    assert main(["sample", "x.onnx", "--engine", "torch"]) == 1
    assert main(["sample", "x.onnx", "--mix", "3"]) == 1 and "does not take" in capsys.readouterr().err


def test_onnx_of_others(tmp_path):
    torch.onnx.export(torch.nn.ReLU().eval(), (torch.randn(2),), tmp_path / "other.onnx", verbose=False)
    with pytest.raises(BadFile, match="not written by fastgan export"):
        export.load(tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07nothing")
    with pytest.raises(BadFile, match="cannot be read by onnxruntime"):
        export.load(tmp_path / "broken.onnx")


@pytest.mark.slow
def test_a_converted_file(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    options = dict(resolution=8, channel_base=16, z_dim=4, w_dim=4, num_fp16_res=2, mapping_layers=1)
    network = models.build("stylegan2.generator", **options)
    save_file(network.state_dict(), tmp_path / "plain.safetensors")
    file = convert.convert(tmp_path / "plain.safetensors", tmp_path / "g.safetensors")
    export.to_onnx(file, tmp_path / "x.onnx")
    recipe, networks = convert.load(file)
    exported, engines = export.load(tmp_path / "x.onnx")
    expected = recipe.sample(networks, [3, 4, 5])
    assert (exported.sample(engines, [3, 4, 5]) - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
