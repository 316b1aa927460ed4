"""Runs that begin with other networks: the same losses as of these, what surgery promises of other shapes, what stays frozen."""

import json

import pytest
import torch
from golden import golden_model
from snapshot import by_reference, persistent, randomise, stand_ins, write_snapshot
from stylegan_golden import build, close

from fastgan import convert, recipes, sharing
from fastgan.cli import main
from fastgan.models import r3gan, stylegan2
from fastgan.ops import upsample2d
from fastgan.recipes.r3gan import R3GAN
from fastgan.recipes.stylegan2 import StyleGAN2
from fastgan.training import RunConfig, Trainer, transfer
from fastgan.training.checkpoint import CheckpointError, load_checkpoint
from fastgan.training.log import read_metrics
from fastgan.training.recipe import lazy_adam
from fastgan.training.run import run_options

SMALL = {
    "gan": {"units": (8, 4)},
    "dcgan": {"width": 4, "max_width": 8},
    "r3gan": {"width": 4, "max_width": 8, "group_width": 4},
    "stylegan2": {"width": 2, "max_width": 8, "path_weight": 0.0, "augment": "none"},
    "stylegan3": {"width": 8, "max_width": 16, "augment": "none"},
}
STILL = {"r3gan": {"lr": (0.0, 0.0)}}  # a rate of 0: the checkpoint is what the run began with


@pytest.fixture(scope="module")
def train(pictures, tmp_path_factory):
    """train(recipe, run options, **recipe's options) -> its trainer, after one step that changes no weight."""

    def make(name, run=None, **options):
        kind = recipes.get(name) if isinstance(name, str) else name
        own = SMALL[kind.name] | STILL.get(kind.name, {"lr": 0.0}) | {"batch_size": 4, "latent": 8, "steps": 1}
        settings = {"data": pictures, "out": str(tmp_path_factory.mktemp("run") / "r"), "samples": 1, "log_every": 1}
        trainer = Trainer(kind, kind.Config(**own | options), RunConfig(**settings | {"device": "cpu"} | (run or {})))
        trainer.train()
        return trainer

    return make


def kept(trainer, prefix):
    return load_checkpoint(trainer.folder).under(prefix)


def equal(a, b):
    """But for the mean of w, which moves in every step."""
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items() if not name.endswith("w_avg"))


def some_slow(first, *others):
    return [
        first,
        *(pytest.param(*([name] if isinstance(name, str) else name), marks=pytest.mark.slow) for name in others),
    ]


@pytest.mark.parametrize("name", some_slow("dcgan", "gan", "r3gan", "stylegan2"))
def test_another_run_s_networks(train, name, capsys):
    options = {"ema_halflife": 40.0} | ({"lr": 0.01} if name != "r3gan" else {"lr": (0.01, 0.01)})
    source = train(name, steps=2, **options)
    made = train(name, {"init_from": (str(source.folder),), "seed": 5})
    for network in ("generator", "discriminator"):
        assert equal(kept(made, f"network/{network}/"), kept(source, f"network/{network}/"))
    said = json.loads((made.folder / "transfer.json").read_text())
    assert said["from"] == [str(source.folder)] and not said["networks"]["generator"]["new"]
    assert "discriminator: all" in capsys.readouterr().out
    again = train(name, {"init_from": (str(source.folder / "checkpoints" / "step-00000002"),)})
    assert equal(kept(again, "network/generator/"), kept(source, "network/generator/"))


def test_the_average_is_taken_too(train):
    source = train("dcgan", lr=0.05, steps=3, ema_halflife=1000.0)
    assert not equal(kept(source, "ema/generator/"), kept(source, "network/generator/"))
    made = train("dcgan", {"init_from": (str(source.folder),)}, ema_halflife=1e9)
    assert equal(kept(made, "network/generator/"), kept(source, "network/generator/"))
    for name, average in kept(source, "ema/generator/").items():
        assert (kept(made, "ema/generator/")[name] - average).abs().max() < 1e-6


