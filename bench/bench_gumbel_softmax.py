"""Gumbel-softmax of a batch of sentences' next tokens: noise and softmax in one pass against the same in PyTorch.

"torch noise" draws with torch.rand instead of the counter-based generator: what a user writes. Its numbers differ, so it
is timed and not compared.
"""

import functools

import torch

from fastgan.ops import gumbel_softmax


def bench_gumbel_softmax(compare, device):
    logits = torch.randn(64, 5000, device=device)
    compare(
        "64x5000",
        lambda f: f(logits, 0.5, seed=1),
        reference=functools.partial(gumbel_softmax, impl="reference"),
        fastgan=gumbel_softmax,
        compiled=False,
    )


def bench_against_what_users_write(compare, device):
    logits = torch.randn(64, 5000, device=device)

    def user(x):
        return ((x - (-torch.rand_like(x).clamp_min(1e-20).log()).log()) / 0.5).softmax(-1)

    compare(
        "64x5000, torch noise",
        lambda f: (f(logits).sum(-1),),  # the draws differ: rows sum to 1
        reference=user,
        fastgan=lambda x: gumbel_softmax(x, 0.5, seed=1),
    )
