"""Options that no network can have: ValueError from every family, never an error from inside a constructor."""

import dataclasses

import pytest
import torch

from fastgan import models


def wrong(field):
    if isinstance(field.default, bool):
        return ()
    return {int: (0, -1), tuple: ((),), str: ("none of them",)}.get(type(field.default), ())


@pytest.mark.parametrize("name", models.list_models())
def test_impossible_options(name):
    for field in dataclasses.fields(models.network_class(name).Config):
        for value in wrong(field):
            try:
                with torch.device("meta"):
                    models.build(name, **{field.name: value})
            except ValueError as error:
                assert name.partition(".")[0] in str(error) or field.name in str(error)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("cyclegan.generator", "width", 0),
        ("cyclegan.discriminator", "layers", -1),
        ("pix2pix.generator", "out_channels", 0),
        ("mlp.discriminator", "stddev_group", -1),
        ("text.relational", "heads", 0),
        ("text.transformer", "heads", 0),
        ("text.recurrent_discriminator", "length", 0),
        ("vocoder.bands", "edges", ()),
        ("vocoder.spectra", "outputs", 0),
    ],
)
def test_refused(name, option, value):
    with pytest.raises(ValueError, match=option):
        models.build(name, **{option: value})


def test_a_network_shows_its_options():
    assert repr(models.build("cyclegan", width=8, blocks=2)).startswith("cyclegan.Generator(width=8, blocks=2): ")
    assert repr(models.build("cyclegan.discriminator", width=8)).startswith("cyclegan.Discriminator(width=8): ")
    assert repr(models.build("pix2pix", width=8)).startswith("pix2pix.Generator(width=8): ")
