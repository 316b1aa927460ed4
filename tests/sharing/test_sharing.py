"""Sharing: a folder, and a hub that answers on this machine."""

import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from hub_stub import serving
from safetensors.torch import load_file, save_file
from saved_runs import SMALL, write_run

import fastgan
from fastgan import convert, models, recipes, sharing
from fastgan.cli import main
from fastgan.explore import Explored
from fastgan.sampling import load_generator
from fastgan.sharing.folder import CARD, CONFIG, FILES, new_folder
from fastgan.training.packed import PACKED
from fastgan.training.recipe import draw
from fastgan.untrusted import BadFile


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    for name in SMALL:
        write_run(folder / name, name)
    return folder


@pytest.fixture(scope="module")
def shared(runs):
    return sharing.write(runs / "stylegan2", runs / "shared", license="mit")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as found:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, found.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.chdir(tmp_path)
        yield found


def run(capsys, *argv) -> str:
    code = main([str(word) for word in argv])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def refused(capsys, *argv) -> str:
    assert main([str(word) for word in argv]) == 1
    return capsys.readouterr().err


def tree(folder) -> dict:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def same(first, second) -> None:
    assert first.keys() == second.keys()
    for name, network in first.items():
        mine, theirs = network.state_dict(), second[name].state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", SMALL)
def test_a_run_is_the_same_as_a_folder(name, runs, tmp_path):
    out = sharing.write(runs / name, tmp_path / "x" / name, license="apache-2.0")
    made, networks = recipes.load_run(runs / name)
    again, loaded = sharing.load(out)
    same(networks, loaded)
    assert again.config == made.config and again.data == made.data
    first, second = draw(made, networks, [3, 4]), draw(again, loaded, [3, 4])
    assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    shown = "samples.txt" if name == "mle" else "samples.png"
    assert {path.name for path in out.iterdir()} == {CONFIG, CARD, PACKED, shown}
    head = yaml.safe_load((out / CARD).read_text().split("---\n")[1])
    assert head["library_name"] == "fastgan" and head["license"] == "apache-2.0" and name in head["tags"]
    assert head["pipeline_tag"] == {"mle": "text-generation", "pix2pix": "image-to-image"}.get(
        name, "unconditional-image-generation"
    )


def test_a_checkpoint_and_a_converted_file(runs, tmp_path):
    first = runs / "gan" / "checkpoints" / "step-00000001"
    same(recipes.load_run(first)[1], sharing.load(sharing.write(first, tmp_path / "one", license="mit"))[1])
    with pytest.raises(AssertionError):  # the steps differ
        same(recipes.load_run(runs / "gan")[1], sharing.load(tmp_path / "one")[1])
    generator = recipes.load_run(runs / "r3gan")[1]["generator"]
    options = {"WidthPerStage": [4, 4], "CardinalityPerStage": [2, 2], "BlocksPerStage": [2, 2], "ExpansionFactor": 2}
    net = models.r3gan.Generator.from_reference(NoiseDimension=4, **options).eval()
    del generator
    save_file(net.state_dict(), tmp_path / "plain.safetensors")
    file = convert.convert(
        tmp_path / "plain.safetensors", tmp_path / "g.safetensors", arguments={"NoiseDimension": 4, **options}
    )
    out = sharing.write(file, tmp_path / "two", license="cc-by-4.0")
    same(convert.load(file)[1], sharing.load(out)[1])
    assert isinstance(models.r3gan.Generator.from_pretrained(out), models.r3gan.Generator)


def test_from_pretrained(shared, runs):
    found = models.stylegan2.Generator.from_pretrained(shared)
    same({"g": recipes.load_run(runs / "stylegan2")[1]["generator"]}, {"g": found})
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    with pytest.raises(
        ValueError, match=r"holds fastgan.models.stylegan2.Generator, no fastgan.models.dcgan.Generator"
    ):
        models.dcgan.Generator.from_pretrained(shared)
    with pytest.raises(ValueError, match="neither a folder nor a user/name"):
        models.dcgan.Generator.from_pretrained("./nothing")


