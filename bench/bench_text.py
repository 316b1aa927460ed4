"""Text GANs: SeqGAN's rewards, one step of maximum likelihood, and drawing the next token.

Vocabulary 5,000 and length 20, as in the synthetic experiment of SeqGAN. Draws are random, so the implementations of
rollouts and of drawing are compared by chi-square with the exact distribution on a small vocabulary before they are
timed at full size, with the tuned allocator.

Figures of one run (two cores, torch 2.14.1). Rewards: 10.3 times faster than reading each prefix from scratch and
drawing with torch.multinomial (1.99 s against 20.5); against the same recomputation with fastgan's own draw 1.05
times: at a hidden width of 32 the cell that state reuse saves is nearly free, and the draws, which no reuse can save,
are the cost. MLE step: as the plain LSTM (1.00).

Is a fused kernel for the sampling step (cell, logits, softmax, draw) worth it? At hidden 32, 1024 rows: fastgan 7.0 ms,
LSTMCell + torch.multinomial 106 (15 times), and an exponential race with argmax 106 likewise, since both draw 5,000
exponentials per row. Of our 7.0 the cell takes 0.5, the logits 3.0: a kernel whose draw cost nothing would be 2.0 times
faster, and it must still take 5,000 exponentials. At hidden 512: 59 ms, of which cell and logits 55, which are matrix
products; at most 1.08 times. So no kernel is offered: the draw by inversion in plain torch (`sample_categorical`) is
2.3 to 15 times faster than what it was to be compared with.
"""

import time

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import nn

import fastgan
from fastgan.models import build
from fastgan.ops.categorical import sample_categorical
from fastgan.recipes.seqgan import rewards

SIZES = {"vocabulary": 5000, "length": 20, "embedding": 32, "hidden": 32}


def assert_follows(tokens, probability):
    """chi-square of tokens [...] against probability [V]."""
    count = tokens.numel()
    observed = torch.bincount(tokens.flatten(), minlength=len(probability))
    expected = probability.double() / probability.double().sum() * count
    assert chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-4


def recomputed(generator, tokens, count, draw):
    """Every completion of every prefix on its own, from the first token: what fastgan's rollouts save."""
    parts = []
    for prefix in range(1, tokens.shape[1]):
        given = tokens.repeat(count, 1)
        state, token = generator.begin(len(given)), torch.full((len(given),), generator.config.start)
        sentence = []
        for position in range(tokens.shape[1]):
            hidden, state = generator.step(token, state)
            token = given[:, position] if position < prefix else draw(generator.predict(hidden))
            sentence.append(token)
        parts.append(torch.stack(sentence, dim=1).view(count, len(tokens), -1))
    return torch.stack(parts)


def multinomial(logits):
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


