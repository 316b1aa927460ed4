"""Vocoders: speech from mel spectrograms, as HiFi-GAN (Kong et al., 2020) and BigVGAN (Lee et al., 2023) train them. With G the
generator, D_i the discriminators and f their maps,

D: sum mean (1 - D_i(y))^2 + mean D_i(G(m))^2                                           m = mel(y)
G: sum mean (1 - D_i(G(m)))^2 + 2 sum |f(y) - f(G(m))|_1 + lambda |mel(y) - mel(G(m))|_1
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.data.source import evenly
from fastgan.data.speech import Recordings, load_recordings
from fastgan.losses.pitch import pitch_loss, track_pitch
from fastgan.losses.vocoder import MultiScaleMel, map_matching, sum_d, sum_g
from fastgan.media import Signal
from fastgan.metrics import speech, suite
from fastgan.models import network_class, source_filter, vocoder_constant_q, vocoder_discriminator
from fastgan.nn import MelSpectrogram
from fastgan.ops._autocast import without_autocast
from fastgan.options import Batch, Count, Decay, Natural, NonNegative, Positive
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.recipes.vocoder_presets import GENERATORS, PRESETS
from fastgan.training.recipe import named

METRICS = ("mel-l1", "stft", "voicing", "pesq", "stoi", "fd-mel")
EXAMPLES, SECONDS = 8, 2  # of the samples
LENGTH = 8192  # of a segment, where the run gives none


@dataclass
class VocoderConfig(RecipeConfig):
    """A vocoder of recordings, by default of pulses and noise. The defaults are for two CPU cores and half an hour."""

    steps: Count = 3000
    """Length of the run, in generator updates."""
    batch_size: Batch = 4
    """Segments per update and process."""
    ema_halflife: NonNegative = 1000.0
    """Half-life of the generator's moving average, in segments. 0: no average, as in the papers."""
    generator: Literal[
        "tiny", "vocos", "hifigan-v1", "hifigan-v2", "hifigan-v3", "bigvgan-base", "bigvgan-v2", "bigvgan-v2-512"
    ] = "tiny"
    """The network."""
    bands: Count = 80
    """Mel bands that it hears."""
    window: Count = 1024
    """Samples of a window of the mel spectrogram; the generator decides the hop."""
    high: Positive | None = 8000.0
    """The highest frequency of the mel spectrogram that the generator hears, in Hz. None: half the rate."""
    second: Literal["scales", "resolutions", "spectra", "constant-q"] = "spectra"
    """What judges beside the periods: scales of the signal (HiFi-GAN), resolutions of its spectrum (BigVGAN), complex spectra
    (EnCodec), or constant-Q transforms (BigVGAN-v2)."""
    judge: Positive = 0.125
    """Width of the discriminators, as a share of the papers'."""
    warmup: Natural = 2000
    """Steps before the discriminators begin: until then the generator learns from the mel spectrogram alone."""
    mel_loss: Literal["single", "multi"] = "multi"
    """Distance of mel spectrograms: of the one that is heard, to half the rate (HiFi-GAN), or of seven windows (BigVGAN-v2)."""
    mel_weight: NonNegative = 15.0
    """lambda."""
    lr: NonNegative = 1e-3
    """Learning rate of the AdamW optimisers."""
    lr_decay: Decay = 0.999
    """Factor of the learning rate at each step."""
    beta1: Decay = 0.8
    """AdamW's decay rate of the mean gradient."""
    clip: NonNegative = 0.0
    """Norm to which the gradients of the generator, and of each kind of discriminator, are cut. 0: as they are."""


class Analysis(nn.Module):
    """What signals are heard and compared by, and the recordings that the samples show, kept with the networks so that sampling
    needs no data."""

    def __init__(self, mel: MelSpectrogram, distance: nn.Module, length: int):
        super().__init__()
        self.mel, self.distance = mel, distance
        self.register_buffer("examples", torch.zeros(EXAMPLES, 1, length))


class MelDistance(nn.Module):
    """Mean absolute difference of log mel spectrograms of signals [N, 1, T]."""

    def __init__(self, mel: MelSpectrogram):
        super().__init__()
        self.mel = mel

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.mel(x) - self.mel(y)).abs().mean()


def _width(config: VocoderConfig) -> int:
    """Channels of the discriminators' first layers; 32 in the papers."""
    return max(1, round(32 * config.judge))


