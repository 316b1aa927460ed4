"""The text metrics of a generator, as `fastgan eval` prints them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from fastgan.data.source import evenly
from fastgan.metrics import suite, text

REFERENCES = 5000  # sentences of either part that are compared with, at most


class Tempered(NamedTuple):
    """The likelihood of a generator whose logits are divided by `temperature`: what sampling at it draws from."""

    generator: nn.Module
    temperature: float

    def log_prob(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.generator.logits(tokens) / self.temperature
        return -nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


METRICS = ("nll-gen", "nll-test", "nll-oracle", "bleu", "self-bleu", "distinct", "embedding-similarity")


def evaluate(
    generator, generated: torch.Tensor, data, unknown: int | None = None, temperature: float = 1.0
) -> dict[str, float]:
    """All metrics that can be computed, by name, of sentences `generated` (int64 [N, L] on the CPU), drawn from `generator` at
    `temperature`; a warning tells which cannot.

    `data` holds `train` and `test` (int64 [M, L]), `pad`, `end` and `oracle` (a model of the true distribution, or
    None). Where tokens are `unknown` in held-out text NLL_test does not count them: no generator can learn a token
    that training data lacks.

    nll-gen, nll-test: mean negative log-likelihood per token of training and held-out data under the generator, in
    nats. nll-oracle: of the generated sentences under the oracle; nll-oracle-real: of held-out ones, the best value.
    bleu-n: likeness to held-out sentences. self-bleu-n: likeness among themselves (high: little diversity).
    """
    choice = suite.choose(suite.rows(METRICS), None, len(generated))
    found = facts(generator, lambda: generated, lambda: data, unknown, temperature, data.oracle is not None)
    return suite.compute(choice, found, len(generated), strict=False)


def facts(
    generator, generated: Callable, data: Callable, unknown: int | None, temperature: float, oracle: bool
) -> dict[str, Callable]:
    """What rows of `suite` need of a text generator: arguments as in `evaluate`, `generated` and `data` as functions."""
    device = next(generator.parameters()).device
    made = {
        "model": lambda: generator if temperature == 1 else Tempered(generator, temperature),
        "train": lambda: _some(data().train).to(device),
        "test": lambda: _some(data().test).to(device),
        "ignored": lambda: [token for token in (data().pad, unknown) if token is not None],
        "generated": generated,
        "ours": lambda: _sentences(generated(), data()),
        "theirs": lambda: _sentences(_some(data().test), data()),
    }
    return made | {"oracle": lambda: data().oracle} if oracle else made


def _some(tokens: torch.Tensor) -> torch.Tensor:
    """REFERENCES of them, or all, spread over the whole: a corpus of a user's need not be shuffled."""
    return tokens[evenly(len(tokens), REFERENCES)]


def _sentences(tokens: torch.Tensor, data) -> text.Tokens:
    """Without padding and end marks, which are no words."""
    if data.pad is None:
        return text.Tokens.from_padded(tokens)
    return text.Tokens.from_padded(tokens.masked_fill(tokens == data.end, data.pad), data.pad)