def test_figures_are_those_of_the_step(runs, tmp_path):
    folder = shutil.copytree(runs / "gan", tmp_path / "gan")
    figures = {"samples": 50, "step": 2, "notes": ["a note"], "features": {"extractor": "efflite0", "real": 99}}
    figures["gan"] = {"fd_efflite0": 12.5, "kid_efflite0": 0.25}
    (folder / "metrics.json").write_text(json.dumps(figures))
    text = (sharing.write(folder, tmp_path / "a", license="mit", name="me/mine") / CARD).read_text()
    assert "| fd_efflite0 | 12.5000 | lower |" in text and "50 samples" in text and "a note" in text
    assert "Features: extractor efflite0, real 99." in text and "| figure | gan | better |" in text
    assert "fastgan pull me/mine" in text
    cards = pytest.importorskip("huggingface_hub").ModelCard(text)
    assert [(r.metric_type, r.metric_value) for r in cards.data.eval_results] == list(figures["gan"].items())
    (folder / "metrics.json").write_text(json.dumps(figures | {"step": 1}))
    assert "fd_efflite0" not in (sharing.write(folder, tmp_path / "b", license="mit") / CARD).read_text()


def test_figures_say_what_they_were_measured_against(runs, tmp_path):
    folder = shutil.copytree(runs / "gan", tmp_path / "gan")
    figures = {"samples": {"AtoB": 7, "BtoA": 9}, "step": 2, "data": ["/home/me/others"], "gan": {"fd_efflite0": 12.5}}
    (folder / "metrics.json").write_text(json.dumps(figures))
    head, _, text = (sharing.write(folder, tmp_path / "a", license="mit") / CARD).read_text()[4:].partition("\n---\n")
    assert "`fastgan eval` on 7 (AtoB), 9 (BtoA) samples, against others." in text and "/home/me" not in text
    assert yaml.safe_load(head)["model-index"][0]["results"][0]["dataset"]["name"] == "others"


def test_a_run_that_is_trained_meanwhile_is_shared_as_it_was(runs, tmp_path, monkeypatch, capfd):
    folder = shutil.copytree(runs / "gan", tmp_path / "gan")
    load = fastgan.sharing.folder.load_generator

    def meanwhile(*given):
        loaded = load(*given)
        (folder / "checkpoints/step-00000999").mkdir()
        return loaded

    monkeypatch.setattr(fastgan.sharing.folder, "load_generator", meanwhile)
    sharing.write(folder, tmp_path / "out", license="mit")
    assert "step-00000999" not in capfd.readouterr().err  # it was not looked at


@pytest.mark.parametrize("name", ["gan", "pix2pix"])
def test_a_shared_folder_is_measured_and_explored(name, runs, tmp_path, capsys, monkeypatch):
    """As the run that it was made of; where it was trained on is not in it."""
    out = sharing.write(runs / name, tmp_path / "shared", license="mit")
    data = ["emoji:google:base:flags", "emoji:twitter:base:flags"][: 2 if name == "pix2pix" else 1]
    asked = ["--data", *data, "--samples", 8, "--metrics", "kid", "--device", "cpu"]
    run(capsys, "eval", runs / name, *asked, "--out", tmp_path / "own.json")
    run(capsys, "eval", out, *asked)
    figures = [json.loads(path.read_text()) for path in (tmp_path / "own.json", out / "metrics.json")]
    assert figures[0] == figures[1]
    monkeypatch.chdir(tmp_path)
    run(capsys, "eval", out / PACKED, *asked)
    assert json.loads((out / "model-metrics.json").read_text()) == figures[0]
    assert "--data" in refused(capsys, "eval", out, "--samples", 8)
    if name == "gan":
        np.savez(tmp_path / "r.npz", mu=np.zeros(1280), sigma=np.eye(1280))
        run(capsys, "eval", out, "--reference", tmp_path / "r.npz", "--samples", 8, "--metrics", "fd")
    assert Explored.load(out).what == Explored.load(runs / name).what and Explored.load(out).name == "shared"


