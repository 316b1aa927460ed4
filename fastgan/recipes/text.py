"""What the text recipes share: data, generator, samples and metrics."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from fastgan import models
from fastgan._surroundings import in_float32
from fastgan.data import registered
from fastgan.data.text import UNK, TextData, Vocabulary
from fastgan.media import Text
from fastgan.metrics import evaluate_text, suite
from fastgan.options import Batch, Count, NonNegative
from fastgan.recipes import Recipe, RecipeConfig
from fastgan.training.recipe import named


@dataclass
class TextConfig(RecipeConfig):
    """Options of every text recipe."""

    batch_size: Batch = 64
    """Sentences per update and process."""
    ema_halflife: NonNegative = 0.0
    """Half-life of the generator's moving average, which samples are drawn from, in sentences. 0: no average."""
    level: str | None = None
    """char, word or the path of a tokenizers .json file. Default: characters for the poems, words elsewhere."""
    length: Count | None = None
    """Tokens per sentence; longer ones are cut. Default: the longest sentence."""
    max_vocabulary: Count | None = None
    """Keep this many tokens, the most frequent; the others become unknown. Default: all."""
    oracle: str | None = None
    """Weights of an oracle of your own (.safetensors or torch.save) for --data oracle."""
    generator: Literal["lstm", "relational", "transformer"] = "lstm"
    """Generator network."""
    embedding: Count = 64
    """Width of the token embedding (lstm, relational)."""
    hidden: Count = 128
    """Width of the LSTM, the relational memory (two heads of half of it) or the Transformer."""
    pretrain_lr: NonNegative = 5e-3
    """Adam's learning rate for maximum likelihood."""


class TextRecipe(Recipe):
    """Base of `mle`, `seqgan` and `relgan`: a generator in `networks`, trained by maximum likelihood in `mle_step`."""

    Config = TextConfig
    medium = Text
    sample_options = ()
    run_defaults: ClassVar = {"data": "tang-quatrains", "samples": 16, "sample_every": 50, "metrics_every": 50}
    metrics = evaluate_text.METRICS
    headline = ("nll-test", "nll-oracle", "bleu-2", "bleu-3", "self-bleu-2")
    dynamic = "its sentences are drawn in loops that no graph was made of yet"
    whole_generator = "it is called token by token and not through forward"

    def __init__(self, config: TextConfig, data: dict):
        super().__init__(config, data)
        sizes = {
            "lstm": {"embedding": config.embedding, "hidden": config.hidden},
            "relational": {"embedding": config.embedding, "heads": 2, "head_size": config.hidden // 2},
            "transformer": {"width": config.hidden},
        }[config.generator]
        tokens = {name: data[name] for name in ("length", "start", "end", "pad")}
        self.generator = models.build(f"text.{config.generator}", vocabulary=data["vocabulary_size"], **tokens, **sizes)
        self.networks = {"generator": self.generator}
        self.optimizers = {"pretrain": torch.optim.Adam(self.generator.parameters(), lr=config.pretrain_lr)}
        self.vocabulary = None if data["vocabulary"] is None else Vocabulary.from_dict(data["vocabulary"])
        if self.vocabulary is not None and len(self.vocabulary) != data["vocabulary_size"]:
            raise ValueError(
                f"{self.name}: the vocabulary has {len(self.vocabulary)} tokens, expected {data['vocabulary_size']}"
            )
        self.latent_shape = (data["length"],)
        self._corpus: TextData | None = None

    @classmethod
    def load_data(cls, name: str, config: TextConfig, split: str | None = None) -> TextData:
        if split is not None:
            raise ValueError(f"{name}: split={split!r} is not offered for texts: a tenth of the lines is held out")
        return _load(name, config)

    def mle_step(self, batch) -> dict[str, torch.Tensor]:
        loss = self.generator.nll_loss(batch.real)
        if self.data["pad"] is None:
            return {"loss": loss}
        # A mean over tokens, of which pieces and processes have different numbers.
        mine, all_pieces = (
            (tokens != self.data["pad"]).sum(dtype=loss.dtype) for tokens in (batch.real, batch.whole[0])
        )
        return {"loss": loss * (mine * batch.pieces / batch.mean(all_pieces))}

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """int64 [N, L] -> sentences; of oracle data, numbers."""
        if self.vocabulary is None:
            return [" ".join(map(str, row)) for row in tokens.tolist()]
        return self.vocabulary.decode(tokens)

    def latents(self, seeds: list[int]) -> torch.Tensor:
        """float32 [N, L], uniform: the draws of each sentence, from its seed alone."""
        seeded = (torch.Generator("cpu").manual_seed(seed) for seed in seeds)
        return torch.stack(
            [torch.rand(self.latent_shape, generator=g, device="cpu", dtype=torch.float32) for g in seeded]
        )

    def draw_tokens(self, networks: dict[str, nn.Module], seeds: list[int], temperature: float = 1.0) -> torch.Tensor:
        """int64 [N, L], one sentence per seed."""
        generator = networks["generator"]
        uniform = self.latents(seeds).to(next(generator.parameters()).device)
        return generator.sample(len(seeds), temperature=temperature, uniform=uniform).cpu()

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> list[str]:
        return self.decode(self.draw_tokens(networks, seeds))

    def temperatures(self) -> tuple[float, ...]:
        """Sampling temperatures that `evaluate` compares."""
        return (1.0,)

    @in_float32
    def evaluate(
        self,
        networks: dict[str, nn.Module],
        run: dict,
        count: int = 2000,
        metrics: Sequence[str] | None = None,
        **image_options,
    ) -> dict[str, dict[str, float]]:
        """Text metrics of `count` sentences, by sampling temperature; `run` holds the options it was trained with."""
        choice = suite.choose(suite.rows(self.metrics, asked=metrics), metrics, count)
        seeds = [list(range(i, min(i + 500, count))) for i in range(0, count, 500)]
        unknown, oracle = (None, True) if self.vocabulary is None else (UNK, False)

        def corpus() -> TextData:
            if self.dataset is not None:  # of its name alone what is held out might be what this one is trained on
                return self.dataset
            if self._corpus is None:  # the oracle needs seconds to write its sentences, too many at every measurement
                self._corpus = _load(named(run), self.config, self.vocabulary, self.data["length"])
            return self._corpus

        if run.get("data_asked"):
            corpus()
        columns = {}
        for temperature in self.temperatures():

            @functools.cache
            def generated(temperature: float = temperature) -> torch.Tensor:
                return torch.cat([self.draw_tokens(networks, part, temperature) for part in seeds])

            facts = self.provided(networks, run, count)
            facts |= {"data": corpus, "samples": lambda generated=generated: self.decode(generated())}
            facts |= evaluate_text.facts(networks["generator"], generated, corpus, unknown, temperature, oracle)
            label = "value" if self.temperatures() == (1.0,) else f"T={temperature:g}"
            columns[label] = suite.compute(choice, facts, count, strict=metrics is not None, told=self.told)
        return columns


def _load(name: str, config: TextConfig, vocabulary: Vocabulary | None = None, length: int | None = None) -> TextData:
    """`length`: of a run's sentences, to which others are cut, as no generator writes or scores longer ones; a user's loader has
    lengths of its own."""
    if length is None or registered.loader(name):
        length = config.length
    options = {"level": config.level, "length": length, "max_vocabulary": config.max_vocabulary}
    return Text.load(name, **options, vocabulary=vocabulary, oracle=config.oracle)
