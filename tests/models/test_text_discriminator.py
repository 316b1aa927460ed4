import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close

from fastgan.models import build

FILTERS = ((1, 3), (2, 4), (5, 2), (9, 1))
DISCRIMINATORS = {
    "text.seqgan_discriminator": {"embedding": 6, "filters": FILTERS},
    "text.relgan_discriminator": {"embedding": 6, "representations": 3, "filters": FILTERS},
    "text.recurrent_discriminator": {"embedding": 6, "hidden": 5},
}


@pytest.fixture(params=DISCRIMINATORS)
def discriminator(request):
    torch.manual_seed(0)
    return build(request.param, vocabulary=11, length=6, **DISCRIMINATORS[request.param]).double().eval()


def test_ids_and_one_hot_rows_get_the_same_logits(discriminator):
    tokens = torch.randint(11, (4, 6))
    logits = discriminator(tokens)
    assert logits.shape == ((4, 3) if getattr(discriminator.config, "representations", 0) else (4,))
    assert_close(discriminator(F.one_hot(tokens, 11).double()), logits)
    assert_close(discriminator(tokens[2:3]), logits[2:3])


def test_second_derivatives(discriminator):
    embedded = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(discriminator.judge, embedded)
    assert torch.autograd.gradgradcheck(discriminator.judge, embedded)


def test_the_recurrent_one_computes_what_torch_lstm_does():
    d = build("text.recurrent_discriminator", vocabulary=11, length=6, embedding=6, hidden=5).double()
    embedded = torch.randn(3, 6, 6, dtype=torch.float64)
    hidden, _ = d.lstm(embedded)
    assert_close(d.judge(embedded), d.output(hidden[:, -1])[:, 0])


def test_representations_are_judged_separately():
    d = build("text.relgan_discriminator", vocabulary=11, length=6, embedding=6, representations=3).double().eval()
    embedded = torch.randn(2, 6, 6, dtype=torch.float64)
    changed = embedded.clone()
    changed[:, :, 2:4] += 1  # the second of three
    moved = (d.judge(changed) - d.judge(embedded)).abs() > 1e-12
    assert moved.tolist() == [[False, True, False]] * 2


def test_published_sizes_and_initial_weights():
    d = build("text.seqgan_discriminator", length=20)
    assert d.highway.gate.in_features == 1720
    assert len(d.convolutions) == 12
    for convolution in d.convolutions:
        assert convolution.weight.abs().max() <= 0.2
        assert (convolution.bias == 0.1).all()
    assert len(build("text.seqgan_discriminator", length=7).convolutions) == 7
    r = build("text.relgan_discriminator", length=20)
    assert r.highway.gate.in_features == 1200
    assert r(torch.randint(5000, (2, 20))).shape == (2, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"embedding": 6, "representations": 4}, "4 representations"), ({"filters": ((9, 3),), "length": 6}, "wider")],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build("text.seqgan_discriminator", **options)
