"""A decoder-only Transformer with a key-value cache: the modern baseline among the text generators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan.fields import at_least
from fastgan.models.text import Generator, State, TokenConfig


@dataclass(frozen=True)
class TransformerConfig(TokenConfig):
    """Pre-norm blocks of causal attention and a GELU network of four times the width."""

    width: int = 128
    layers: int = 2
    heads: int = 4

    def __post_init__(self):
        super().__post_init__()
        at_least("text", self, width=1, layers=0, heads=1)
        if self.width % self.heads:
            raise ValueError(f"text: width {self.width} is no multiple of heads {self.heads}")


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, past: State = ()) -> tuple[Tensor, State]:
        """x [N, L, width]; `past`: keys and values [N, heads, T, width / heads] of earlier tokens, then L is 1."""
        qkv = self.qkv(self.norm_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv
        if past:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=not past)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x)), (key, value)


class TransformerGenerator(Generator):
    """GPT-2's layout and initial weights: N(0, 0.02^2), those that end a residual branch divided by sqrt(2 layers)."""

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Parameter(torch.empty(config.length, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.vocabulary)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                ends_branch = name.endswith(("project.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 * ((2 * config.layers) ** -0.5 if ends_branch else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, before: Tensor) -> Tensor:
        x = self.embedding(before) + self.position[: before.shape[1]]
        for block in self.blocks:
            x, _ = block(x)
        return self.norm(x)

    def begin(self, count: int) -> State:
        """Keys and values of each block in turn, [N, heads, 0, width / heads]."""
        config = self.config
        empty = self.output.weight.new_zeros(count, config.heads, 0, config.width // config.heads)
        return (empty,) * (2 * config.layers)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        x = (self.embedding(token) + self.position[state[0].shape[2]])[:, None]
        cache: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x, now = block(x, state[2 * i : 2 * i + 2])
            cache += now
        return self.norm(x)[:, 0], tuple(cache)
