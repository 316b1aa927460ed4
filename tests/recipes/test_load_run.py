"""Reading run folders: older checkpoints, and folders that are damaged or made to harm."""

import json
import time

import pytest
import torch
from saved_runs import IMAGES, SMALL, write_run

from fastgan import recipes
from fastgan.cli import main
from fastgan.training import CheckpointError
from fastgan.training.checkpoint import MANIFEST, TENSORS, load_checkpoint, write_checkpoint


def changed(folder, path: str, value) -> None:
    """config.json with one entry, "config.latent" for example, set or removed (...); its checksum left out."""
    file = folder / "config.json"
    saved = json.loads(file.read_text())
    saved.pop("sha256", None)
    *parents, last = path.split(".")
    at = saved
    for name in parents:
        at = at[name]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    file.write_text(json.dumps(saved))


@pytest.mark.parametrize("name", SMALL)
def test_any_checkpoint_of_a_run(name, tmp_path):
    folder = write_run(tmp_path / "run", name)
    newest = recipes.load_run(folder)[1]
    older = recipes.load_run(folder / "checkpoints" / "step-00000001")[1]
    averaged = next(iter(newest))
    assert recipes.load_run(folder / "checkpoints")[1].keys() == newest.keys()
    for path, networks in (("step-00000001", older), ("step-00000002", newest)):
        saved = load_checkpoint(folder / "checkpoints" / path).under(f"ema/{averaged}/")
        for key, value in networks[averaged].state_dict().items():
            assert torch.equal(value, saved[key])


def test_a_run_from_before_an_option_is_as_it_was(tmp_path):
    """dcgan took its penalties in every step until `penalty_interval` came, whose default is 4."""
    small = dict(width=2, max_width=4, latent=4)
    folder = write_run(tmp_path / "run", "dcgan", options=(small, IMAGES | {"resolution": 32}))
    changed(folder, "config.penalty_interval", ...)
    assert recipes.get("dcgan").Config().penalty_interval == 4
    assert recipes.load_run(folder)[0].config.penalty_interval == 1