def interleaved(functions, rounds):
    """Seconds of each function, one after the other in every round."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, f in functions.items():
            began = time.perf_counter()
            f()
            times[name].append(time.perf_counter() - began)
    return times


@pytest.fixture
def time_draws(benchmark, record, request):
    """time_draws(case, functions, rounds): functions whose results are random, so that they are not compared here."""

    def run(case, functions, rounds):
        torch.set_num_threads(request.config.getoption("--threads"))
        fastgan.tune_cpu_allocator()
        with torch.no_grad():
            if benchmark.disabled:
                rounds = 0
            times = {}
            benchmark.pedantic(lambda: times.update(interleaved(functions, rounds)), rounds=1)
        record(case, times, allocator="tuned")

    return run


class Recomputing:
    """A generator whose rollouts are `recomputed`."""

    def __init__(self, generator, draw):
        self.rollouts = lambda tokens, count: recomputed(generator, tokens, count, draw)


def small_generator():
    generator = build("text.lstm", vocabulary=3, length=3, embedding=4, hidden=4)
    for parameter in generator.parameters():
        parameter.data.normal_()
    return generator


@pytest.mark.parametrize("draw", [multinomial, sample_categorical], ids=["multinomial", "same draw"])
def bench_rewards(benchmark, time_draws, draw):
    """Length 20, 16 rollouts, batch 64. "same draw" gives the baseline fastgan's sampler, so that the ratio is of state
    reuse alone."""
    torch.manual_seed(0)
    small = small_generator()
    tokens = torch.tensor([[0, 2, 1]])
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    p = small.log_prob(every).sum(1).exp().detach()
    with torch.no_grad():
        for rollouts in (small.rollouts, Recomputing(small, draw).rollouts):
            out = rollouts(tokens, 20_000)[:, :, 0]
            for prefix in (1, 2):
                fits = (every[:, :prefix] == tokens[0, :prefix]).all(1)
                assert_follows(out[prefix - 1, :, -1], p[fits].view(-1, 3).sum(0))
    generator = build("text.lstm", **SIZES)
    discriminator = build(
        "text.seqgan_discriminator", filters=tuple((w, n // 4) for w, n in ((1, 100), (2, 200), (3, 200)))
    ).eval()
    sentences = generator.sample(64)

    def step(g):
        return rewards(g, lambda x: discriminator(x).sigmoid(), sentences, 16)

    time_draws(
        f"rewards 64x20, 16 rollouts, {'torch.multinomial' if draw is multinomial else 'same draw'}",
        {"recomputed": lambda: step(Recomputing(generator, draw)), "fastgan": lambda: step(generator)},
        rounds=2,
    )


class PlainLSTM(nn.Module):
    """The language model that a user writes."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(5000, 32), nn.LSTM(32, 32, batch_first=True)
        self.output = nn.Linear(32, 5000)

    def nll_loss(self, tokens):
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], dim=1)
        logits = self.output(self.lstm(self.embedding(before))[0])
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def bench_mle_step(compare):
    """Loss, gradients and Adam, batch 64."""
    torch.manual_seed(0)
    ours, plain = build("text.lstm", **SIZES), PlainLSTM()
    plain.load_state_dict(ours.state_dict())
    adam = {m: torch.optim.Adam(m.parameters(), lr=1e-4) for m in (ours, plain)}
    tokens = torch.randint(5000, (64, 20))

    def step(model):
        adam[model].zero_grad()
        loss = model.nll_loss(tokens)
        loss.backward()
        adam[model].step()
        return (loss.detach(),)

    compare("MLE step 64x20", step, reference=plain, fastgan=ours, compiled=False, tolerance=1e-4)


@pytest.mark.parametrize("rows", [64, 1024])
@pytest.mark.parametrize("hidden", [32, 512])
def bench_sampling_step(time_draws, hidden, rows):
    """One token for every row: LSTM cell, output layer, draw."""
    torch.manual_seed(0)
    logits = torch.randn(1, 7).expand(20_000, 7)
    for draw in (multinomial, sample_categorical):
        assert_follows(draw(logits), logits[0].softmax(0))
    generator = build("text.lstm", vocabulary=5000, embedding=hidden, hidden=hidden)
    cell = nn.LSTMCell(hidden, hidden)
    token, state = torch.randint(5000, (rows,)), generator.begin(rows)

    def torch_step():
        h, _ = cell(generator.embedding(token), state)
        return multinomial(generator.output(h))

    def parts(draw):
        def step():
            features, _ = generator.step(token, state)
            return draw(generator.predict(features))

        return step

    time_draws(
        f"sampling step {rows} rows, hidden {hidden}",
        {
            "LSTMCell + multinomial": torch_step,
            "exponential race": parts(lambda x: (x.softmax(-1) / torch.empty_like(x).exponential_()).argmax(-1)),
            "cell and logits": parts(lambda x: x[:, 0]),
            "cell alone": lambda: generator.step(token, state)[0],
            "fastgan": parts(sample_categorical),
        },
        rounds=15,
    )
