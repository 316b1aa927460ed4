"""Discriminators of text. Each takes token ids (int64 [N, L]) or distributions over tokens (float [N, L, V], a
generator's Gumbel-softmax output) and gives logits; `embed` and `judge` are its two halves, so that a gradient penalty
can act on the embedded sentence, of E numbers per position instead of V.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan.fields import at_least
from fastgan.models.network import Network

# Filter widths and numbers of SeqGAN's discriminator (Yu et al., 2017, appendix; sentences of 20 tokens).
SEQGAN_FILTERS = (
    *((1, 100), (2, 200), (3, 200), (4, 200), (5, 200), (6, 100), (7, 100), (8, 100), (9, 100), (10, 100)),
    *((15, 160), (20, 160)),
)
RELGAN_FILTERS = ((2, 300), (3, 300), (4, 300), (5, 300))


@dataclass(frozen=True)
class CNNConfig:
    """`filters`: (width, number) of each bank; banks wider than `length` are left out. `representations` > 0 makes it
    RelGAN's discriminator: that many embeddings of embedding / representations numbers, judged separately by the same
    filters. `dropout`: share of features dropped in training. `embedding_range` r: embeddings of SeqGAN's start from
    U(-r, r); the paper's r is 1.
    """

    vocabulary: int = 5000
    length: int = 20
    embedding: int = 64
    filters: tuple[tuple[int, int], ...] = SEQGAN_FILTERS
    representations: int = 0
    dropout: float = 0.25
    embedding_range: float = 1.0

    def __post_init__(self):
        at_least("text", self, vocabulary=1, length=1, embedding=1, embedding_range=0)
        if self.representations < 0 or (self.representations and self.embedding % self.representations):
            raise ValueError(
                f"text: embedding {self.embedding} cannot be cut into {self.representations} representations"
            )
        if not any(width <= self.length for width, _ in self.filters):
            raise ValueError(f"text: every filter is wider than the sentence, {self.length} tokens")


class Highway(nn.Module):
    """y = t relu(W x) + (1 - t) x with t = sigmoid(V x + b) (Srivastava et al., 2015)."""

    def __init__(self, width: int):
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).sigmoid()
        return x + gate * (F.relu(self.transform(x)) - x)


class CNNDiscriminator(Network):
    """Convolutions of several widths, maximum over positions, highway, dropout, linear.

    Without representations: SeqGAN's, logits [N]; weights start from N(0, 0.1^2) truncated at two deviations, biases
    at 0.1, embeddings from U(-1, 1) (`embedding_range`). With R of them: RelGAN's, logits [N, R] after a further layer
    of 100 (Nie et al., 2019, section 2.3); weights start from a truncated N(0, 1 / fan_in), biases at 0.
    """

    def __init__(self, config: CNNConfig):
        super().__init__()
        self.config = config
        filters = [(width, number) for width, number in config.filters if width <= config.length]
        inputs, features = config.embedding // max(config.representations, 1), sum(number for _, number in filters)
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(inputs, number, width) for width, number in filters)
        self.highway = Highway(features)
        middle = [nn.Linear(features, 100)] if config.representations else []
        self.output = nn.Sequential(nn.Dropout(config.dropout), *middle, nn.Linear(100 if middle else features, 1))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                std = module.weight[0].numel() ** -0.5 if config.representations else 0.1
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
                nn.init.constant_(module.bias, 0.0 if config.representations else 0.1)
        if not config.representations:
            nn.init.uniform_(self.embedding.weight, -config.embedding_range, config.embedding_range)

    def embed(self, x: Tensor) -> Tensor:
        """[N, L, E]"""
        return embed(x, self.embedding.weight)

    def judge(self, embedded: Tensor) -> Tensor:
        """Logits [N], or [N, representations]."""
        count = len(embedded)
        if self.config.representations:
            embedded = embedded.unflatten(2, (self.config.representations, -1)).transpose(1, 2).flatten(0, 1)
        x = embedded.transpose(1, 2)
        features = torch.cat([F.relu(convolve(x).amax(dim=2)) for convolve in self.convolutions], dim=1)
        logits = self.output(self.highway(features)).squeeze(1)
        return logits.view(count, -1) if self.config.representations else logits

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.embed(x))


class SeqGANDiscriminator(CNNDiscriminator):
    """`CNNDiscriminator` with SeqGAN's settings."""

    Config = CNNConfig


@dataclass(frozen=True)
class MultiCNNConfig(CNNConfig):
    """RelGAN's settings: 64 representations of one number each."""

    filters: tuple[tuple[int, int], ...] = RELGAN_FILTERS
    representations: int = 64


class RelGANDiscriminator(CNNDiscriminator):
    """`CNNDiscriminator` with RelGAN's settings."""

    Config = MultiCNNConfig


@dataclass(frozen=True)
class RecurrentConfig:
    """Sizes of the recurrent discriminator."""

    vocabulary: int = 5000
    length: int = 20
    embedding: int = 64
    hidden: int = 64

    def __post_init__(self):
        at_least("text", self, vocabulary=1, length=1, embedding=1, hidden=1)


class RecurrentDiscriminator(Network):
    """An LSTM and a linear output, logits [N], with derivatives of every order.

    torch's fused LSTM has a first derivative only (cuDNN's and oneDNN's raise on the second), so the cell is written
    in elementary operations, its weights named and laid out as `torch.nn.LSTM` does. One matrix product serves the
    inputs of all positions.
    """

    Config = RecurrentConfig

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
        self.output = nn.Linear(config.hidden, 1)

    def embed(self, x: Tensor) -> Tensor:
        """[N, L, E]"""
        return embed(x, self.embedding.weight)

    def judge(self, embedded: Tensor) -> Tensor:
        """Logits [N]."""
        lstm = self.lstm
        inputs = F.linear(embedded, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        h = c = embedded.new_zeros(len(embedded), self.config.hidden)
        for x in inputs.unbind(1):
            i, f, g, o = F.linear(h, lstm.weight_hh_l0).add(x).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.output(h).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.embed(x))


def embed(x: Tensor, weight: Tensor) -> Tensor:
    """Rows of `weight` [V, E] for token ids [N, L], or their means under distributions [N, L, V]."""
    return x @ weight if x.is_floating_point() else F.embedding(x, weight)