def test_a_shared_run_on_an_object_is_not_measured_on_the_set_of_its_name(tmp_path, capsys):
    part = fastgan.data.load("emoji:google:base:flags").subset(torch.arange(20))
    small = {"units": (4, 4), "latent": 2, "batch_size": 4, "samples": 2, "steps": 1, "device": "cpu"}
    made = fastgan.run("gan", dataset=part, out=tmp_path / "run", **small)
    assert made.saved.data["name"].startswith("emoji")
    out = sharing.write(made.folder, tmp_path / "shared", license="mit")
    for path in (out, out / PACKED):
        assert "an object of Python: name the data by --data" in refused(capsys, "eval", path, "--samples", 8)
    run(capsys, "eval", out, "--samples", 8, "--metrics", "kid", "--data", "emoji:google:base:flags")


def test_the_data_of_a_pair_and_a_rectangle_are_named(tmp_path):
    options, facts = SMALL["pix2pix"]
    pair = write_run(tmp_path / "pair", "pix2pix", options=(options, facts | {"name": "/home/a/left | right.zip"}))
    said = (sharing.write(pair, tmp_path / "shared", license="mit") / CARD).read_text()
    assert "of fastgan on left | right.zip: images of 32 pixels" in said and "/home" not in said
    assert "fastgan sample here --input FOLDER\n" in said
    options, facts = SMALL["stylegan2"]
    wide = write_run(tmp_path / "wide", "stylegan2", options=(options, facts | {"resolution": (16, 32)}))
    assert "images of 16x32 pixels" in (sharing.write(wide, tmp_path / "s2", license="mit") / CARD).read_text()


def test_figures_that_are_no_numbers_are_left_out(runs, tmp_path):
    """NaN is of older versions' files."""
    folder = shutil.copytree(runs / "gan", tmp_path / "gan")
    figures = {"fd_efflite0": None, "kid_efflite0": float("nan"), "precision_efflite0": 0.5}
    (folder / "metrics.json").write_text(json.dumps({"samples": 50, "step": 2, "gan": figures}))
    head, _, text = (sharing.write(folder, tmp_path / "a", license="mit") / CARD).read_text()[4:].partition("\n---\n")
    found = yaml.safe_load(head)["model-index"][0]["results"][0]["metrics"]
    assert [figure["type"] for figure in found] == ["precision_efflite0"]
    assert "| precision_efflite0 | 0.5000 | higher |" in text and "fd_" not in text and "kid_" not in text


def test_paths_stay_at_home(runs, tmp_path):
    folder = write_run(
        tmp_path / "run", "gan", options=(SMALL["gan"][0], SMALL["gan"][1] | {"name": "/home/me/photos"})
    )
    out = sharing.write(folder, tmp_path / "out", license="mit")
    assert not any(word.encode() in path.read_bytes() for path in out.iterdir() for word in ("/home/me", str(tmp_path)))


@pytest.mark.parametrize("license", [None, "", "my own words", "MIT!", "../x"])
def test_a_refused_push_changes_nothing(license, runs, tmp_path):
    before = tree(runs / "gan")
    with pytest.raises(ValueError, match="license is"):
        sharing.write(runs / "gan", tmp_path / "a" / "b", license=license)
    assert not (tmp_path / "a").exists() and tree(runs / "gan") == before


def test_a_failed_write_leaves_what_others_put_beside_it(tmp_path):
    """And says why it failed itself."""
    with pytest.raises(KeyError, match="mine"), new_folder(tmp_path / "around" / "out"):
        (tmp_path / "around" / "theirs").touch()
        raise KeyError("mine")
    assert [path.name for path in (tmp_path / "around").iterdir()] == ["theirs"]


