"""`--grad-accum`: every recipe does in pieces what it does with the whole batch, or is refused before a file is written."""

import numpy as np
import pytest
import torch
from recipes.test_images import SMALL as IMAGES
from recipes.test_sample import tones
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from fastgan import recipes
from fastgan.data import ImageDataset
from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer, engine
from fastgan.training.update import Updater

TRANSLATION = {"width": 4, "layers": 1}
TEXT = {"embedding": 8, "hidden": 8, "ema_halflife": 0.0}
OPTIONS = {name: [options | {"latent": 8}] for name, options in IMAGES.items()}
OPTIONS["gan"] += [{"units": (8, 6), "stddev_group": 2, "batch_loss": 0.0}]
OPTIONS["dcgan"] += [
    {"width": 4, "max_width": 8, "conditional": True, "augment": "ada", "loss": "hinge"},
    {"width": 4, "max_width": 8, "loss": "ragan"},
]
OPTIONS["sngan"] += [{"width": 4, "conditional": True, "d_steps": 1}]
OPTIONS["stylegan2"] += [{"width": 2, "max_width": 4, "latent": 8, "conditional": True, "augment": "ada-full"}]
OPTIONS |= {
    "cyclegan": [
        TRANSLATION | {"blocks": 1, "pool": pool, "norm": norm} for pool, norm in ((3, "instance"), (0, "batch"))
    ],
    "pix2pix": [TRANSLATION | {"norm": norm} for norm in ("instance", "batch")],
    "realesrgan": [{"width": 4, "blocks": 1, "disc_width": 4, "warmup": 1, "perceptual": 0.0}],
    "vocoder": [{"judge": 0.03, "warmup": 0}],
    "mle": [TEXT],
    "seqgan": [TEXT | {"pretrain": 0, "discriminator_pretrain": 0}],
    "relgan": [TEXT | {"pretrain": 0, "discriminator": kind} for kind in ("cnn", "lstm")],
}
CASES = [(name, i, pieces) for name in recipes.RECIPES for i in range(len(OPTIONS[name])) for pieces in (2, 4)]
# Groups of 4 in a batch of 8 bear two pieces; what is not here is refused.
TRUE = {("gan", 0, 2), ("gan", 1, 2), ("gan", 1, 4), ("stylegan2", 0, 2), ("stylegan2", 1, 2), ("stylegan3", 0, 2)}
TRUE |= {(name, i, pieces) for name, i in (("dcgan", 0), ("dcgan", 1), ("r3gan", 0), ("mle", 0)) for pieces in (2, 4)}
TRUE |= {(name, 0, pieces) for name in ("cyclegan", "pix2pix", "realesrgan", "vocoder") for pieces in (2, 4)}


@pytest.fixture
def data(pictures, corpus, tmp_path):
    """Of a recipe: two sets of pictures, one, sentences of unequal length, or recordings."""
    twice = ("emoji:google:base:flags", "emoji:twitter:base:flags")
    return lambda name: (
        str(tones(tmp_path / "sounds"))
        if name == "vocoder"
        else twice
        if name in ("cyclegan", "pix2pix")
        else corpus
        if name in ("mle", "seqgan", "relgan")
        else pictures
    )


def updates(recipe, options, data, out, pieces, monkeypatch, dataset=None):
    """(values, gradients, buffers) of each update of two steps that move no weight, none of which is 0."""
    found = []

    class Watched(Updater):
        def __call__(self, update, *given):
            values, votes = super().__call__(update, *given)
            gradients = [
                p.grad for group in self.recipe.optimizers[update.optimizer].param_groups for p in group["params"]
            ]
            buffers = [b.clone() for network in self.recipe.networks.values() for b in network.buffers()]
            found.append((values, gradients, buffers))
            return values, votes

    monkeypatch.setattr(engine, "Updater", Watched)
    settings = RunConfig(data=data, out=str(out), device="cpu", samples=1, grad_accum=pieces)
    trainer = Trainer(recipe, recipe.Config(**options, batch_size=8, steps=2), settings, dataset=dataset)
    torch.manual_seed(1)
    for network in trainer.recipe.networks.values():
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    if hasattr(trainer.recipe, "augment"):
        trainer.recipe.augment.p.fill_(0.7)
    for optimizer in trainer.recipe.optimizers.values():
        monkeypatch.setattr(optimizer, "step", lambda: None)
    trainer.train()
    return found