def first_losses(trainer):
    row = read_metrics(trainer.folder / "metrics.jsonl")[0]
    return {name: value for name, value in row.items() if name.startswith(("generator/", "discriminator/"))}


@pytest.mark.golden
@pytest.mark.parametrize("written", ["snapshot", "converted"])
def test_first_losses_are_those_of_the_original_stylegan2(written, train, tmp_path, monkeypatch):
    stand_ins(monkeypatch)
    (g, meta, _, _), (d, judge, arrays, _) = (
        build(kind, f"sg2_{name}")
        for kind, name in ((stylegan2.Generator, "generator_skip"), (stylegan2.Discriminator, "discriminator_resnet"))
    )
    networks = {"G": g, "G_ema": g, "D": d}
    kwargs = {name: (judge if name == "D" else meta)["constructor_kwargs"] for name in networks}
    path = write_snapshot(tmp_path / "s.pkl", **{n: persistent(net, **kwargs[n]) for n, net in networks.items()})
    source = (str(path),)
    if written == "converted":
        source = tuple(str(convert.convert(path, tmp_path / f"{n}.safetensors", n)) for n in ("G_ema", "D"))
    golden = dict(width=16, max_width=32, latent=32, path_weight=2.0, lr=2.5e-3)
    made = train("stylegan2", {"init_from": source}, **golden)

    class Original(StyleGAN2):
        def __init__(self, config, facts):
            super().__init__(config, facts)
            self.generator, self.discriminator = g.train(), d.train()
            self.networks |= {"generator": g, "discriminator": d}
            adam = dict(lr=config.lr, betas=(0.0, config.beta2))
            self.optimizers = {
                "generator": lazy_adam(g.parameters(), interval=config.path_interval, **adam),
                "discriminator": lazy_adam(d.parameters(), interval=config.r1_interval, **adam),
            }

    for network in (g, d):
        network.requires_grad_(True)
    found, expected = first_losses(made), first_losses(train(Original, **golden))
    assert found == expected and {"discriminator/loss", "generator/loss", "discriminator/r1"} <= found.keys()
    still = train("stylegan2", {"init_from": source}, **golden | {"lr": 0.0})
    with torch.no_grad():
        close(still.recipe.discriminator(arrays["in/img"][:4]), arrays["out/logits_n4"])


@pytest.mark.golden
def test_first_losses_are_those_of_the_original_r3gan(train, tmp_path, monkeypatch):
    stand_ins(monkeypatch)
    meta, _ = golden_model("r3gan_generator_uncond")
    # The recipe has as many blocks at each size, and widths that double.
    stages = dict(WidthPerStage=[16, 16, 16, 8], CardinalityPerStage=[4, 4, 4, 2], BlocksPerStage=[1, 1, 1, 1])
    kwargs = meta["constructor_kwargs"] | stages
    judge = {n: v[::-1] if isinstance(v, list) else v for n, v in kwargs.items() if n != "NoiseDimension"}
    g = randomise(r3gan.Generator.from_reference(**kwargs), 1)
    d = randomise(r3gan.Discriminator.from_reference(**judge), 2)
    networks = {"G": g, "G_ema": g, "D": d}
    path = write_snapshot(tmp_path / "s.pkl", **{n: by_reference(net, monkeypatch) for n, net in networks.items()})

    class Original(R3GAN):
        def __init__(self, config, facts):
            super().__init__(config, facts)
            self.adversaries(g, d, betas=(0.0, config.beta2[0]))
            self.networks |= {"augment": self.augment}

    golden = dict(width=8, max_width=16, group_width=8, latent=8, lr=(1e-3, 1e-3))
    made = train("r3gan", {"init_from": (str(path),)}, **golden)
    assert not json.loads((made.folder / "transfer.json").read_text())["networks"]["generator"]["new"]
    found = first_losses(made)
    assert found == first_losses(train(Original, **golden)) and "discriminator/r1" in found


