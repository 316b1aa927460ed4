"""Real-ESRGAN (Wang et al., 2021): enlarging pictures that are blurred, noisy and compressed. First the generator learns by L1
alone (the paper's Real-ESRNet), then by

    l1 |y - G(x)|_1  +  perceptual d(y, G(x))  +  gan log(1 + exp(-D(G(x))))

against a U-Net of spectral norm 1 with a logit for each pixel. What is enlarged is made of the data: x is y degraded, anew for
each image and step. The distance d is `fastgan.metrics.perceptual`'s of EfficientNet-Lite0, where the paper's is the L1 distance
of VGG19's features; the truth is not sharpened.

Generator and discriminator take and give [0, 1], as the published ones: files of either serve the other's code.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.data import to_float, to_uint8
from fastgan.data.crisp import crisp
from fastgan.data.registered import absent
from fastgan.data.source import Spread, chosen, evenly, images_once, is_stream
from fastgan.losses import LOSSES
from fastgan.metrics import images as image_metrics
from fastgan.metrics import suite
from fastgan.metrics.efflite0 import EfficientNetLite0
from fastgan.metrics.perceptual import Perceptual
from fastgan.metrics.processes import share
from fastgan.models import esrgan
from fastgan.options import Batch, Count, Depth, Names, Natural, NonNegative, Share
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.recipes.degradation import degrade, numbers_of
from fastgan.recipes.examples import cut, of_seeds
from fastgan.sizes import sides
from fastgan.training.recipe import Preset, compared, compares_with_means, named

EXAMPLES = 16  # rows of the sample grid
READ = 64  # items of a stream for each that is measured on, at most
EMOJI = 32  # pixels of the embedded pictures, which are drawn larger where larger ones are asked for


@dataclass
class RealESRGANConfig(RecipeConfig):
    """Enlarges pictures four times: from 32 to 128 pixels on the embedded emoji, drawn larger, or learnt on any folder."""

    steps: Count = 20_000
    """Length of the run, in generator updates."""
    batch_size: Batch = 8
    """Images per update and process."""
    ema_halflife: NonNegative = 5_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in images. 0: no average."""
    scale: Literal[1, 2, 4] = 4
    """How many times larger. 1 restores only."""
    network: Literal["rrdb", "compact"] = "compact"
    """rrdb: the residual-in-residual dense blocks of ESRGAN. compact: a plain chain, many times faster."""
    width: Count = 32
    """Channels of the generator. The published networks have 64."""
    blocks: Depth = 8
    """Blocks of rrdb (6 or 23 in the published networks), or convolutions of compact (16 or 32)."""
    disc_width: Count = 32
    """Channels of the discriminator's first layer. 64 in the paper."""
    patch: Count | None = None
    """Side of the random part of each image that is learnt from, a multiple of 8. Default: the whole image."""
    degradation: Share = 1.0
    """How far the pictures are degraded: 1 as in the paper, 0 only made smaller."""
    warmup: Natural = 5_000
    """First steps with L1 alone, without the discriminator."""
    l1: NonNegative = 1.0
    """Weight of the L1 distance, of values in [0, 1]."""
    perceptual: NonNegative = 0.2
    """Weight of the perceptual distance, by EfficientNet-Lite0's features. 0 needs no extractor."""
    gan: NonNegative = 0.1
    """Weight of the adversarial loss."""
    loss: Annotated[str, Names(LOSSES, ("non-saturating", "least-squares", "hinge"))] = "non-saturating"
    """Adversarial loss: non-saturating, least-squares, hinge, or one that you registered."""
    lr: NonNegative = 1e-4
    """Learning rate of both Adam optimisers."""


_PAPER = {
    "resolution": 256,  # section 4.1, as all below; batches of 48
    "batch_size": 48,
    "width": 64,
    "disc_width": 64,
    "warmup": 1_000_000,
    "steps": 1_400_000,
    "lr": 1e-4,
    "l1": 1.0,
    "gan": 0.1,
    "degradation": 1.0,
    "ema_halflife": 33_251.0,  # 0.999 an update of 48 images
}