# torch sums the gradient of a convolution's bias over 10^5 places of a spectrogram one after the other: 4e-5 of it in float32 (in
# float64 pieces and whole agree to 1e-16).
ROUNDING = {"vocoder": 1e-4}


def same(whole, parts, rounding=2e-5):
    assert len(whole) == len(parts)
    for (values, gradients, buffers), (other_values, others, other_buffers) in zip(whole, parts, strict=True):
        torch.testing.assert_close(other_values, values, rtol=2e-5, atol=2e-6)
        torch.testing.assert_close(other_buffers, buffers, rtol=2e-5, atol=2e-6)
        # Sums over images cancel: what is rounded is measured by the largest gradient.
        scale = max(float(g.abs().max()) for g in gradients if g is not None)
        torch.testing.assert_close(others, gradients, rtol=0, atol=rounding * scale)


@pytest.mark.parametrize(("name", "option", "pieces"), CASES)
def test_pieces_are_the_whole_or_refused(name, option, pieces, data, tmp_path, monkeypatch):
    options, source = OPTIONS[name][option], data(name)
    given = (recipes.get(name), options, source)
    if (name, option, pieces) not in TRUE:
        with pytest.raises(
            ValueError, match=rf"--grad-accum {pieces}: {name} cannot compute its batch in pieces, as .*"
        ):
            updates(*given, tmp_path / "parts", pieces, monkeypatch)
        assert not (tmp_path / "parts").exists()
        return
    whole = updates(*given, tmp_path / "whole", 1, monkeypatch)
    same(whole, updates(*given, tmp_path / "parts", pieces, monkeypatch), ROUNDING.get(name, 2e-5))


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def prepare(self, *statistics):
        pass


class Stateful(GAN):
    """A user's recipe: a power iteration, a running mean, a count and its device's noise."""

    def __init__(self, *given):
        super().__init__(*given)
        self.discriminator.inverse[1] = spectral_norm(nn.Linear(self.config.units[0], 1))
        self.memory = self.networks["memory"] = Memory()
        self.optimizers["discriminator"] = torch.optim.SGD(self.discriminator.parameters())

    @property
    def running(self):
        return [self.memory.mean]

    def d_step(self, batch):
        self.memory.steps += 1
        values = super().d_step(batch)
        self.memory.mean.lerp_(values["real"].detach(), 0.1)
        noise = batch.noise(batch.size, *batch.real.shape[1:])
        return values | {"loss": values["loss"] + self.discriminator(batch.real + noise).square().mean()}


STATEFUL = {"units": (8, 6), "stddev_group": 0, "latent": 4}


@pytest.mark.parametrize("pieces", [2, 8])
def test_buffers_move_once_an_update(pieces, pictures, tmp_path, monkeypatch):
    whole, parts = (updates(Stateful, STATEFUL, pictures, tmp_path / str(n), n, monkeypatch) for n in (1, pieces))
    same(whole, parts)
    mean, steps = parts[-1][2][-2:]
    assert mean != 0 and steps == 2


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.1)])
def test_layers_of_a_users_network_are_found(layer, pictures, tmp_path, monkeypatch):
    class Mixing(GAN):
        def __init__(self, *given):
            super().__init__(*given)
            self.generator.down.insert(1, layer)

    updates(Mixing, STATEFUL, pictures, tmp_path / "whole", 1, monkeypatch)
    with pytest.raises(ValueError, match=r"--grad-accum 2: gan .* in its generator .* smaller --batch-size"):
        updates(Mixing, STATEFUL, pictures, tmp_path / "parts", 2, monkeypatch)


def test_a_piece_does_not_pass_for_the_whole(pictures, tmp_path, monkeypatch):
    class Careless(GAN):
        def updates(self, step):
            return [update._replace(whole=False) for update in super().updates(step)]

    with pytest.raises(RuntimeError, match=r"no statistics of the whole; use Update\(\.\.\., whole=True\)"):
        updates(Careless, STATEFUL, pictures, tmp_path, 2, monkeypatch)


def test_groups_that_do_not_fit_are_refused_at_once(tmp_path):
    images = torch.from_numpy(np.zeros((12, 1, 8, 8), np.uint8))
    settings = RunConfig(out=str(tmp_path / "run"), device="cpu")
    with pytest.raises(ValueError, match=r"--batch-size 6: the discriminator compares 4 images .* a multiple of 4"):
        Trainer(GAN, GAN.Config(batch_size=6, units=(4, 4)), settings, dataset=ImageDataset(images, name="x"))
    assert not (tmp_path / "run").exists()