def drawn(trainer, labels=None):
    z = trainer.recipe.latents([3, 4])
    with torch.no_grad():
        return trainer.recipe.generate(trainer.ema.networks, z, labels)


def test_a_larger_stylegan2_begins_with_the_old_pictures_enlarged(train):
    source = train("stylegan2", steps=2, lr=0.01)
    made = train("stylegan2", {"init_from": (str(source.folder),), "resolution": 64}, width=1)
    kernel = made.recipe.generator.synthesis.b64.resample_filter
    assert (drawn(made) - upsample2d(drawn(source), kernel)).abs().max() < 1e-5
    said = json.loads((made.folder / "transfer.json").read_text())["networks"]
    assert {n.split(".")[0] for n in said["discriminator"]["new"]} == {"b64"} and said["generator"]["adapted"]
    smaller = train("stylegan2", {"init_from": (str(made.folder),)})
    assert (drawn(smaller) - drawn(source)).abs().max() < 1e-5


@pytest.mark.parametrize("name", some_slow("stylegan2", "dcgan", "r3gan"))
def test_grey_and_colour(train, name):
    colour = train(name)
    grey = train(name, {"init_from": (str(colour.folder),), "channels": 1})
    assert (drawn(grey) - drawn(colour).mean(1, keepdim=True)).abs().max() < 1e-5
    x = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        judged = grey.recipe.discriminator(x), colour.recipe.discriminator(x.expand(-1, 3, -1, -1))
    assert torch.allclose(*judged, atol=1e-4)
    back = train(name, {"init_from": (str(grey.folder),)})
    assert (drawn(back) - drawn(grey)).abs().max() < 1e-5
    with torch.no_grad():
        assert torch.allclose(back.recipe.discriminator(x.expand(-1, 3, -1, -1)), judged[0], atol=1e-4)


@pytest.mark.parametrize(("had", "has"), [(1, 2), (1, 4), (2, 1), (2, 3), (2, 4), (3, 2), (4, 1), (4, 2), (4, 3)])
def test_alpha(train, had, has):
    """1 to 4 channels are grey, grey and alpha, RGB, RGBA: no colour becomes alpha, nor alpha a colour."""
    old = train("dcgan", {"channels": had})
    new = train("dcgan", {"channels": has, "init_from": (str(old.folder),)})
    before, after = drawn(old), drawn(new)
    grey = before[:, : 1 if had < 3 else 3].mean(1, keepdim=True)
    colours = before[:, :3] if had > 2 < has else grey.expand(-1, 1 if has < 3 else 3, -1, -1)
    alpha = [before[:, -1:] if had % 2 == 0 else torch.zeros_like(grey)] * (has % 2 == 0)
    assert (after - torch.cat([colours, *alpha], 1)).abs().max() < 1e-5
    x = torch.rand(4, has, 32, 32)
    same = x[:, :1].expand(-1, has - 1 + has % 2, -1, -1)  # grey
    alpha = x[:, -1:] if had % 2 == has % 2 == 0 else torch.zeros_like(x[:, :1])
    seen = torch.cat([x[:, :1].expand(-1, had - 1 + had % 2, -1, -1), *[alpha] * (had % 2 == 0)], 1)
    with torch.no_grad():
        judged = new.recipe.discriminator(torch.cat([same, *[x[:, -1:]] * (has % 2 == 0)], 1))
        assert torch.allclose(judged, old.recipe.discriminator(seen), atol=1e-4)