def test_push_to_a_folder(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "license is None" in refused(capsys, "push", runs / "gan", "mine")
    said = run(capsys, "push", runs / "gan", "mine", "--license", "mit")
    assert "model.safetensors: " in said and "next: read mine/README.md" in said
    assert "is there already" in refused(capsys, "push", runs / "gan", "mine", "--license", "mit")
    assert "shared folder already" in refused(capsys, "push", "mine", "./other")
    assert run(capsys, "sample", "mine", "--seeds", "0", "--device", "cpu").strip() == "mine/samples/seeds-0.png"
    assert "no such file or folder" in refused(capsys, "push", "nothing", "there", "--license", "mit")
    assert "is a folder or file here" in refused(capsys, "pull", "mine")
    said = run(capsys, "push", runs / "gan", "for all", "--license", "mit")
    assert "fastgan push 'for all' user/name lists" in said
    assert sorted(os.listdir()) == ["for all", "mine"]


def edit(folder, change) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def forge(folder, tensors=None, **about) -> None:
    """A model file with another header, whose checksums all fit: what a hostile person would write."""
    tensors = tensors or load_file(folder / PACKED)
    said = json.loads((folder / CONFIG).read_text())["model"] | about
    text = json.dumps(said)
    save_file(tensors, folder / PACKED, {"fastgan": text, "sha256": convert.network.checksum(text, tensors)})
    content = (folder / PACKED).read_bytes()
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda config: config["files"].update({PACKED: facts}))


DAMAGE = {
    "a bit of the model": (lambda f: _flip(f / PACKED), "sha256"),
    "a shorter model": (lambda f: (f / PACKED).write_bytes((f / PACKED).read_bytes()[:-1]), "bytes"),
    "no model": (lambda f: (f / PACKED).unlink(), "lacks model.safetensors"),
    "no config": (lambda f: (f / CONFIG).unlink(), "config.json"),
    "no JSON": (lambda f: (f / CONFIG).write_text("{"), "not JSON"),
    "another library": (lambda f: edit(f, lambda c: c.update(library_name="x")), "not of a folder of fastgan push"),
    "a path": (lambda f: edit(f, lambda c: c["files"].update({"../x": {"bytes": 1, "sha256": ""}})), "is none that"),
    "a size": (lambda f: edit(f, lambda c: c["files"][PACKED].update(bytes=1 << 60)), "at most"),
    "a size of text": (lambda f: edit(f, lambda c: c["files"][PACKED].update(bytes="1")), "bytes"),
    "code": (lambda f: forge(f, recipe="os:system"), "os:system"),
    "an unknown option": (lambda f: forge(f, config={"evil": 1}), "evil"),
    "a wide network": (lambda f: forge(f, config={"width": 1 << 14, "max_width": 1 << 14}), "ask for more"),
    "no data": (lambda f: forge(f, data={}), "data"),
    "another tensor": (lambda f: forge(f, load_file(f / PACKED) | {"x.y": torch.zeros(1)}), "no network of"),
    "another shape": (lambda f: forge(f, {n: t[:1] for n, t in load_file(f / PACKED).items() if t.dim()}), "generator"),
}


def _flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_and_hostile_folders(kind, shared, tmp_path, monkeypatch):
    folder = shutil.copytree(shared, tmp_path / "x")
    change, message = DAMAGE[kind]
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sharing.load(folder)


