"""Every image recipe, and every kind of network that makes images of images, exported and drawn from in another runtime: the same
samples as the recipe's own, at sizes of batch and image that the exporter did not see."""

import json

import onnxruntime
import pytest
import torch

from fastgan import export, models, recipes
from fastgan.convert.converted import IMAGE_TO_IMAGE

IMAGES = dict(name="x", resolution=8, channels=3, num_classes=3, class_names=["a", "b", "c"])
PAIR = dict(name="x", resolution=32, channels=3, num_classes=0)
STYLES = dict(width=2, max_width=4, latent=4, augment="none")
SMALL = {
    "gan": (dict(units=(4, 4), latent=4), IMAGES),
    "dcgan": (dict(width=2, max_width=4, latent=4, conditional=True), IMAGES | {"resolution": (32, 48)}),
    "wgan-gp": (dict(width=4, latent=4), IMAGES),
    "sngan": (dict(width=8, latent=8, conditional=True), IMAGES),
    "fastgan": (dict(width=4, max_width=8, latent=4), IMAGES | {"resolution": 32}),
    "r3gan": (dict(width=4, max_width=4, group_width=2, latent=4, conditional=True), IMAGES),
    "stylegan2": (dict(STYLES, conditional=True), IMAGES),
    "stylegan3": (STYLES, IMAGES | {"resolution": 16}),
    "cyclegan": (dict(width=2, layers=0, blocks=1), PAIR),
    "pix2pix": (dict(width=1, layers=0), PAIR),
    "realesrgan": (dict(scale=2, width=2, blocks=1, disc_width=2, perceptual=0.0), PAIR),
}
QUICK = ("gan", "dcgan", "cyclegan")


def cases(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def untrained(name):
    """(recipe, networks) with weights of which each output depends visibly on its input."""
    kind = recipes.get(name)
    options, data = SMALL[name]
    torch.manual_seed(0)
    recipe = kind(kind.Config(**options), dict(data))
    networks = {n: recipe.networks[n].eval().requires_grad_(False) for n in recipe.averaged}
    for network in networks.values():
        for n, p in [*network.named_parameters(), *network.named_buffers()]:
            if n.endswith(("noise_strength", "w_avg")):
                p.data.normal_()
    return recipe, networks


def images(recipe, count, height, width):
    return torch.rand(count, recipe.data["channels"], height, width, generator=torch.Generator().manual_seed(9)) * 2 - 1


def close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * max(1, expected.abs().max())


def check(recipe, networks, exported, engines):
    """One batch size and image size that were neither traced nor verified."""
    with torch.no_grad():
        if hasattr(recipe, "upscale") or hasattr(recipe, "translate"):
            step = max(getattr(next(iter(networks.values())), "multiple", getattr(recipe, "multiple", 4)), 8)
            x = images(recipe, 1, 4 * step, 3 * step)
            how = (
                (lambda r, n: r.upscale(n, x)) if hasattr(recipe, "upscale") else lambda r, n: r.translate(n, x, "AtoB")
            )
            return close(how(exported, engines), how(recipe, networks))
        seeds = [7, 1, 4, 5]
        close(exported.sample(engines, seeds), recipe.sample(networks, seeds))
        close(exported.sample(engines, [6]), recipe.sample(networks, [6]))
        if "truncation" in recipe.sample_options:
            arguments = recipe.latents(seeds), recipe.labels(seeds), 0.6
            close(exported.generate(engines, *arguments), recipe.generate(networks, *arguments))


@pytest.mark.parametrize("name", cases(SMALL))
def test_onnx(name, tmp_path):
    recipe, networks = untrained(name)
    assert export.to_onnx((recipe, networks), tmp_path / "x.onnx") < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["fastgan"])
    size = recipe.data["resolution"]
    assert facts["recipe"] == name and facts["value_range"] == [-1, 1]
    assert facts["resolution"] == (list(size) if isinstance(size, tuple) else size)
    assert all(isinstance(i.shape[0], str) for i in session.get_inputs() if i.shape), "the batch is not free"
    check(recipe, networks, *export.load(tmp_path / "x.onnx"))


def test_every_image_recipe_is_here():
    image = {name for name in recipes.OURS if recipes.get(name).medium.name == "image"}
    assert image <= set(SMALL), image - set(SMALL)


UPSCALERS = {
    "esrgan.generator": dict(scale=2, width=4, blocks=1, growth=4),
    "esrgan.compact": dict(scale=2, width=4, convolutions=1),
}


@pytest.mark.parametrize("name", [pytest.param("esrgan.generator", marks=pytest.mark.slow), "esrgan.compact"])
def test_upscalers_take_any_size(name, tmp_path):
    torch.manual_seed(0)
    network = models.build(name, **UPSCALERS[name]).eval()
    export.to_onnx(network, tmp_path / "x.onnx")
    recipe = IMAGE_TO_IMAGE[name](name, network)
    exported, engines = export.load(tmp_path / "x.onnx")
    assert exported.scale == 2 and exported.multiple == recipe.multiple
    check(recipe, {"generator": network}, exported, engines)


@pytest.mark.slow
def test_openvino_draws_the_same(tmp_path):
    recipe, networks = untrained("dcgan")
    export.to_openvino((recipe, networks), tmp_path / "x.xml")
    assert {path.name for path in tmp_path.iterdir()} == {"x.xml", "x.bin"}
    (tmp_path / "y.bin").write_text("somebody's")
    with pytest.raises(FileExistsError, match=r"y\.bin is there, and would be replaced with .*y\.xml"):
        export.to_openvino((recipe, networks), tmp_path / "y.xml")
    assert {path.name for path in tmp_path.iterdir()} == {"x.xml", "x.bin", "y.bin"}
    export.to_onnx((recipe, networks), tmp_path / "x.onnx")
    check(recipe, networks, *export.load(tmp_path / "x.onnx", "openvino"))


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".aoti.pt2", marks=pytest.mark.slow)])
def test_torchs_own_formats(suffix, tmp_path):
    recipe, networks = untrained("gan")
    out = tmp_path / f"x{suffix}"
    assert export.export((recipe, networks), out) < 1e-4
    z = recipe.latents([1, 2, 3, 4, 5])
    run, about = (export.engines.aotinductor if "aoti" in suffix else export.engines.pt2)(out)
    close(run({"latents": z}), recipe.sample(networks, [1, 2, 3, 4, 5]))
    assert json.loads(about)["latent_shape"] == [4]


@pytest.mark.slow
def test_what_is_fixed_is_no_input(tmp_path):
    recipe, networks = untrained("stylegan2")
    fixed = dict(truncation=0.6, class_label=2)
    export.to_onnx((recipe, networks), tmp_path / "x.onnx", noise="input", **fixed)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    latents, noise = session.get_inputs()
    assert (latents.name, noise.name, noise.shape[1]) == ("latents", "noise", 4 * 4 + 2 * 8 * 8)
    z, c = recipe.latents([3, 4]), torch.nn.functional.one_hot(torch.tensor([2, 2]), 3).float()
    for pattern, mode in (("none", "none"), ("const", "const")):
        layers = [b.flatten() for n, b in networks["generator"].named_buffers() if n.endswith("noise_const")]
        numbers = torch.cat(layers).expand(2, -1) * (pattern == "const")
        (found,) = session.run(None, {"latents": z.numpy(), "noise": numbers.numpy()})
        close(torch.from_numpy(found), networks["generator"](z, c, truncation_psi=0.6, noise_mode=mode))