def _second(config: VocoderConfig, rate: int) -> nn.Module:
    width = _width(config)
    if config.second == "constant-q":  # 128 in BigVGAN-v2
        return vocoder_constant_q.ConstantQs(vocoder_constant_q.ConstantQConfig(rate, 4 * width))
    if config.second == "scales":
        return vocoder_discriminator.Scales(vocoder_discriminator.ScalesConfig(max(16, width // 4 * 16)))
    if config.second == "spectra":
        return vocoder_discriminator.Spectra(vocoder_discriminator.SpectraConfig(width))
    return vocoder_discriminator.Resolutions(vocoder_discriminator.ResolutionsConfig(width=width))


class Vocoder(Recipe):
    name = "vocoder"
    Config, medium = VocoderConfig, Signal
    presets: ClassVar = PRESETS
    run_defaults: ClassVar = {"data": "speech", "samples": EXAMPLES}
    averaged = ("generator", "analysis")
    metrics = METRICS
    headline = ("pesq", "stoi", "mel-l1")
    sample_options = ("separate", "input", "mel")
    kept = ("window", "high")  # what is heard; other options change a network's shape
    dynamic = "torch's Fourier transforms of windows ask the host about them"
    whole_generator = "its networks are small, and the recordings that its samples show are kept with them"

    def __init__(self, config: VocoderConfig, data: dict[str, Any]):
        super().__init__(config, data)
        kind, options = GENERATORS[config.generator]
        network, rate, length = network_class(kind), data["rate"], data["length"]
        high = None if config.high is None else min(config.high, rate / 2)
        heard = {"bands": config.bands, "rate": rate, "high": high, "window": config.window}
        known = {field.name for field in dataclasses.fields(network.Config)}
        self.generator = network(network.Config(**options | {k: v for k, v in heard.items() if k in known}))
        hop = self.generator.hop
        least = max(config.window, 2048)
        if length % hop or length < least:
            raise ValueError(
                f"vocoder: length is {length}, expected a multiple of {hop}, the samples of a frame, and at least {least}: give "
                f"length={max(-(-least // hop), round(length / hop)) * hop}"
            )
        spectrogram = functools.partial(MelSpectrogram, rate, config.window, hop, bands=config.bands)
        distance = MultiScaleMel(rate) if config.mel_loss == "multi" else MelDistance(spectrogram())
        self.analysis = Analysis(spectrogram(high=high), distance, SECONDS * rate // hop * hop)
        self.periods = vocoder_discriminator.Periods(vocoder_discriminator.PeriodsConfig(width=_width(config)))
        self.second = _second(config, rate)
        self.networks = {
            "generator": self.generator,
            "analysis": self.analysis,
            "periods": self.periods,
            config.second: self.second,
        }
        self.optimizers = {
            "generator": self._adam(self.generator),
            "discriminator": self._adam(self.periods, self.second),
        }

    def _adam(self, *networks: nn.Module) -> torch.optim.Optimizer:
        """AdamW with the papers' weight decay, torch's default; each network's gradient is cut on its own."""
        config, groups = self.config, [list(network.parameters()) for network in networks]
        parameters = [p for group in groups for p in group]
        made = torch.optim.AdamW(parameters, lr=config.lr, betas=(config.beta1, 0.99))
        if config.clip:
            made.register_step_pre_hook(
                lambda *_: [torch.nn.utils.clip_grad_norm_(group, config.clip) for group in groups] and None
            )
        return made

    @classmethod
    def load_data(cls, name: str, config: VocoderConfig, **options) -> Recordings:
        """Recordings (`fastgan.data.load_recordings`)."""
        channels, length = options.pop("channels", None), options.pop("length", None)
        if channels not in (None, 1):
            raise ValueError(f"channels is {channels}, but {cls.name} hears one: leave it out")
        return load_recordings(name, length=length or LENGTH, **options)

    @classmethod
    def describe(cls, dataset: Recordings) -> dict[str, Any]:
        if not isinstance(dataset, Recordings):
            raise ValueError(
                f"{cls.name} trains on parts of recordings: expected Recordings, got {type(dataset).__name__}"
            )
        return super().describe(dataset)

    Facts = Signal.Facts

    def prepare(self, dataset: Recordings) -> None:
        """Recordings for the samples, of those held out where there are any."""
        some = dataset.held_out or dataset.recordings
        for i, kept in enumerate(self.analysis.examples):
            source = some[i % len(some)][: kept.shape[1]]
            kept[0, : len(source)] = source

    def updates(self, step: int) -> list[Update]:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * self.config.lr_decay**step
        self.judged = step >= self.config.warmup
        generator = Update("generator", self.g_step)
        # The papers' discriminators go first; here the generator's one pass serves both.
        return [generator, Update("discriminator", self.d_step, fresh=False)] if self.judged else [generator]

    def cut(self, batch) -> torch.Tensor:
        """A random part of each window, [N, 1, length]."""
        windows, length = batch.real, self.data["length"]
        first = (batch.rand(1) * (windows.shape[2] - length + 1)).long()
        return windows.gather(2, (first + torch.arange(length, device=windows.device))[:, None])

    def judges(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
        found = [self.periods(x), self.second(x)]
        return [one for logits, _ in found for one in logits], [one for _, maps in found for one in maps]

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        real = self.cut(batch)
        fake, losses = self.spoken(batch, real)
        batch.keep(real=real, fake=fake)
        with without_autocast(real):
            losses["mel"] = self.analysis.distance(real, fake)
        loss = self.config.mel_weight * losses["mel"] + losses.get("pitch", 0)
        if not self.judged:
            return {"loss": loss} | losses
        with torch.no_grad():
            _, real_maps = self.judges(real)
        logits, maps = self.judges(fake)
        gan, matching = sum_g(logits), map_matching(real_maps, maps)
        return {"loss": loss + gan + matching, "gan": gan, "matching": matching} | losses

    def spoken(self, batch, real: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the generator makes of the mel spectrograms of signals, and the loss of its pitch where it has one."""
        mel, generator = self.analysis.mel(real), self.generator
        if not isinstance(generator, source_filter.Generator):
            return generator(mel).float(), {}
        logits, voiced = generator.pitch(mel)
        true = track_pitch(real[:, 0], self.data["rate"], generator.hop)
        loss = pitch_loss(logits.float(), voiced.float(), generator.pitch.grid, *true)
        # From any phase and place in the noise: from one alone, the network would learn that noise by heart.
        return generator(mel, generator.anywhere(batch.rand(1)[:, 0])).float(), {"pitch": loss}

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        real, _ = self.judges(batch.kept("real"))
        fake, _ = self.judges(batch.kept("fake"))
        mean = [sum(x.mean() for x in some) / len(some) for some in (real, fake)]
        return {"loss": sum_d(real, fake), "real": mean[0], "fake": mean[1]}

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        """[N, 1, T]: a recording, a fifth of a second of silence, the same from its mel spectrogram. Seed i: example i % 8."""
        analysis = networks["analysis"]
        index = torch.tensor([seed % EXAMPLES for seed in seeds], device=analysis.examples.device)
        real = analysis.examples[index]
        gap = real.new_zeros(len(index), 1, self.data["rate"] // 5)
        return torch.cat([real, gap, networks["generator"](analysis.mel(real))], 2)

    def heard(self, networks: dict[str, nn.Module]) -> MelSpectrogram:
        """What makes the mel spectrograms that the generator takes."""
        return networks["analysis"].mel

    @in_float32
    def evaluate(
        self,
        networks: dict[str, nn.Module],
        run: dict[str, Any],
        count: int,
        extractor: str | None = None,
        weights: Path | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, dict[str, float]]:
        """At most `count` of the recordings that are held out, spread over them, from their mel spectrograms, against themselves;
        beside the recipe's stands Griffin-Lim's speech of 32 iterations. `extractor`, `weights`: none is used."""
        choice = suite.choose(suite.rows(METRICS, None, metrics), metrics, count)
        data = self.dataset
        if data is None:
            names = ("split", "length", "strict")
            options = {name: run[name] for name in names if name in run}
            data = self.load_data(named(run), self.config, rate=self.data["rate"], **options)
        analysis = networks["analysis"]
        mel, hop = analysis.mel, analysis.mel.hop
        # To half the rate, whatever the generator hears.
        full = MelSpectrogram(self.data["rate"], mel.length, hop, bands=mel.bands)
        held_out = [x for x in data.held_out if len(x) >= mel.length]
        held_out = [held_out[i] for i in evenly(len(held_out), count).tolist()]
        if not held_out:
            raise ValueError(f"{data.name}: no recording is held out to evaluate on")
        recorded = [x[: len(x) // hop * hop] for x in held_out]
        device = analysis.examples.device
        with torch.no_grad():
            mels = [mel(x[None].to(device))[0].cpu() for x in recorded]

        @torch.no_grad()
        def ours() -> list[torch.Tensor]:
            return [networks["generator"](m[None].to(device))[0, 0].float().cpu() for m in mels]

        def theirs() -> list[torch.Tensor]:
            heard = copy.deepcopy(mel).cpu()
            return [speech.griffin_lim(m[None], heard)[0] for m in mels]

        facts = {"recorded": lambda: recorded, "rate": lambda: self.data["rate"], "mel": lambda: full}
        columns = {self.name: functools.cache(ours), "Griffin-Lim": functools.cache(theirs)}
        self.measured = dict.fromkeys(columns, len(recorded))
        return {
            name: suite.compute(
                choice,
                facts | {"made": made},
                len(recorded),
                strict=metrics is not None,
                told=self.told,
            )
            for name, made in columns.items()
        }