class RealESRGAN(Recipe):
    name = "realesrgan"
    Config = RealESRGANConfig
    presets: ClassVar = {
        "paper256": Preset(
            "four times to 256x256, as Wang et al. (2021)", _PAPER | {"network": "rrdb", "blocks": 23, "scale": 4}
        ),
        "paper256-x2": Preset("the same, two times", _PAPER | {"network": "rrdb", "blocks": 23, "scale": 2}),
        "compact256": Preset(
            "the same losses and data for the compact network", _PAPER | {"network": "compact", "blocks": 32}
        ),
    }
    run_defaults: ClassVar = {"data": "emoji", "resolution": 128}
    averaged = ("generator", "examples")
    metrics = ("l1", "psnr", "ssim", "fd", "kid")
    headline = ("psnr", "fd_")
    sample_options = ("input", "tile", "overlap")
    sample_columns = ("low", "ours", "bicubic", "original")
    dynamic = "each image is degraded by sizes and filters of its own, which the host decides"

    def __init__(self, config: RealESRGANConfig, data: dict[str, Any]):
        super().__init__(config, data)
        channels, self.scale = data["channels"], config.scale
        self.size = (config.patch, config.patch) if config.patch else sides(data["resolution"])
        multiple = math.lcm(8, config.scale)
        for what, size in (("resolution", sides(data["resolution"])), ("patch", self.size)):
            if any(side % multiple for side in size):
                near = max(multiple, round(min(size) / multiple) * multiple)
                raise ValueError(f"realesrgan: {what} is {size[0]}x{size[1]}, expected multiples of {multiple}: {near}")
        if any(part > side for part, side in zip(self.size, sides(data["resolution"]), strict=True)):
            raise ValueError(f"realesrgan: patch is {config.patch}, and the images have {data['resolution']} pixels")
        self.loss = LOSSES.resolve(config.loss)
        if self.loss.relativistic:
            raise ValueError(
                f"realesrgan: loss is {config.loss!r}, which compares with real images; take non-saturating"
            )
        if config.network == "rrdb":
            sizes = esrgan.GeneratorConfig(
                channels, channels, config.scale, config.width, config.blocks, max(1, config.width // 2)
            )
            generator = esrgan.Generator(sizes)
        else:
            sizes = esrgan.CompactConfig(channels, channels, config.scale, config.width, config.blocks)
            generator = esrgan.Compact(sizes)
        judge = esrgan.Discriminator(esrgan.DiscriminatorConfig(channels, config.disc_width))
        self.adversaries(generator, judge, lr=config.lr, betas=(0.9, 0.99))
        self.networks["examples"] = Examples(channels, sides(data["resolution"]), config.scale)
        self._read: tuple[Any, Any, torch.Tensor | None] = None, None, None

    @classmethod
    def load_data(cls, name: str, config: RealESRGANConfig, *, split: str | None = None, **options):
        """As of every recipe; of the embedded emoji the training set, drawn larger (`fastgan.data.crisp`) where a multiple of
        their 32 pixels is asked for."""
        if not str(name).startswith("emoji"):
            return super().load_data(name, config, split=split, **options)
        side = options.get("resolution")
        larger = isinstance(side, int) and side > EMOJI and side % EMOJI == 0
        if larger:
            options["resolution"] = None
        data = super().load_data(name, config, split=split or "train", **options)
        return data.replace(images=crisp(data.images, side // EMOJI)) if larger else data

    @property
    def whole_batch(self) -> str:
        return compares_with_means(self.loss, self.config.loss)

    def prepare(self, dataset) -> None:
        """Examples for the grids, the first images (of few, again and again), degraded as in training; and the extractor is
        there, or nothing begins."""
        if self.config.perceptual:
            self.perceptual  # noqa: B018 - its ImportError
        kept, high = self.networks["examples"], first(dataset, EXAMPLES)
        kept.high.copy_(high[torch.arange(EXAMPLES) % len(high)])
        kept.low.copy_(self.low(kept.high))

    @functools.cached_property
    def perceptual(self) -> nn.Module:
        # Not one of `networks`: its weights are published, and no part of a checkpoint.
        network = EfficientNetLite0.pretrained(max(self.size)).to(next(self.generator.parameters()).device)
        return Perceptual(network.maps)

    def updates(self, step: int) -> list[Update]:
        if step < self.config.warmup:
            return [Update("generator", self.warm_step)]
        # The generator goes first: its one pass then serves both.
        return [Update("generator", self.g_step), Update("discriminator", self.d_step, fresh=False)]

    def pair(self, batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A part of each image and the same degraded, in [0, 1]."""
        high = (cut(batch.real, self.size, batch.rand(2)) + 1) / 2
        uniform, normal = numbers_of(*high.shape[1:])
        low = degrade(high, self.scale, self.config.degradation, batch.rand(*uniform), batch.randn(*normal))
        return high, low

    def warm_step(self, batch) -> dict[str, torch.Tensor]:
        high, low = self.pair(batch)
        l1 = F.l1_loss(self.generator(low), high)
        return {"loss": l1, "l1": l1}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        high, low = self.pair(batch)
        fake = self.generator(low)
        batch.keep(high=high, fake=fake)
        config, terms = self.config, {"l1": F.l1_loss(fake, high)}
        if config.perceptual:
            terms["perceptual"] = self.perceptual(fake * 2 - 1, high * 2 - 1).mean()
        terms["gan"] = self.loss.g_loss(*compared(self.loss, batch, None, self.discriminator(fake))).mean()
        return {"loss": sum(getattr(config, name) * term for name, term in terms.items()), **terms}

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        real_logits, fake_logits = self.discriminator(batch.kept("high")), self.discriminator(batch.kept("fake"))
        loss = self.loss.d_loss(*compared(self.loss, batch, real_logits, fake_logits)).mean()
        return {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}

    def low(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] -> small degraded ones, in [-1, 1]; image i by the draws of seed i."""
        uniform, normal = numbers_of(*images.shape[1:])
        made = []
        for i, image in enumerate(images.split(1)):
            g = torch.Generator("cpu").manual_seed(i)
            u, n = torch.rand(1, *uniform, generator=g), torch.randn(1, *normal, generator=g)
            made.append(degrade((image + 1) / 2, self.scale, self.config.degradation, u, n.to(image.device)))
        return torch.cat(made) * 2 - 1

    def upscale(self, networks: dict[str, nn.Module], images: torch.Tensor) -> torch.Tensor:
        """images [N, C, h, w] in [-1, 1] -> [N, C, scale h, scale w]."""
        images = images.to(next(networks["generator"].parameters()).device)
        return networks["generator"]((images + 1) / 2) * 2 - 1

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        """[N, C, H, 4 W], a strip per example: the small picture, what the network and what bicubic interpolation make of it, and
        the truth. Seed i shows example i."""
        kept = networks["examples"]
        index = of_seeds(seeds, kept.high)
        low, high = kept.low[index], kept.high[index]
        small = F.interpolate(low, high.shape[2:], mode="nearest")
        return torch.cat([small, self.upscale(networks, low), bicubic(low, high.shape[2:]), high], 3)

    @in_float32
    def evaluate(
        self,
        networks: dict[str, nn.Module],
        run: dict[str, Any],
        count: int,
        extractor: str | None = "efflite0",
        weights: Path | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, dict[str, float]]:
        """The network's and bicubic interpolation's enlargements of degraded images against these images: of the test split where
        the data have one; at most `count`, spread over it."""
        title = extractor and image_metrics.title(extractor, weights)
        choice = suite.choose(suite.rows(self.metrics, title, metrics), metrics, count)
        high = self.pictures(run, count)
        low = self.low(high)

        @functools.cache
        def network() -> nn.Module:
            image_metrics.tell(self.data, self.told)
            return image_metrics.load_extractor(extractor, weights=weights)

        @functools.cache
        def real() -> image_metrics.Features:
            return image_metrics.collect(network(), [to_uint8(share(high))])

        makers = {self.name: lambda x: self.upscale(networks, x).cpu(), "bicubic": lambda x: bicubic(x, high.shape[2:])}
        columns = {}
        for name, make in makers.items():
            with torch.no_grad():
                made = torch.cat([make(part).float() for part in low.split(16)]).clamp(-1, 1)  # as they are shown
            facts = {"output": lambda y=made: y, "target": lambda: high, "samples": lambda y=made: y}
            if extractor:
                facts |= {"real": real, "fake": lambda y=made: image_metrics.collect_drawn(network(), [share(y)])}
            columns[name] = suite.compute(choice, facts, len(high), strict=metrics is not None, told=self.told)
            self.measured[name] = len(high)
        return columns

    def pictures(self, run: dict[str, Any], count: int) -> torch.Tensor:
        """What `evaluate` measures on, float [N, C, H, W] in [-1, 1]. Those of a stream, which is read for minutes, are kept."""
        given, asked, found = self._read
        if found is None or given is not self.dataset or asked != (run.get("data"), count):
            dataset = self.held_out(run)
            found = some(dataset, count)
            if is_stream(dataset):
                self._read = self.dataset, (run.get("data"), count), found
        return found if found.is_floating_point() else to_float(found)

    def held_out(self, run: dict[str, Any]):
        """The data set that `evaluate` measures on."""
        if self.dataset is not None:
            return self.given_data()
        options = {key: run[key] for key in ("resolution", "channels", "bits", "crop", "strict") if key in run}
        try:
            return self.load_data(named(run), self.config, split="test", **options)
        except ValueError as error:
            if not absent(error, named(run)):
                raise
            return self.load_data(run["data"], self.config, split=run.get("split"), **options)


class Examples(nn.Module):
    """Images that the grids show, kept with the networks so that sampling needs no data."""

    def __init__(self, channels: int, size: tuple[int, int], scale: int):
        super().__init__()
        self.register_buffer("high", torch.zeros(EXAMPLES, channels, *size))
        self.register_buffer("low", torch.zeros(EXAMPLES, channels, *(side // scale for side in size)))


def first(dataset, count: int) -> torch.Tensor:
    """The first `count` images of a data set, float [N, C, H, W] in [-1, 1]; all of a smaller one."""
    parts, held = [], 0
    for part in images_once(dataset):
        parts.append(part if part.is_floating_point() else to_float(part[: count - held]))
        if (held := held + len(part)) >= count:
            break
    return torch.cat(parts)[:count]


def some(dataset, count: int) -> torch.Tensor:
    """`count` images, as they are stored, spread over a data set; of a stream, which may be without an end, over its first
    `READ` times as many."""
    images = getattr(dataset, "images", None)
    if isinstance(images, torch.Tensor):
        return images[evenly(len(images), count)]
    if not is_stream(dataset):
        return chosen(dataset, evenly(len(dataset), count))[0]
    kept = Spread(count)
    for part in itertools.islice(images_once(dataset, size=64), -(-READ * count // 64)):
        kept.add(part)
    return kept.kept()[0]


def bicubic(images: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(images, tuple(size), mode="bicubic", align_corners=False).clamp(-1, 1)