@pytest.mark.parametrize("name", some_slow("stylegan2", "dcgan", "r3gan"))
def test_classes(train, name, tmp_path):
    plain = train(name)
    labels = torch.tensor([0, 2])
    with_classes = train(name, {"init_from": (str(plain.folder),)}, conditional=True)
    assert (drawn(with_classes, labels) - drawn(plain)).abs().max() < 1e-5
    import numpy as np

    images = np.random.default_rng(0).integers(0, 255, (20, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "five.npz", images=images, labels=np.arange(20) % 5)
    other = train(
        name, {"init_from": (str(with_classes.folder),), "data": str(tmp_path / "five.npz")}, conditional=True
    )
    assert (drawn(other, torch.tensor([4, 4])) - drawn(other, torch.tensor([1, 1]))).abs().max() < 1e-6
    without = train(name, {"init_from": (str(with_classes.folder),)})
    assert (drawn(without) - drawn(plain)).abs().max() < 1e-5


@pytest.mark.parametrize("texts", [["a b", "b c", "a a"], ["c d e", "e f g", "c c"]])
def test_words_keep_their_rows(texts, tmp_path):
    """Of a vocabulary as large, and of a larger one, in which they have other places."""

    def train(name, lines, begun, rate):
        (tmp_path / name).write_text("\n".join(lines * 5))
        kind = recipes.get("mle")
        small = kind.Config(level="word", embedding=4, hidden=4, length=4, pretrain_lr=rate, steps=1, batch_size=4)
        where = {"data": str(tmp_path / name), "out": str(tmp_path / f"of {name}"), "init_from": begun}
        trainer = Trainer(kind, small, run_options(kind)(**where, samples=1, metrics_every=0, device="cpu"))
        trainer.train()
        return trainer

    old = train("old.txt", ["b c d", "c d d", "d d b"], (), 0.1)
    new = train("new.txt", texts, (str(old.folder),), 0.0)
    places = [trainer.recipe.vocabulary.tokens for trainer in (old, new)]
    both = [word for word in places[1] if word in places[0]]
    assert places[0] != places[1] and 4 < len(both) < len(places[1])
    for name in ("embedding.weight", "output.weight", "output.bias"):
        before, after = (kept(trainer, "network/generator/")[name] for trainer in (old, new))
        assert name == "output.bias" or len({tuple(row.tolist()) for row in after}) == len(places[1])
        for word in both:
            assert torch.equal(after[places[1].index(word)], before[places[0].index(word)])
    said = json.loads((new.folder / "transfer.json").read_text())["networks"]["generator"]
    assert set(said["adapted"].values()) == {f"{len(both)} of {len(places[1])} words as they were, the others new"}


@pytest.mark.parametrize("old", [(5, 4), (3, 6)])
def test_no_word_is_a_class(old):
    """An embedding of another width or size, where nothing tells which words it is of."""
    network = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(5, 6), "output": torch.nn.Linear(6, 5)})
    source = {n: t * 0 for n, t in network.state_dict().items()} | {"embedding.weight": torch.zeros(*old)}
    made, report = transfer.fit(source, network, 0, False)
    assert report.new == ["embedding.weight"] and not report.adapted
    assert torch.equal(made["embedding.weight"], network["embedding"].weight)


def test_what_has_no_place_is_said_also_where_all_else_fits():
    """A discriminator of classes, taken into one without."""
    whole = transfer.Fitted(taken=["head.weight"], left=["embedding.weight"])
    assert list(whole.lines("d")) == ["d: 1 of 1 tensors taken as they are", "  left out: embedding"]
    assert list(transfer.Fitted(taken=["head.weight"]).lines("d")) == ["d: all 1 tensors taken as they are"]


@pytest.mark.parametrize(("name", "width"), some_slow(("dcgan", 2), ("r3gan", 2), ("stylegan3", 4)))
def test_another_resolution_keeps_the_layers_of_the_sizes_that_both_have(train, name, width):
    source = train(name)
    made = train(name, {"init_from": (str(source.folder),), "resolution": 64}, width=width)
    said = json.loads((made.folder / "transfer.json").read_text())["networks"]
    assert len(said["generator"]["taken"]) > len(said["generator"]["new"])
    assert len(said["discriminator"]["taken"]) > len(said["discriminator"]["new"])
    if name == "dcgan":
        old, new = kept(source, "network/discriminator/"), kept(made, "network/discriminator/")
        assert torch.equal(new["down.2.weight"], old["down.1.weight"]) and torch.equal(new["weight"], old["weight"])


