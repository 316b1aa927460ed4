"""SeqGAN (Yu et al., 2017): a text generator trained by policy gradient, its reward a discriminator's judgement of
Monte Carlo completions. Three phases: maximum likelihood, discriminator alone, both in turn (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastgan.losses import adversarial
from fastgan.models import build
from fastgan.models.text import Generator
from fastgan.models.text_discriminator import SEQGAN_FILTERS
from fastgan.options import Count, Decay, Natural, NonNegative, Positive
from fastgan.recipes import Update
from fastgan.recipes.text import TextConfig, TextRecipe
from fastgan.training.recipe import Preset


@dataclass
class SeqGANConfig(TextConfig):
    """SeqGAN: policy gradient with Monte Carlo rollouts, after maximum likelihood pretraining.

    The defaults suit a few thousand short sentences, which a discriminator soon knows by heart; its reward then says little of
    what is common to them. Hence one step of it, not the paper's 5, for each of the generator's, a small and strongly
    regularised one, few adversarial steps of a low learning rate, and maximum likelihood in between.
    """

    steps: Count = 600
    """Length of the run: pretraining of the generator and of the discriminator, then adversarial steps."""
    ema_halflife: NonNegative = 1_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in sentences: policy gradients are noisy,
    and their average swings less than the generator. The paper has none. 0: no average."""
    pretrain: Natural = 300
    """Steps of maximum likelihood. On the Tang quatrains held-out likelihood is best here; larger corpora bear more."""
    discriminator_pretrain: Natural = 200
    """Steps of the discriminator alone, after that."""
    discriminator_steps: Count = 1
    """Discriminator updates for each update of the generator; the paper's is 5."""
    rollouts: Count = 4
    """Monte Carlo completions of every prefix; the paper's is 16."""
    lr: NonNegative = 5e-4
    """Adam's learning rate for the policy gradient."""
    interleave_lr: NonNegative = 2e-3
    """Adam's learning rate for one step of maximum likelihood after each step of the policy gradient, LeakGAN's interleaved
    training (Guo et al., 2018, section 3.3); it keeps the generator from forgetting the text. 0: none, as in the paper."""
    discriminator_lr: NonNegative = 1e-3
    """Adam's learning rate for the discriminator."""
    filters: Positive = 0.25
    """Numbers of the discriminator's filters, as a share of the paper's."""
    widest: Count = 3
    """Widest filter of the discriminator, in tokens. Narrow ones memorise fewer sentences; the paper's go to 20."""
    dropout: Decay = 0.5
    """Share of the discriminator's features dropped in training; the paper's is 0.25."""
    embedding_range: Positive = 0.17
    """The discriminator's embeddings start from U(-r, r); the paper's r is 1."""


def rewards(
    generator: Generator, score: Callable[[Tensor], Tensor], tokens: Tensor, count: int, chunk: int = 2048
) -> Tensor:
    """Q(prefix, token) of each token: the expected score of the sentence if the generator continues, float [N, L].

    The mean of `score` (int64 [M, L] -> float [M]) over `count` completions of the prefix that ends with the token;
    for the last token the score of the sentence itself (Yu et al., 2017, eq. 4).
    """
    with torch.no_grad():
        completions = generator.rollouts(tokens, count)
        steps, _, n, length = completions.shape
        scores = torch.cat([score(part) for part in completions.view(-1, length).split(chunk)])
        return torch.cat([scores.view(steps, count, n).mean(1), score(tokens)[None]]).T


def advantages(q: Tensor, every: Tensor) -> Tensor:
    """Rewards q [N, L] less a baseline: q of the prefix before the token, which rollouts that know nothing of the token
    estimate; at the first token the mean over all other sentences of the whole batch, `every` [M], of which q[:, 0] is a
    part (0 for a single sentence). Neither depends on the token itself, so that the policy gradient's expectation stays
    as it is."""
    others = len(every) - 1
    first = (every.sum() - q[:, 0]) / others if others else torch.zeros_like(q[:, 0])
    return q - torch.cat([first[:, None], q[:, :-1]], dim=1)


class SeqGAN(TextRecipe):
    name = "seqgan"
    Config = SeqGANConfig
    presets: ClassVar = {
        "paper": Preset(
            "the oracle's sentences of 20 tokens, as Yu et al. (2017)",
            {
                "data": "oracle",  # section 4
                "embedding": 32,
                "hidden": 32,
                "batch_size": 64,
                "discriminator_steps": 5,
                "rollouts": 16,
                "filters": 1.0,  # appendix, table of the filters, as the next one
                "widest": 20,
                "dropout": 0.25,
                "embedding_range": 1.0,
                "interleave_lr": 0.0,
                "ema_halflife": 0.0,
            },
        )
    }
    whole_batch = "as a reward is measured against those of the other sentences"

    def __init__(self, config: SeqGANConfig, data: dict):
        super().__init__(config, data)
        self.discriminator = build(
            "text.seqgan_discriminator",
            vocabulary=data["vocabulary_size"],
            length=data["length"],
            filters=tuple((w, max(1, round(n * config.filters))) for w, n in SEQGAN_FILTERS if w <= config.widest),
            dropout=config.dropout,
            embedding_range=config.embedding_range,
        )
        self.networks["discriminator"] = self.discriminator
        self.optimizers |= {
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), lr=config.discriminator_lr),
            "generator": torch.optim.Adam(self.generator.parameters(), lr=config.lr),
        }

    def updates(self, step: int) -> list[Update]:
        discriminator, likelihood = Update("discriminator", self.d_step), Update("pretrain", self.mle_step)
        if step < self.config.pretrain:
            return [likelihood]
        if step < self.config.pretrain + self.config.discriminator_pretrain:
            return [discriminator]
        for group in self.optimizers["pretrain"].param_groups:
            group["lr"] = self.config.interleave_lr
        interleaved = [likelihood] if self.config.interleave_lr else []
        policy = Update("generator", self.g_step, fresh=False)
        return [policy, *interleaved, *[discriminator] * self.config.discriminator_steps]

    def d_step(self, batch) -> dict[str, Tensor]:
        self.discriminator.train()
        fake = self.generator.sample(batch.size)
        real_logits, fake_logits = self.discriminator(torch.cat([batch.real, fake])).chunk(2)
        loss = adversarial.non_saturating.d_loss(real_logits, fake_logits).mean()
        return {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}

    def g_step(self, batch) -> dict[str, Tensor]:
        self.discriminator.eval()  # a reward is no place for dropout
        tokens = self.generator.sample(batch.size)
        q = rewards(self.generator, lambda x: self.discriminator(x).sigmoid(), tokens, self.config.rollouts)
        log_prob = self.generator.log_prob(tokens)
        written = torch.ones_like(tokens) if self.data["pad"] is None else (tokens != self.data["pad"]).long()
        # The gradient of E[Q] is E[sum of Q grad log p]; what follows a sentence's end was not the generator's choice.
        # A mean over tokens, of which processes write different numbers.
        tokens_each = batch.mean(written.sum(dtype=q.dtype))
        loss = -(advantages(q, batch.gather(q[:, 0])) * log_prob * written).sum() / tokens_each
        return {"loss": loss, "reward": q[:, -1].mean()}