def test_push_and_pull(runs, hub, tmp_path, capsys):
    to = ("push", runs / "stylegan2", "me/styles")
    assert "nothing was uploaded; --yes" in refused(capsys, *to, "--license", "mit")
    assert "license is" in refused(capsys, *to, "--yes")
    for word in ("--yes", "--private"):
        assert f"{word} is of an upload, and x is a folder" in refused(capsys, *to[:2], "x", "--license", "mit", word)
    assert not hub.requests and not os.listdir()  # nothing was asked of the hub, nothing written here
    said = run(capsys, *to, "--license", "mit", "--yes", "--private")
    assert f"{hub.address}/me/styles/commit/" in said and hub.private == {"me/styles": True}
    assert set(hub.repositories["me/styles"]) == {CONFIG, CARD, PACKED, "samples.png"}
    assert hub.tokens == {"Bearer hf_test"} and not os.listdir()
    hub.repositories["me/styles"] |= {"evil.py": b"import os", "model.pkl": b"x", ".hidden": b"x"}
    hub.requests.clear()
    assert re.fullmatch(r"styles: README.md .*\nnext: fastgan sample styles\n", run(capsys, "pull", "me/styles"))
    assert set(os.listdir("styles")) == {CONFIG, CARD, PACKED, "samples.png"}
    assert not any("evil" in request or "pkl" in request for request in hub.requests)
    same(recipes.load_run(runs / "stylegan2")[1], load_generator("styles")[1])
    assert "is there already" in refused(capsys, "pull", "me/styles")
    run(capsys, "pull", "me/styles", "deep/other", "--revision", "main")
    assert run(capsys, "sample", "deep/other", "--seeds", "0", "--device", "cpu").endswith("seeds-0.png\n")
    # A folder, its card edited, goes up as it is.
    with open(f"deep/other/{CARD}", "a") as file:
        file.write("More words.\n")
    run(capsys, "push", "deep/other", "you/styles", "--yes")
    assert hub.repositories["you/styles"][CARD].endswith(b"More words.\n")
    assert set(hub.repositories["you/styles"]) == {CONFIG, CARD, PACKED, "samples.png"}


def test_from_the_hub_in_python(shared, hub):
    sharing.push(shared, "me/styles")
    found = models.stylegan2.Generator.from_pretrained("me/styles")
    same({"g": sharing.load(shared)[1]["generator"]}, {"g": found})
    hub.requests.clear()
    same({"g": found}, {"g": fastgan.sharing.load("me/styles")[1]["generator"]})
    assert not any(request.startswith("GET") and "resolve" in request for request in hub.requests)  # from the cache


def test_what_the_hub_may_not_send(shared, hub, tmp_path, monkeypatch):
    sharing.push(shared, "me/styles")
    files = dict(hub.repositories["me/styles"])

    def fails(message: str) -> None:
        hub.requests.clear()
        with pytest.raises(ValueError, match=message):
            sharing.pull("me/styles", tmp_path / "out")
        assert not any(path.name.startswith((".out", "out")) for path in tmp_path.iterdir())

    def never_sent(path: str) -> None:
        assert not any(request.startswith("GET") and request.endswith(path) for request in hub.requests)

    for path in (PACKED, CONFIG):
        hub.repositories["me/styles"] = {name: content for name, content in files.items() if name != path}
        fails(f"has no {path}")
    hub.repositories["me/styles"] = files | {PACKED: files[PACKED][:-1] + b"x"}
    fails("by its size or SHA-256")
    never_sent(PACKED)
    hub.repositories["me/styles"] = files
    hub.said = {("me/styles", PACKED): files[PACKED][:-1] + bytes([files[PACKED][-1] ^ 1])}
    fails("is damaged: sha256")
    hub.said = {}
    for path in (PACKED, CARD, "samples.png"):
        with monkeypatch.context() as patch:
            patch.setitem(FILES, path, len(files[path]) - 1)
            fails(f"{path} has {len(files[path])} bytes, expected at most")
            never_sent(path)
    with pytest.raises(ValueError, match="none of that name"):
        sharing.pull("me/nothing", tmp_path / "out")
    for name in ("styles", "a/b/c", "../x", "me/.."):
        with pytest.raises(ValueError, match="is not user/name"):
            sharing.pull(name, tmp_path / "out")


def test_no_token_and_no_hub(shared, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="hf auth login"):
        sharing.push(shared, "me/styles")
    assert not hub.requests
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="the hub says"):
        sharing.pull("me/styles", "out")


def test_a_damaged_folder_is_not_uploaded(shared, hub, tmp_path):
    folder = shutil.copytree(shared, tmp_path / "x")
    _flip(folder / PACKED)
    with pytest.raises(BadFile, match="sha256"):
        sharing.push(folder, "me/styles")
    assert not hub.requests