def test_optimisers(train):
    source = train("dcgan", steps=3, lr=0.01)
    anew = train("dcgan", {"init_from": (str(source.folder),)})
    taken = train("dcgan", {"init_from": (str(source.folder),), "init_optimizer": True}, lr=0.0)
    steps = [int(kept(t, "optimizer/generator/")["0/step"]) for t in (source, anew, taken)]
    assert steps == [3, 1, 4]
    assert taken.recipe.optimizers["generator"].param_groups[0]["lr"] == 0.0  # the new run's
    with pytest.raises(ValueError, match="init_optimizer=True, and the generator is not taken as it is"):
        train("dcgan", {"init_from": (str(source.folder),), "init_optimizer": True, "channels": 1})
    with pytest.raises(
        ValueError, match=r"optimiser of the discriminator has 6 parameters, and in .* 8: freeze what was"
    ):
        train("dcgan", {"init_from": (str(source.folder),), "init_optimizer": True, "freeze_d": 1})


@pytest.mark.parametrize(
    ("name", "d", "g", "frozen"),
    [
        ("dcgan", 2, 0, ["discriminator.down.0", "discriminator.down.1"]),
        pytest.param(
            *("r3gan", 2, 0, ["discriminator.ExtractionLayer", "discriminator.MainLayers.0"]), marks=pytest.mark.slow
        ),
        ("stylegan2", 1, 1, ["discriminator.b32", "generator.mapping.fc0"]),
    ],
)
def test_frozen_parts_stay(train, name, d, g, frozen, capsys):
    rate = {"lr": (0.01, 0.01)} if name == "r3gan" else {"lr": 0.01}
    source = train(name)
    made = train(name, {"init_from": (str(source.folder),), "freeze_d": d, "freeze_g": g}, **rate)
    assert f"frozen: {', '.join(frozen)}" in capsys.readouterr().out
    again = {"freeze_d": d, "freeze_g": g, "out": str(made.folder), "resume": True}
    made = train(name, again, steps=2, **rate)  # from a checkpoint whose optimisers know the others alone
    before = {n: t for n, t in load_checkpoint(source.folder).tensors.items() if n.startswith("network/")}
    after = load_checkpoint(made.folder).tensors
    stays = {n for n in before if n.startswith(tuple(f"network/{part.replace('.', '/', 1)}." for part in frozen))}
    assert stays and all(torch.equal(after[n], before[n]) for n in stays)
    parameters = {
        f"network/{m}/{n}"
        for m in ("generator", "discriminator")
        for n, _ in made.recipe.networks[m].named_parameters()
    }
    moved = {n for n in parameters - stays if not torch.equal(after[n], before[n])}
    assert len(moved) > 0.8 * len(parameters - stays)


