"""What a user writes, for a type checker: `pyright` reads it, nobody runs it. Every public name has a known type here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastgan
from fastgan.data import ImageDataset, Loader
from fastgan.metrics.suite import Row
from fastgan.options import Count
from fastgan.recipes import RECIPES, Recipe, RecipeConfig, Update
from fastgan.training import RunConfig, Trainer
from fastgan.training.sinks import Sink


def train() -> torch.Tensor | list[str]:
    trained: fastgan.Run = fastgan.run("dcgan", data="emoji", steps=2, out="runs/python")
    folder: Path = trained.folder
    figures: dict[str, dict[str, float]] = trained.evaluate(100, ["fd"])
    rows: list[dict[str, float]] = trained.metrics
    print(folder, figures["dcgan"]["fd_efflite0"], rows[-1]["step"])
    return fastgan.Run(folder).sample(range(16))


def by_hand(folder: Path) -> Path:
    kind: type[Recipe] = fastgan.recipes.get("dcgan")
    trainer = Trainer(kind, kind.Config(steps=10), RunConfig(out=str(folder)))
    try:
        done: Path = trainer.train()
    finally:
        trainer.close()
    networks: dict[str, nn.Module] = trainer.ema.networks
    print(repr(trainer), networks["generator"], trainer.step + 1)
    recipe, averaged = fastgan.recipes.load_run(done)
    recipe.sample(averaged, [0, 1])
    checkpoint = fastgan.training.load_checkpoint(done)
    print(checkpoint.tensors["network/generator/weight"].shape)
    return done


def operations(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = fastgan.ops.bias_act(x, weight[0], act="lrelu", clamp=256.0)
    f: torch.Tensor = fastgan.ops.setup_filter([1, 3, 3, 1])
    x = fastgan.ops.upfirdn2d(x, f, up=2, padding=1)
    x = fastgan.ops.upsample2d(fastgan.ops.downsample2d(fastgan.ops.filter2d(x, f), f), f)
    x = fastgan.ops.filtered_lrelu(x, fu=f, fd=f, up=2, down=2)
    x = fastgan.ops.norm_act(fastgan.ops.conv2d(x, weight), act="relu")
    x = fastgan.ops.modulated_conv2d(x, weight, styles=x.mean((2, 3)), demodulate=True)
    x = fastgan.ops.pixel_norm(fastgan.ops.minibatch_stddev(x, group_size=4))
    available: dict[str, dict[str, Any]] = fastgan.ops.available()
    print(available["bias_act"]["cpp"])
    return fastgan.ops.grad_penalty(x, kind="r1")


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv: nn.Module = fastgan.nn.EqualConv2d(3, 8, 3)
        self.act: nn.Module = fastgan.nn.FusedLeakyReLU(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x)).mean((1, 2, 3))


def losses(network: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = network(fake)
    loss: torch.Tensor = fastgan.losses.adversarial.non_saturating.d_loss(network(real), logits)
    penalty: torch.Tensor = fastgan.losses.penalty.r1(logits, fake, gamma=10.0)
    return (loss + penalty).mean()


def drop_in(module: nn.Module) -> None:
    report: fastgan.PatchReport = fastgan.accelerate(module, dry_run=True)
    print(report.replaced[0].where, report.refused)
    fastgan.unpatch(report)
    with fastgan.patched("op"):
        pass
    fastgan.unpatch(fastgan.patch_ops("torch_utils.ops"))
    fastgan.tune_cpu_allocator()


def networks() -> nn.Module:
    names: list[str] = fastgan.models.list_models()
    print(names, fastgan.models.stylegan2.Generator)
    return fastgan.models.build("stylegan2", resolution=64)


@fastgan.data.register("mine")
def load_mine(part: str = "all", resolution: int | None = None) -> ImageDataset:
    images = torch.zeros(10, 3, resolution or 32, resolution or 32, dtype=torch.uint8)
    return ImageDataset(images, None, name=f"mine:{part}")


def batches() -> None:
    data = fastgan.data.load("emoji", resolution=32, flip=True)
    for (images, *_), _step in zip(Loader(data, 16), range(2), strict=False):
        print(fastgan.data.to_float(images).shape)


@fastgan.metrics.register("roughness", needs=("samples",), better="lower", about="0 to 2")
def roughness(samples: torch.Tensor) -> torch.Tensor:
    step: torch.Tensor = samples[..., 1:] - samples[..., :-1]
    return step.abs().mean()


def brightness(samples: torch.Tensor) -> float:
    return float(samples.mean())


fastgan.metrics.register(Row("brightness", ("brightness",), ("samples",), brightness))


class Print(Sink):
    def write(self, step: int, values: Mapping[str, float]) -> None:
        print(step, values.get("generator/loss"))


@dataclass
class MineConfig(RecipeConfig):
    width: Count = 8
    """Channels."""


@RECIPES.register("mine", help="a line for the list")
class Mine(Recipe):
    name, Config = "mine", MineConfig

    def __init__(self, config: MineConfig, data: dict[str, Any]) -> None:
        super().__init__(config, data)
        generator = fastgan.models.build("dcgan", width=config.width)
        discriminator = fastgan.models.build("dcgan.discriminator", width=config.width)
        self.adversaries(generator, discriminator, lr=1e-3)

    def updates(self, step: int) -> list[Update]:
        return [Update("discriminator", self.d_step), Update("generator", self.g_step, fresh=False)]

    def d_step(self, batch: Any) -> dict[str, torch.Tensor]:
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": losses(self.discriminator, batch.real, fake)}

    def g_step(self, batch: Any) -> dict[str, torch.Tensor]:
        logits = self.discriminator(self.generator(batch.randn(*self.latent_shape)))
        return {"loss": fastgan.losses.adversarial.non_saturating.g_loss(None, logits).mean()}


def with_mine() -> fastgan.Run:
    return fastgan.run(Mine, dataset=load_mine(), sinks=[Print()], width=4)


VERSION: str = fastgan.__version__
