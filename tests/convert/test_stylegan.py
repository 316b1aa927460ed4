"""StyleGAN checkpoints of other projects, end to end: convert, then sample, with the same pictures as the network they hold."""

import math

import pytest
import torch
from PIL import Image
from snapshot import by_reference, persistent, randomise, stand_ins, write_snapshot
from tolerances import assert_close

from fastgan import convert
from fastgan.cli import main
from fastgan.models import stylegan2, stylegan3

SIZES = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, channel_base=128, channel_max=12)
FAMILIES = {
    "stylegan2 skip": (stylegan2, dict(mapping_kwargs={"num_layers": 2})),
    "stylegan2 resnet, classes": (stylegan2, dict(c_dim=3, architecture="resnet", mapping_kwargs={"num_layers": 2})),
    "stylegan3 T": (stylegan3, dict(num_layers=6)),
    "stylegan3 R": (stylegan3, dict(num_layers=6, conv_kernel=1, use_radial_filters=True)),
}


def network(name):
    module, options = FAMILIES[name]
    arguments = SIZES | options
    torch.manual_seed(0)
    made = module.Generator.from_reference(**arguments).eval()
    with torch.no_grad():
        made.mapping.w_avg.normal_()
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made, arguments


def pictures(made, recipe, seeds, psi=1.0):
    labels = recipe.labels(seeds)
    c = None if labels is None else torch.nn.functional.one_hot(labels, made.c_dim).float()
    with torch.no_grad():
        return made(recipe.latents(seeds), c, truncation_psi=psi, noise_mode="const")


@pytest.mark.parametrize("name", FAMILIES)
def test_snapshot(name, tmp_path, monkeypatch):
    stand_ins(monkeypatch)
    made, arguments = network(name)
    source = write_snapshot(tmp_path / "network-snapshot-000001.pkl", G_ema=persistent(made, **arguments))
    recipe, networks = convert.load(convert.convert(source, tmp_path / "g.safetensors"))
    for psi in (1.0, 0.5):
        labels = recipe.labels([1, 5])
        assert torch.equal(
            recipe.generate(networks, recipe.latents([1, 5]), labels, psi), pictures(made, recipe, [1, 5], psi)
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_state_dict_tells_the_arguments(name, tmp_path):
    made, _ = network(name)
    torch.save(made.state_dict(), tmp_path / "g.pt")
    recipe, networks = convert.load(convert.convert(tmp_path / "g.pt", tmp_path / "g.safetensors"))
    assert torch.equal(recipe.sample(networks, [2, 3]), pictures(made, recipe, [2, 3]))


@pytest.mark.parametrize("name", ["stylegan2 skip", "stylegan3 T"])
def test_command_line(name, tmp_path, monkeypatch, capsys):
    stand_ins(monkeypatch)
    made, arguments = network(name)
    source = write_snapshot(tmp_path / "s.pkl", G_ema=persistent(made, **arguments))
    out = str(tmp_path / "g.safetensors")
    assert main(["convert", str(source), out]) == 0
    assert main(["sample", out, "--seeds", "0-3", "--truncation", "0.7"]) == 0
    assert main(["sample", out, "--seeds", "0,1", "--mix", "4-6", "--mix-layers", "0-2"]) == 0
    assert main(["sample", out, "--seeds", "0,1", "--interpolate", "3"]) == 0
    printed = capsys.readouterr().out.split()
    table, walk = Image.open(printed[-2]), Image.open(printed[-1])
    assert table.size[0] > table.size[1] and walk.n_frames == 6  # 3 + 1 columns, 2 + 1 rows
    assert main(["sample", out, "--mix", "1", "--mix-layers", "0-99"]) == 1
    assert "this generator has layers 0 to" in capsys.readouterr().err


def rosinality(made) -> dict[str, torch.Tensor]:
    """The state_dict of the rosinality layout that describes the same function, written from its documented layer list."""
    ours, state = made.state_dict(), {}
    for name, tensor in ours.items():
        if name.startswith("mapping.fc"):
            index, part = name.removeprefix("mapping.fc").split(".")
            state[f"style.{int(index) + 1}.{part}"] = tensor
    state["input.input"] = ours["synthesis.b4.const"][None]

    def modulated(source, target):
        state[f"{target}.conv.weight"] = ours[f"{source}.weight"][None]
        for part in ("weight", "bias"):
            state[f"{target}.conv.modulation.{part}"] = ours[f"{source}.affine.{part}"]

    def layer(source, target, index):
        modulated(source, target)
        state[f"{target}.conv.weight"] = ours[f"{source}.weight"][None] * math.sqrt(ours[f"{source}.weight"][0].numel())
        state[f"{target}.noise.weight"] = ours[f"{source}.noise_strength"].reshape(1)
        state[f"{target}.activate.bias"] = ours[f"{source}.bias"]
        state[f"noises.noise_{index}"] = ours[f"{source}.noise_const"][None, None]

    def to_rgb(source, target):
        modulated(source, target)
        state[f"{target}.bias"] = ours[f"{source}.bias"].reshape(1, 3, 1, 1)

    layer("synthesis.b4.conv1", "conv1", 0)
    to_rgb("synthesis.b4.torgb", "to_rgb1")
    for i, r in enumerate((8, 16)):
        layer(f"synthesis.b{r}.conv0", f"convs.{2 * i}", 2 * i + 1)
        layer(f"synthesis.b{r}.conv1", f"convs.{2 * i + 1}", 2 * i + 2)
        to_rgb(f"synthesis.b{r}.torgb", f"to_rgbs.{i}")
    return state


@pytest.mark.parametrize("average", [True, False])
def test_rosinality(average, tmp_path):
    """Written from the layout's names alone; not run on that project's own files."""
    made, _ = network("stylegan2 skip")
    beside = {"latent_avg": made.mapping.w_avg.clone()} if average else {}
    torch.save({"g_ema": rosinality(made), **beside}, tmp_path / "g.pt")
    recipe, networks = convert.load(convert.convert(tmp_path / "g.pt", tmp_path / "g.safetensors"))
    if not average:
        z = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(0))
        made.mapping.w_avg.copy_(made.mapping(z, None)[:, 0].mean(0).detach())
    assert_close(recipe.generate(networks, recipe.latents([4]), None, 0.6), pictures(made, recipe, [4], 0.6), 1e-5)


