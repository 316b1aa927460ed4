"""What an update keeps for later ones on the same images."""

import pytest
import torch

from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer
from fastgan.training.recipe import Update


class Keeping(GAN):
    """The generator's update first; the discriminator's uses its images, and writes down what it found."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.found = []

    def updates(self, step):
        return [
            Update("generator", self.g_step),
            Update("discriminator", self.d_step, fresh=False, whole=step == 1),
            Update("discriminator", self.missing, fresh=True),
        ]

    def g_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        batch.keep(fake=fake, real=batch.real)
        return {"loss": self.discriminator(fake).mean()}

    def d_step(self, batch):
        fake = batch.kept("fake")
        assert not fake.requires_grad and torch.equal(batch.kept("real"), batch.real)
        assert torch.equal(batch.kept("real", whole=True), batch.whole[0])
        self.found.append(fake)
        return {"loss": self.discriminator(fake).mean() - self.discriminator(batch.real).mean()}

    def missing(self, batch):
        with pytest.raises(KeyError):
            batch.kept("fake")
        return {"loss": self.discriminator(batch.real).mean()}


def test_pieces_find_their_own_part_and_new_images_nothing(tiny, tmp_path):
    config = GAN.Config(steps=2, batch_size=8, units=(16, 8), latent=4, stddev_group=0, batch_loss=0)
    found = {}
    for pieces in (1, 2):
        run = RunConfig(out=str(tmp_path / str(pieces)), device="cpu", samples=4, grad_accum=pieces)
        trainer = Trainer(Keeping, config, run, dataset=tiny)
        trainer.train()
        found[pieces] = trainer.recipe.found
    assert [len(fake) for fake in found[1]] == [8, 8]
    assert [len(fake) for fake in found[2]] == [4, 4, 8]  # the last update of all: whole
    torch.testing.assert_close(torch.stack(found[2][:2], 1).flatten(0, 1), found[1][0])