def test_an_older_checkpoint_on_the_command_line(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    older = folder / "checkpoints" / "step-00000001"
    assert main(["sample", str(older), "--seeds", "0-3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "samples" / "step-00000001-seeds-0-3.png")
    assert sorted(p.name for p in older.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert main(["sample", str(older / "tensors.safetensors")]) == 1
    assert f"name its folder, {older}" in capsys.readouterr().err
    alone = tmp_path / "step-00000001"
    older.rename(alone)
    assert main(["sample", str(alone)]) == 1
    assert "is no run folder" in capsys.readouterr().err


WRONG = [
    ("gan", "config.latent", 10**6),
    ("gan", "config.latent", 2**70),
    ("gan", "config.latent", -1),
    ("gan", "config.latent", "64"),
    ("gan", "config.latent", 5),
    ("gan", "config.latent", float("nan")),
    ("gan", "config.units", [4]),
    ("gan", "config.units", [10**6, 10**6]),
    ("gan", "config.loss", "__import__"),
    ("gan", "config.unheard", 1),
    ("gan", "config", []),
    ("gan", "config", ...),
    ("gan", "recipe", ...),
    ("gan", "recipe", "dcgna"),
    ("gan", "recipe", ["gan"] * 10**5),
    ("gan", "data", None),
    ("gan", "data.resolution", ...),
    ("gan", "data.resolution", 2**20),
    ("gan", "data.resolution", True),
    ("gan", "data.resolution", 0),
    ("gan", "data.channels", "3"),
    ("gan", "run.samples", "many"),
    ("gan", "run", 5),
    ("stylegan2", "data.resolution", 2**20),
    ("stylegan2", "data.resolution", 12),
    ("stylegan2", "config.mapping_layers", 10**9),
    ("stylegan2", "config.width", 10**9),
    ("stylegan2", "config.max_width", 10**5),
    ("r3gan", "config.blocks", 10**6),
    ("r3gan", "config.lr", [1e-3]),
    ("r3gan", "config.group_width", 0),
    ("pix2pix", "config.layers", 10**6),
    ("pix2pix", "data.channels", 10**6),
    ("mle", "config.hidden", 10**7),
    ("mle", "data.length", 2**40),
    ("mle", "data.vocabulary_size", 10**9),
    ("mle", "data.vocabulary", {"level": "word", "tokens": 5}),
    ("mle", "data.vocabulary", {"level": "word", "tokens": ["u"]}),
    ("mle", "data.vocabulary", {}),
    ("mle", "data.pad", "x"),
]


@pytest.mark.parametrize(("name", "path", "value"), WRONG, ids=lambda v: str(v)[:30])
def test_a_wrong_option_is_named(name, path, value, tmp_path, capsys):
    folder = write_run(tmp_path / "run", name, steps=(1,))
    changed(folder, path, value)
    began = time.process_time()
    with pytest.raises((CheckpointError, ValueError), match=r"config\.json|step-00000001") as caught:
        recipes.load_run(folder)
    assert time.process_time() - began < 10
    assert len(str(caught.value)) < 1500
    assert main(["sample", str(folder)]) == 1
    assert "traceback" not in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "[" * 10**5, '{"a":' * 10**5, '{"recipe": ' + "9" * 10**4 + "}", "\x00", "\ud800"],
    ids=lambda v: v[:8],
)
@pytest.mark.parametrize(
    "name", ["config.json", "checkpoints/step-00000001/state.json", f"checkpoints/step-00000001/{MANIFEST}"]
)
def test_files_that_are_no_json(content, name, tmp_path):
    folder = write_run(tmp_path / "run", steps=(1,))
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"config\.json|no whole checkpoint"):
        recipes.load_run(folder)


def rewritten(folder, tensors=None, **state) -> None:
    """The only checkpoint with other tensors and state, and a manifest that fits them."""
    found = load_checkpoint(folder)
    held = {name: tensor.clone() for name, tensor in found.tensors.items()}
    write_checkpoint(folder / "checkpoints", found.step, held | (tensors or {}), found.state | state, keep=9)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"network/generator/first.weight": torch.zeros(2, 2)}, "generator"),
        ({"ema/generator/layers.0.weight": torch.zeros(4, 4, dtype=torch.int64)}, "layers"),
        ({"ema/generator/unheard": torch.zeros(1)}, "unheard"),
        ({"network/discriminator/" + "x" * 10**5: torch.zeros(1)}, "has a tensor"),
    ],
)
def test_tensors_that_do_not_fit(tensors, message, tmp_path):
    folder = write_run(tmp_path / "run", steps=(1,))
    rewritten(folder, tensors)
    with pytest.raises(CheckpointError, match=message) as caught:
        recipes.load_run(folder)
    assert len(str(caught.value)) < 1000


def test_files_of_other_kinds(tmp_path):
    import os

    folder = write_run(tmp_path / "run", steps=(1,))
    tensors = folder / "checkpoints" / "step-00000001" / TENSORS
    tensors.unlink()
    os.mkfifo(tensors)
    with pytest.raises(CheckpointError, match="no ordinary file"):
        recipes.load_run(folder)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(CheckpointError, match="no ordinary file"):
        recipes.load_run(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="a folder"):
        recipes.load_run(folder)


def test_each_flipped_bit_of_config_is_found(tmp_path):
    folder = write_run(tmp_path / "run", steps=(1,))
    file = folder / "config.json"
    content = file.read_bytes()
    before = recipes.read_run(folder)
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 7
        file.write_bytes(damaged)
        try:
            after = recipes.read_run(folder)
        except (CheckpointError, ValueError):
            continue
        assert after == before, f"byte {at}: {damaged[at - 20 : at + 20]}"