def test_rosinality_discriminator(tmp_path):
    made = randomise(stylegan2.Discriminator.from_reference(0, 16, 3, channel_base=128, channel_max=12))
    ours, state = made.state_dict(), {}
    names = {"b16.fromrgb.weight": "convs.0.0.weight", "b16.fromrgb.bias": "convs.0.1.bias"}
    for i, r in enumerate((16, 8), 1):
        for layer, weight, bias in (("conv0", "conv1.0", "conv1.1"), ("conv1", "conv2.1", "conv2.2")):
            names |= {
                f"b{r}.{layer}.weight": f"convs.{i}.{weight}.weight",
                f"b{r}.{layer}.bias": f"convs.{i}.{bias}.bias",
            }
        names[f"b{r}.skip.weight"] = f"convs.{i}.skip.1.weight"
    names |= {"b4.conv.weight": "final_conv.0.weight", "b4.conv.bias": "final_conv.1.bias"}
    for part in ("weight", "bias"):
        names |= {f"b4.fc.{part}": f"final_linear.0.{part}", f"b4.out.{part}": f"final_linear.1.{part}"}
    state = {theirs: ours[mine] for mine, theirs in names.items()}
    torch.save({"d": state}, tmp_path / "d.pt")
    found = convert.read(tmp_path / "d.pt", "D").build()
    x = torch.randn(4, 3, 16, 16)
    assert_close(found(x, None), made(x, None), 1e-6)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("noises", [True, False])
