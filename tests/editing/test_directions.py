"""Directions by components of latents and by weights: what is known of them by construction is found."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from fastgan import editing
from fastgan.editing import Directions, Latents
from fastgan.editing.directions import _weights
from fastgan.untrusted import BadFile

NAMES = ("gan", "stylegan2", "r3gan", "classes w", "classes z")


@pytest.mark.parametrize("method", ["pca", "sefa"])
@pytest.mark.parametrize("name", NAMES)
def test_unit_vectors_in_order(editor, name, method, tmp_path):
    made = editor(name)
    found = editing.find_directions(made, method, 3, samples=200)
    assert found.vectors.shape == (3, 4) and torch.allclose(found.vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert (found.explained.diff() <= 0).all() and 0 < found.explained.sum() <= 1 + 1e-6
    if made.space == "w" or method == "sefa":
        assert (found.vectors @ found.vectors.t() - torch.eye(3)).abs().max() < 1e-5
    again = Directions.load(found.save(tmp_path / "d"))
    assert torch.equal(again.vectors, found.vectors) and (again.method, again.space) == (method, made.space)
    same = editing.find_directions(made, method, 3, samples=200)
    assert torch.equal(same.vectors, found.vectors)


def test_components_of_w_are_those_of_its_draws(editor):
    made = editor("stylegan2")
    found = editing.find_directions(made, "pca", 4, samples=500, seed=2)
    z = torch.randn(0)
    source = torch.Generator().manual_seed(2)
    z = torch.cat([torch.randn(min(64, 500 - i), 4, generator=source) for i in range(0, 500, 64)])
    w = made.styles(z)[:, 0]
    _, singular, vectors = torch.linalg.svd((w - w.mean(0)).double(), full_matrices=False)
    assert ((found.vectors.double() * vectors).sum(1).abs() - 1).abs().max() < 1e-4
    assert torch.allclose(found.explained.double(), singular.square() / singular.square().sum(), atol=1e-5)
    assert torch.allclose(
        found.deviations.double(), (w - w.mean(0)).double().mul(1).matmul(vectors.t()).std(0), atol=1e-5
    )


def test_weights_that_answer_to_one_direction(editor, folder):
    made = editing.load(folder("stylegan2"))
    n = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5, 1.0]), dim=0)
    for module in made.generator.synthesis.modules():
        if hasattr(module, "affine"):
            module.affine.weight.mul_(0.01).add_(torch.randn(len(module.affine.weight), 1) * n)
    found = editing.find_directions(made, "sefa", 2, samples=50)
    assert abs(float(found.vectors[0] @ n)) > 0.99 and found.explained[0] > 0.95


def test_each_layer_has_its_own_weights(editor):
    made = editor("stylegan2")
    synthesis = made.generator.synthesis
    for layer, parts in ((0, ["b4.conv1"]), (1, ["b4.torgb", "b8.conv0"]), (5, ["b16.torgb"])):
        expected = torch.cat([synthesis.get_submodule(part).affine.weight for part in parts])
        assert torch.equal(_weights(made, [layer]), expected)
    assert len(_weights(made, None)) == sum(len(_weights(made, [i])) for i in range(made.layers))


def test_sefa_without_styles_takes_what_z_meets_first(editor):
    made = editor("classes z")
    weight = made.generator.MainLayers[0].Layers[0].LinearLayer.weight
    assert weight.shape[1] > 4 and torch.equal(_weights(made, None), weight[:, :4])


def test_moved(editor):
    made = editor("stylegan2")
    found = editing.find_directions(made, "pca", 2, samples=100, layers=[1, 3])
    start = made.latents([3, 4])
    moved = found.moved(start, 1, torch.tensor([2.0, -1.0]))
    change = moved.values - start.values
    assert (change[:, [0, 2, 4, 5]] == 0).all()
    expected = torch.tensor([2.0, -1.0])[:, None] * found.vectors[1] * found.deviations[1]
    assert torch.allclose(change[:, 1], expected, atol=1e-6) and torch.allclose(change[:, 3], expected, atol=1e-6)
    pictures, columns = editing.strip(made, found, 0, start, [-2, 0, 2])
    assert columns == 3 and pictures.shape == (6, 1, 16, 16)
    assert (pictures[[1, 4]] - made.images(start)).abs().max() < 1e-5


def test_components_of_pictures_lead_back_to_what_changes_them(editor, folder):
    """A z of which one axis alone is seen."""
    made = editing.load(folder("gan"))
    made.generator.down[0].weight[:, [0, 1, 3]] *= 1e-3
    made.generator.down[0].weight[:, 2] *= 4
    found = editing.find_directions(made, "pca", 1, samples=400)
    assert abs(float(found.vectors[0, 2])) > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(method="ica"), "method is 'ica', expected 'pca' or 'sefa'"),
        (dict(count=5), "count is 5, expected 1 to 4, the dimensions of w"),
        (dict(count=0), "count is 0"),
        (dict(samples=4), "samples is 4, expected more than 4"),
        (dict(layers=[6]), r"layers is \[6\], expected some of the layers that there are: 0 to 5"),
        (dict(layers=[]), r"layers is \[\]"),
    ],
)
def test_what_cannot_be_found(editor, options, message):
    with pytest.raises(ValueError, match=message):
        editing.find_directions(editor("stylegan2"), **{"count": 2, "samples": 50} | options)


def _seen(made, method):
    """The network with an axis or two of w, weights or pictures left."""
    axes = torch.tensor([1.0, 0, 1, 0])
    generator = made.generator
    if (made.space, method) == ("z", "pca"):
        generator.inverse[-1].weight[2:] = 0  # of all pixels two vary
    elif made.space == "z":
        generator.down[0].weight.mul_(axes)
    elif method == "pca":
        getattr(generator.mapping, f"fc{generator.mapping.num_layers - 1}").weight.mul_(axes[:, None])
    else:
        for module in generator.synthesis.modules():
            if hasattr(module, "affine"):
                module.affine.weight.mul_(axes)
    return made


@pytest.mark.parametrize("method", ["pca", "sefa"])
@pytest.mark.parametrize("name", ["gan", "stylegan2"])
def test_fewer_directions_than_asked_for_are_told(folder, name, method):
    """More would be axes of no effect in any order."""
    made = _seen(editing.load(folder(name)), method)
    found = editing.find_directions(made, method, samples=200)
    assert len(found) == 2 and (found.vectors.norm(dim=1) - 1).abs().max() < 1e-5
    with pytest.raises(ValueError, match=r"count is 3, and 2 directions of . change anything: expected at most 2"):
        editing.find_directions(made, method, 3, samples=200)
    for weight in made.generator.parameters():
        weight.zero_()
    with pytest.raises(ValueError, match=r"0 directions of . change anything$"):
        editing.find_directions(made, method, samples=200)


def test_what_cannot_be_moved(editor):
    found = editing.find_directions(editor("gan"), "pca", 2, samples=50)
    with pytest.raises(ValueError, match="direction is 2, expected 0 to 1"):
        found.moved(editor("gan").latents([0]), 2, 1.0)
    with pytest.raises(ValueError, match="of 4 numbers in z, the latents of 4 in w"):
        found.moved(editor("stylegan2").latents([0]), 0, 1.0)
    for strength in ([1.0, 2.0], float("nan"), torch.ones(1, 1)):
        with pytest.raises(ValueError, match=r"strength is .*, expected a finite number, or 3 of them"):
            found.moved(editor("gan").latents(range(3)), 0, strength)
    with pytest.raises(ValueError, match="strengths is empty"):
        editing.strip(editor("gan"), found, 0, editor("gan").latents([0]), [])
    styles = editing.find_directions(editor("stylegan2"), "sefa", 1, samples=50)
    for layers in ((99,), (-1,)):
        with pytest.raises(ValueError, match=r"and the latents have 0 to \d+: they are another generator's"):
            dataclasses.replace(styles, layers=layers).moved(editor("stylegan2").latents([0]), 0, 1.0)
    with pytest.raises(ValueError, match="none, as there are no styles"):
        editing.find_directions(editor("gan"), "sefa", 1, 50, layers=[0])


def test_files_that_hold_no_directions(tmp_path):
    Latents(torch.zeros(1, 4), "z").save(tmp_path / "l.safetensors")
    good = dict(vectors=torch.zeros(2, 4), deviations=torch.zeros(2), explained=torch.zeros(2))
    about = '{"method": "pca", "space": "w", "layers": null}'
    bad = {
        "a": (good, '{"method": "x", "space": "w"}', "method"),
        "b": (good | {"explained": torch.zeros(3)}, about, r"are \[\[2, 4\], \[2\], \[3\]\]"),
        "c": ({"vectors": torch.zeros(2, 4)}, about, "None"),
        "d": (good, "[1]", "expected an object"),
        "e": ({name: t[:0] for name, t in good.items()}, about, r"are \[\[0, 4\], \[0\], \[0\]\]"),
    }
    for name, (tensors, text, _) in bad.items():
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata={"fastgan": "directions", "about": text})
    said = {"l": "holds no directions"} | {name: expected for name, (_, _, expected) in bad.items()}
    for name, message in said.items():
        with pytest.raises(BadFile, match=f"{name}.safetensors.*{message}"):
            Directions.load(tmp_path / f"{name}.safetensors")
