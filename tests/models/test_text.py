import math

import pytest
import torch
from scipy.stats import chisquare
from tolerances import assert_close

from fastgan.models import build

GENERATORS = {
    "text.lstm": {"embedding": 5, "hidden": 7},
    "text.relational": {"embedding": 5, "slots": 2, "heads": 2, "head_size": 3},
    "text.transformer": {"width": 8, "layers": 2, "heads": 2},
}


def make(name, vocabulary=11, length=6, spread=3.0, **options):
    torch.manual_seed(1)
    generator = build(name, vocabulary=vocabulary, length=length, **GENERATORS[name], **options)
    for parameter in generator.parameters():  # initial weights are near a uniform distribution, which tests nothing
        parameter.data.mul_(spread)
    return generator


@pytest.fixture(params=GENERATORS)
def name(request):
    return request.param


def test_steps_give_what_reading_the_sentence_gives(name):
    generator = make(name).double()
    tokens = torch.randint(11, (4, 6))
    state, token, stepped = generator.begin(4), torch.zeros(4, dtype=torch.int64), []
    for position in range(6):
        hidden, state = generator.step(token, state)
        stepped.append(generator.predict(hidden))
        token = tokens[:, position]
    assert_close(torch.stack(stepped, dim=1), generator.logits(tokens))


def test_the_likelihoods_of_all_sentences_sum_to_one(name):
    generator = make(name, vocabulary=3, length=4).double()
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)
    assert generator.log_prob(every).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_samples_follow_the_likelihood(name):
    generator = make(name, vocabulary=3, length=3, spread=2.0)
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    expected = generator.log_prob(every).double().sum(1).exp().detach()
    code = (generator.sample(20_000) * torch.tensor([9, 3, 1])).sum(1)
    observed = torch.bincount(code, minlength=27)
    assert chisquare(observed.tolist(), (expected / expected.sum() * 20_000).tolist()).pvalue > 1e-4


def test_temperature_sharpens(name):
    generator = make(name, spread=10.0)
    sharp, plain = generator.sample(300, temperature=0.2), generator.sample(300)
    assert generator.nll_loss(sharp) < 0.9 * generator.nll_loss(plain)


def test_given_uniform_numbers_a_row_depends_on_its_own_alone(name):
    generator, uniform = make(name), torch.rand(5, 6)
    whole = generator.sample(5, uniform=uniform)
    assert torch.equal(generator.sample(2, uniform=uniform[3:]), whole[3:])


def test_after_the_end_comes_padding_and_specials_are_never_drawn(name):
    generator = make(name, start=1, end=2, pad=0)
    tokens = generator.sample(500)
    ended = (tokens == 2).cumsum(1)
    assert (ended[:, -1] > 0).any()
    assert torch.equal(tokens == 0, ended - (tokens == 2).long() > 0)
    assert not (tokens == 1).any()
    log_prob = generator.log_prob(tokens)
    assert generator.nll_loss(tokens).item() == pytest.approx(-log_prob[tokens != 0].mean().item(), rel=1e-5)
    generator.nll_loss(tokens).backward()
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters())


def test_rollouts_keep_the_prefix_and_draw_the_rest_from_the_model(name):
    """chi-square against the exact conditional distribution of what follows each prefix."""
    generator = make(name, vocabulary=3, length=4, spread=2.0)
    tokens = torch.tensor([[0, 2, 1, 1], [2, 2, 0, 1]])
    out = generator.rollouts(tokens, 4000)
    assert out.shape == (3, 4000, 2, 4)
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)
    likelihood = generator.log_prob(every).double().sum(1).exp().detach()
    for prefix in range(1, 4):
        assert torch.equal(out[prefix - 1, :, :, :prefix], tokens[:, :prefix].expand(4000, 2, prefix))
        for n in range(2):
            fits = (every[:, :prefix] == tokens[n, :prefix]).all(1)
            weight = torch.tensor([3**k for k in range(3 - prefix, -1, -1)])
            observed = torch.bincount((out[prefix - 1, :, n, prefix:] * weight).sum(1), minlength=3 ** (4 - prefix))
            expected = likelihood[fits] / likelihood[fits].sum() * 4000
            assert chisquare(observed.tolist(), expected.tolist()).pvalue > 1e-4


def test_rollouts_of_a_finished_sentence_add_only_padding(name):
    generator = make(name, start=1, end=2, pad=0)
    tokens = torch.tensor([[3, 2, 0, 0, 0, 0]])
    out = generator.rollouts(tokens, 50)
    assert torch.equal(out[1:], tokens.expand(4, 50, 1, 6))
    ended = (out == 2).cumsum(3) - (out == 2).long() > 0
    assert torch.equal(out == 0, ended)


def test_recomputing_each_prefix_from_scratch_gives_the_same_rollouts(name):
    """With the draws fixed to the most likely token, state reuse changes nothing."""
    generator = make(name).double()
    tokens = torch.randint(11, (3, 6))
    generator.draw = lambda hidden, last, *rest: generator.predict(hidden).argmax(1)
    out = generator.rollouts(tokens, 1)
    for prefix in range(1, 6):
        sentence = tokens[:, :prefix]
        while sentence.shape[1] < 6:
            padded = torch.cat([sentence, sentence[:, :1]], dim=1)
            sentence = torch.cat([sentence, generator.logits(padded)[:, -1:].argmax(2)], dim=1)
        assert torch.equal(out[prefix - 1, 0], sentence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end": 2}, "end and pad"),
        ({"start": 2, "end": 2, "pad": 0}, "end is 2"),
        ({"end": 2, "pad": 2}, "end is 2"),
        ({"start": 11}, "start is 11"),
        ({"vocabulary": 0}, "vocabulary is 0"),
        ({"length": 0}, "length is 0"),
    ],
)
def test_wrong_token_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build("text.lstm", **{"vocabulary": 11} | options)


def test_seqgan_initial_weights():
    generator = build("text.lstm")
    for parameter in generator.parameters():
        if parameter.dim() > 1:
            assert parameter.std().item() == pytest.approx(0.1, rel=0.1)
        else:
            assert not parameter.any()
    assert generator.nll_loss(torch.randint(5000, (8, 20))).item() == pytest.approx(math.log(5000), abs=0.05)


def test_soft_samples_are_the_relaxation_of_their_tokens():
    generator = make("text.relational", start=1, end=2, pad=0, spread=2.0)
    torch.manual_seed(0)
    soft, tokens = generator.sample_soft(40, 0.05)
    assert torch.equal(soft.argmax(2), tokens)
    assert_close(soft.sum(2), torch.ones(40, 6))
    ended = (tokens == 2).cumsum(1) - (tokens == 2).long() > 0
    assert torch.equal(tokens == 0, ended)
    soft[:, -1, 3:].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters())


def test_soft_samples_are_draws_of_the_model():
    generator = make("text.relational", vocabulary=3, length=2, spread=2.0)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    expected = generator.log_prob(every).double().sum(1).exp().detach()
    _, tokens = generator.sample_soft(10_000, 5.0)
    observed = torch.bincount(tokens[:, 0] * 3 + tokens[:, 1], minlength=9)
    assert chisquare(observed.tolist(), (expected / expected.sum() * 10_000).tolist()).pvalue > 1e-4
