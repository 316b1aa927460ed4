"""RelGAN's generator: a relational memory (Santoro et al., 2018) whose slots attend to each other and to the input
token at every step (Nie et al., 2019, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgan.fields import at_least
from fastgan.models.text import Generator, State, TokenConfig


@dataclass(frozen=True)
class RelationalConfig(TokenConfig):
    """RelGAN's paper: 1 slot, 2 heads of 256 (synthetic data and captions) or 512, embedding 32."""

    embedding: int = 32
    slots: int = 1
    heads: int = 2
    head_size: int = 256

    def __post_init__(self):
        super().__post_init__()
        at_least("text", self, embedding=1, slots=1, heads=1, head_size=1)

    @property
    def width(self) -> int:
        """Numbers in one memory slot."""
        return self.heads * self.head_size


class RelationalMemory(nn.Module):
    """One step of the memory M [N, slots, width] at input x [N, width]:

    A = LayerNorm(M + attention(M; [M; x])), B = LayerNorm(A + MLP(A)),
    M' = sigmoid(i) tanh(B) + sigmoid(f + 1) M, with gates (i, f) = W x + U tanh(M) + b.

    Matrices start from N(0, 1 / fan_in), truncated at two deviations.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gates_input, self.gates_memory = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)

    def attend(self, memory: Tensor, x: Tensor) -> Tensor:
        def split(t: Tensor) -> Tensor:
            return t.unflatten(2, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(torch.cat([memory, x[:, None]], dim=1)).chunk(2, dim=2)
        # Written out, since the fused attention has no second derivative.
        query, key, value = split(self.query(memory)), split(key), split(value)
        weights = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(dim=3)
        return (weights @ value).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        attended = self.norm_attention(memory + self.attend(memory, x))
        proposed = self.norm_mlp(attended + self.mlp(attended))
        write, keep = (self.gates_input(x)[:, None] + self.gates_memory(memory.tanh())).chunk(2, dim=2)
        return write.sigmoid() * proposed.tanh() + (keep + 1).sigmoid() * memory


class RelationalGenerator(Generator):
    """Embedding, relational memory, linear output; the memory starts as rows of the identity matrix."""

    Config = RelationalConfig

    def __init__(self, config: RelationalConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.input = nn.Linear(config.embedding, config.width)
        self.memory = RelationalMemory(config.width, config.heads)
        self.output = nn.Linear(config.slots * config.width, config.vocabulary)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.embedding.weight, std=config.embedding**-0.5)

    def begin(self, count: int) -> State:
        weight = self.output.weight
        slots = torch.eye(self.config.slots, self.config.width, dtype=weight.dtype, device=weight.device)
        return (slots.expand(count, -1, -1),)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        memory = self.memory(self.input(self.embedding(token)), state[0])
        return memory.flatten(1), (memory,)

    def hidden(self, before: Tensor) -> Tensor:
        (memory,) = self.begin(len(before))
        features = []
        for x in self.input(self.embedding(before)).unbind(1):
            memory = self.memory(x, memory)
            features.append(memory.flatten(1))
        return torch.stack(features, dim=1)
