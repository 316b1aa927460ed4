"""Presets of all recipes: every value is one of an option, and the networks that they ask for exist."""

import pytest
import torch

from fastgan import recipes
from fastgan.cli import main
from fastgan.training.run import check_options
from fastgan.training.settings import Settings

IMAGES = dict(name="x", channels=3, num_classes=0, class_names=[])
TOKENS = dict(name="oracle", vocabulary_size=5000, length=20, start=0, end=None, pad=None, vocabulary=None)
PRESETS = [(name, preset) for name in recipes.RECIPES for preset in recipes.get(name).presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset(name, preset):
    kind = recipes.get(name)
    made = Settings.of(kind, preset)
    check_options(kind, made.recipe, made.run)
    assert kind.presets[preset].about and made != Settings.of(kind)
    with torch.device("meta"):  # no memory: they are large
        facts = {
            "image": lambda: IMAGES | {"resolution": made.run.resolution or 32},
            "signal": lambda: IMAGES | {"channels": 1, "rate": made.run.rate, "length": made.run.length},
            "text": lambda: TOKENS,
        }[kind.medium.name]()
        recipe = kind(made.recipe, facts)
    assert recipe.networks and (preset != "paper256" or made.run.resolution == 256)


PUBLISHED = [
    ("dcgan", "paper", dict(lr=2e-4, beta1=0.5, batch_size=128, latent=100)),
    ("wgan-gp", "paper", dict(lr=1e-4, critic_steps=5, penalty=10)),
    ("wgan-gp", "cifar10", dict(lr=2e-4, critic_steps=5, width=128)),
    ("sngan", "cifar10", dict(lr=2e-4, d_steps=5, batch_size=64)),
    ("r3gan", "paper256", dict(lr=(2e-4, 5e-5), beta2=(0.9, 0.99), gamma=(150, 15), batch_size=256)),
    ("stylegan2", "paper256", dict(lr=2.5e-3, gamma=1, batch_size=64, mixing=0.9, path_weight=2, width=64, latent=512)),
    ("stylegan2", "paper1024", dict(lr=2e-3, gamma=10, batch_size=32, width=32, max_width=512, beta2=0.99)),
    ("stylegan3", "paper256", dict(width=128, max_width=512, layers=14, batch_size=32, mapping_layers=2)),
    ("cyclegan", "paper256", dict(lr=2e-4, batch_size=1, pool=50, lambda_a=10, blocks=9)),
    ("pix2pix", "paper256", dict(lr=2e-4, beta1=0.5, weight=100, batch_size=1)),
    ("realesrgan", "paper256", dict(lr=1e-4, batch_size=48, blocks=23, gan=0.1, degradation=1)),
    ("seqgan", "paper", dict(rollouts=16, discriminator_steps=5, hidden=32, batch_size=64)),
    ("vocoder", "hifigan-v1", dict(lr=2e-4, batch_size=16, mel_weight=45, second="scales", judge=1, clip=0)),
    ("vocoder", "bigvgan-base", dict(lr=1e-4, batch_size=32, bands=100, second="resolutions", clip=1000)),
    ("relgan", "paper", dict(pretrain_lr=1e-2, lr=1e-4, inverse_temperature=100, representations=64)),
]


@pytest.mark.parametrize(("name", "preset", "values"), PUBLISHED)
def test_what_was_published(name, preset, values):
    made = Settings.of(recipes.get(name), preset).recipe
    assert {key: getattr(made, key) for key in values} == values


def test_the_help_and_the_error_list_them(capsys):
    with pytest.raises(SystemExit):
        main(["train", "stylegan2", "--help"])
    said = capsys.readouterr().out
    assert "paper256: 256x256" in said and "paper1024: 1024x1024" in said
    assert main(["train", "stylegan2", "--preset", "paper"]) == 1
    assert "stylegan2 has no preset 'paper'; did you mean 'paper256'?; known: paper256, paper1024" in (
        capsys.readouterr().err
    )