def test_rosinality_of_other_ages_and_trainings(noises, prefix, tmp_path):
    """Files from before noise was kept: a fixed pattern of N(0, 1) per layer, the same in each conversion; and DataParallel's."""
    made, _ = network("stylegan2 skip")
    state = {prefix + n: t for n, t in rosinality(made).items() if noises or not n.startswith("noises.")}
    torch.save({"g_ema": state, "latent_avg": made.mapping.w_avg.clone()}, tmp_path / "g.pt")
    found = convert.read(tmp_path / "g.pt").build()
    again = convert.read(tmp_path / "g.pt").build()
    z = torch.randn(2, 8)
    assert torch.equal(found(z, None, noise_mode="const"), again(z, None, noise_mode="const"))
    assert_close(found(z, None, noise_mode="none"), made(z, None, noise_mode="none"), 1e-5)
    patterns = {n: b for n, b in found.named_buffers() if n.endswith("noise_const")}
    if noises:
        assert all(torch.equal(b, made.get_buffer(n)) for n, b in patterns.items())
    else:
        assert [b.shape[0] for b in patterns.values()] == [4, 8, 8, 16, 16]
        assert 0.8 < torch.cat([b.flatten() for b in patterns.values()]).std() < 1.2
    del state[prefix + "conv1.conv.weight"]
    torch.save({"g_ema": state}, tmp_path / "g.pt")
    with pytest.raises(convert.UnknownNetwork, match=r"g\.pt.*conv1\.conv\.weight"):
        convert.read(tmp_path / "g.pt")


@pytest.mark.parametrize("taps", [[1, 2, 1], [1, 1], [1, 3, 3, 2], [1.0] * 10])
def test_other_filters_are_read_off_the_buffers(taps, tmp_path):
    for kind, options in ((stylegan2.Generator, dict(z_dim=8, w_dim=8)), (stylegan2.Discriminator, {})):
        told = (
            dict(resample_filter=taps) if kind is stylegan2.Generator else dict(block_kwargs=dict(resample_filter=taps))
        )
        sizes = dict(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=12)
        made = kind.from_reference(**sizes, **options, **told).eval()
        torch.save(made.state_dict(), tmp_path / "f.pt")
        found = convert.read(tmp_path / "f.pt").build()
        assert len(found.config.resample_filter) == len(taps)
        assert all(torch.equal(t, found.state_dict()[n]) for n, t in made.state_dict().items())
        x, how = torch.randn(4, 3, 16, 16), {}
        if kind is stylegan2.Generator:
            x, how = torch.randn(2, 8), {"noise_mode": "const"}
        with torch.no_grad():
            assert torch.equal(found(x, None, **how), made(x, None, **how))


def test_other_kernels_and_no_noise_are_read_off_too(tmp_path):
    made = stylegan2.Generator.from_reference(**SIZES, kernel_size=5, use_noise=False).eval()
    torch.save(made.state_dict(), tmp_path / "k.pt")
    found = convert.read(tmp_path / "k.pt").build()
    z = torch.randn(2, 8)
    with torch.no_grad():
        assert torch.equal(found(z, None), made(z, None))


class Larger(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.renderer, self.backbone = torch.nn.Linear(2, 2), backbone


def test_a_generator_that_is_part_of_a_larger_network(tmp_path, monkeypatch, capsys):
    """As EG3D's, whose planes of features have 96 channels."""
    stand_ins(monkeypatch)
    arguments = SIZES | dict(c_dim=25, img_channels=96, mapping_kwargs={"num_layers": 2})
    made = stylegan2.Generator.from_reference(**arguments).eval()
    whole = by_reference(Larger(made), monkeypatch)
    whole._modules["backbone"] = persistent(made, **arguments)
    source = write_snapshot(tmp_path / "s.pkl", G_ema=whole)
    out = convert.convert(source, tmp_path / "g.safetensors")
    assert "only part 'backbone'" in capsys.readouterr().err
    converted = convert.load(out)[1]["generator"]
    z, camera = torch.randn(2, 8), torch.randn(2, 25)
    assert_close(converted(z, camera, noise_mode="const"), made(z, camera, noise_mode="const").detach())


@pytest.mark.parametrize("more", [{}, {"another_argument": 1}], ids=["tensors", "arguments"])
def test_a_relative_with_other_parts_is_refused(more, tmp_path, monkeypatch):
    """StyleGAN3's names with a part or an argument that it does not have, as networks have that were made of its code."""
    stand_ins(monkeypatch)
    made, arguments = network("stylegan3 T")
    made.mapping.another_part = torch.nn.Linear(3, 8)
    source = write_snapshot(tmp_path / "s.pkl", G_ema=persistent(made, **arguments, **more))
    out = tmp_path / "g.safetensors"
    with pytest.raises(convert.UnknownNetwork, match="another_argument" if more else r"mapping\.another_part\.\w+"):
        convert.convert(source, out)
    assert not out.exists()
