"""Every text metric of a generator at once, as `fastgan eval` prints them."""

from typing import NamedTuple

import torch
from torch import nn

from fastgan.metrics import text

REFERENCES = 5000  # held-out sentences that BLEU compares with, at most


class Tempered(NamedTuple):
    """The likelihood of a generator whose logits are divided by `temperature`: what sampling at it draws from."""

    generator: nn.Module
    temperature: float

    def log_prob(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.generator.logits(tokens) / self.temperature
        return -nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


def evaluate(
    generator, generated: torch.Tensor, data, unknown: int | None = None, temperature: float = 1.0
) -> dict[str, float]:
    """Metrics by name of sentences `generated` (int64 [N, L] on the CPU), drawn from `generator` at `temperature`.

    `data` holds `train` and `test` (int64 [M, L]), `pad`, `end` and `oracle` (a model of the true distribution, or
    None). Where tokens are `unknown` in held-out text NLL_test does not count them: no generator can learn a token
    that training data lacks.

    nll-gen, nll-test: mean negative log-likelihood per token of training and held-out data under the generator, in
    nats. nll-oracle: of the generated sentences under the oracle; nll-oracle-real: of held-out ones, the best value.
    bleu-n: likeness to held-out sentences. self-bleu-n: likeness among themselves (high: little diversity).
    """
    device = next(generator.parameters()).device
    ignored = [token for token in (data.pad, unknown) if token is not None]
    model = generator if temperature == 1 else Tempered(generator, temperature)
    values = {
        "nll-gen": text.nll(model, data.train[:REFERENCES].to(device), ignored),
        "nll-test": text.nll(model, data.test[:REFERENCES].to(device), ignored),
    }
    if data.oracle is not None:
        values["nll-oracle"] = text.nll(data.oracle, generated)
        values["nll-oracle-real"] = text.nll(data.oracle, data.test[:REFERENCES])
    ours, theirs = (_sentences(tokens, data) for tokens in (generated, data.test[:REFERENCES]))
    values |= text.bleu(ours, theirs)
    values |= text.self_bleu(ours)
    values |= text.distinct_n(ours)
    try:
        values["embedding-similarity"] = text.embedding_similarity(ours, theirs)
    except ValueError:  # a collapsed generator has no two words in common with the references
        values["embedding-similarity"] = float("nan")
    return values


def _sentences(tokens: torch.Tensor, data) -> text.Tokens:
    """Without padding and end marks, which are no words."""
    if data.pad is None:
        return text.Tokens.from_padded(tokens)
    return text.Tokens.from_padded(tokens.masked_fill(tokens == data.end, data.pad), data.pad)