@pytest.mark.parametrize(
    ("name", "run", "message"),
    [
        (
            "dcgan",
            {"init_from": ("nowhere",)},
            "init_from is 'nowhere': no such file or folder, and no run of that name",
        ),
        ("dcgan", {"init_from": ("",)}, "init_from is '', expected a name"),
        ("dcgan", {"init_optimizer": True}, "init_optimizer=True says more about init_from"),
        ("dcgan", {"freeze_d": 4}, r"freeze_d is 4, expected at most 2: the discriminator has down.0, down.1, down.2"),
        ("dcgan", {"freeze_g": 1}, "freeze_g is 1, and the generator of dcgan has no mapping network"),
        ("stylegan2", {"freeze_g": 3}, "freeze_g is 3, expected at most 2: fc0, fc1"),
    ],
)
def test_refused(train, name, run, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(name, run | {"out": str(tmp_path / "run")})
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_goes_on_with_what_it_began_with(train):
    source, other = train("dcgan"), train("dcgan", {"seed": 3})
    made = train("dcgan", {"init_from": (str(source.folder),), "freeze_d": 1})
    told = (made.folder / "config.json").read_text()
    begun = {"init_from": (str(source.folder),), "freeze_d": 1, "out": str(made.folder), "resume": True}
    for change in ({"init_from": (str(other.folder),)}, {"freeze_d": 0}, {"freeze_d": 2}):
        with pytest.raises(CheckpointError, match=f"it began with {next(iter(change))}=.*: leave the option out"):
            train("dcgan", begun | change, steps=2)
        assert (made.folder / "config.json").read_text() == told
    train("dcgan", begun, steps=2)


def test_what_is_new_is_not_frozen(train, tmp_path):
    """A discriminator that the source does not have, and a block of a size that it does not have."""
    source = train("dcgan")
    shared = sharing.write(source.folder, tmp_path / "shared", license="mit")
    for run, width in (({"init_from": (str(shared),)}, 4), ({"init_from": (str(source.folder),), "resolution": 64}, 2)):
        with pytest.raises(ValueError, match=r"freeze_d: the discriminator\.down\.0 is new, and would stay"):
            train("dcgan", run | {"freeze_d": 1, "out": str(tmp_path / "run")}, width=width)
        assert not (tmp_path / "run").exists()


def test_a_frozen_layer_would_learn_of_no_class_nor_alpha(train):
    source = train("stylegan2")
    with pytest.raises(ValueError, match=r"freeze_d: the discriminator\.b32 knows no alpha yet"):
        train("stylegan2", {"init_from": (str(source.folder),), "freeze_d": 1, "channels": 4})
    train("stylegan2", {"init_from": (str(source.folder),), "freeze_d": 1, "channels": 1})
    run = {"init_from": (str(source.folder),), "freeze_g": 1}
    with pytest.raises(ValueError, match=r"freeze_g: the generator\.mapping\.fc0 knows no class yet"):
        train("stylegan2", run, conditional=True)
    train("stylegan2", run)


def test_two_of_a_kind_are_refused(train):
    first, second = train("dcgan"), train("gan")
    with pytest.raises(ValueError, match=r"init_from: .* and .* both hold a generator: leave one of them out"):
        train("dcgan", {"init_from": (str(first.folder), str(second.folder))})


def test_the_class_is_no_layer_of_the_mapping(train):
    made = train("stylegan2", {"freeze_g": 1}, conditional=True)
    assert made._frozen == ["generator.mapping.fc0"]


def test_another_family_is_refused_and_nothing_is_written(train, tmp_path):
    source = train("r3gan")
    with pytest.raises(ValueError, match=r"no tensor of the generator in .* fits that of dcgan.*another family"):
        train("dcgan", {"init_from": (str(source.folder),), "out": str(tmp_path / "x")})
    assert not (tmp_path / "x").exists()
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        train("dcgan", {"init_from": (str(tmp_path / "bad.safetensors"),)})


def test_a_shared_folder_and_the_package_s_own(train, tmp_path):
    source = train("gan")
    shared = sharing.write(source.folder, tmp_path / "shared", license="mit")
    for place in (shared, shared / "model.safetensors"):
        begun = train("gan", {"init_from": (str(place),)})
        assert equal(kept(begun, "network/generator/"), kept(source, "ema/generator/"))
    assert any(name.startswith("ema/generator/") for name in transfer.read(["fastgan:emoji"]).tensors)
    with pytest.raises(ValueError, match="there is no fastgan:emojy"):
        transfer.read(["fastgan:emojy"])


def test_command_line_by_a_run_s_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--steps", "1", "--samples", "1", "--width", "4", "--batch-size", "4", "--device", "cpu"]
    assert main(["train", "dcgan", "--data", "emoji:google:base:flags", "--out", "runs/first", *small]) == 0
    again = ["train", "dcgan", "--data", "emoji:twitter:base:flags", "--init-from", "first", "--freeze-d", "1", *small]
    assert main(again) == 0
    said = capsys.readouterr().out
    assert "generator: all" in said and "frozen: discriminator.down.0" in said
    assert json.loads((next((tmp_path / "runs").glob("dcgan-*")) / "config.json").read_text())["run"]["init_from"] == [
        "first"
    ]
