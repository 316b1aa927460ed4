import pytest
import torch
from device import DEVICE, kernels
from scipy.stats import chisquare, kstest
from tolerances import assert_close

from fastgan.ops import gumbel_softmax
from fastgan.ops.gumbel_softmax import _uniform

IMPLS = ["reference", *kernels("gumbel_softmax")]


@pytest.fixture(params=IMPLS)
def impl(request):
    return request.param


def test_the_generator_is_philox():
    """Known answers of Random123 for key 0 and counter 0."""
    words = torch.tensor([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
    assert torch.equal(_uniform(1, 4, 0, DEVICE)[0], ((words >> 9) + 0.5) * 2.0**-23)


def test_the_uniform_numbers_are_uniform_and_independent_of_row_column_and_seed():
    u = torch.cat([_uniform(50, 203, seed, DEVICE) for seed in (0, 1, 2**62 + 1)])
    assert kstest(u.flatten().cpu().numpy(), "uniform").pvalue > 1e-3
    assert u.unique().numel() > 0.99 * u.numel()
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1]), (u[50:], u[:-50])):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.03


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_the_argmax_is_a_draw_from_the_softmax(impl, temperature):
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.0])
    y = gumbel_softmax(logits.expand(20_000, 5), temperature, seed=3, impl=impl)
    observed = torch.bincount(y.argmax(1), minlength=5)
    assert chisquare(observed.tolist(), (logits.double().softmax(0) * 20_000).tolist()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 1), (2, 3, 7), (5, 64), (2, 131), (1, 5003), (0, 4), (3, 0), (17,)])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 4.0])
def test_every_implementation_gives_the_definition(impl, dtype, shape, temperature):
    logits = (torch.randn(shape, dtype=torch.float64) * 3).to(dtype)
    y = gumbel_softmax(logits, temperature, seed=12345678901234567, impl=impl)
    u = _uniform(logits[..., 0].numel() if shape[-1] else 0, shape[-1], 12345678901234567, DEVICE)
    expected = ((logits.double() - (-u.log()).log().view(shape)) / temperature).softmax(-1)
    assert y.dtype == dtype
    # float32 noise is off by 2^-23 of up to 16, which the temperature divides.
    assert_close(y, expected, None if dtype != torch.float32 else 2e-5 * max(1, 0.1 / temperature))


def test_strides_and_impossible_logits(impl):
    logits = torch.randn(6, 4, 9)
    logits[2, 1, 3] = -1e4
    strided = logits.transpose(0, 1)
    y = gumbel_softmax(strided, 0.7, seed=5, impl=impl)
    assert torch.equal(y, gumbel_softmax(strided.contiguous(), 0.7, seed=5, impl=impl))
    assert y[1, 2, 3] == 0


def test_derivatives_of_the_first_and_second_order(impl):
    logits = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)

    def f(x):
        return gumbel_softmax(x, 0.7, seed=1, impl=impl)

    assert torch.autograd.gradcheck(f, logits)
    assert torch.autograd.gradgradcheck(f, logits)


def test_without_a_seed_torch_decides():
    logits = torch.zeros(4, 6)
    torch.manual_seed(0)
    first, second = gumbel_softmax(logits), gumbel_softmax(logits)
    torch.manual_seed(0)
    assert torch.equal(gumbel_softmax(logits), first)
    assert not torch.equal(first, second)


def test_a_seed_in_a_tensor_is_the_number_it_holds(impl):
    logits, number = torch.randn(5, 33), 2**62 + 12345678901
    y = gumbel_softmax(logits, seed=torch.tensor([number]), impl=impl)
    assert torch.equal(y, gumbel_softmax(logits, seed=number, impl=impl))


def test_the_seed_is_drawn_on_the_device_of_the_logits():
    """As a tensor, which no `.item()` reads: on a GPU nothing waits, and a captured graph draws anew at each replay."""
    with torch.random.fork_rng(), torch._subclasses.FakeTensorMode() as fakes:
        logits = fakes.from_tensor(torch.empty(3, 7, device="cpu"))
        assert gumbel_softmax(logits).shape == (3, 7)  # an .item() would raise here
    assert gumbel_softmax(torch.empty(3, 7, device="meta")).device.type == "meta"


def test_compiles_without_a_graph_break_and_draws_anew():
    compiled = torch.compile(lambda x: gumbel_softmax(x), backend="aot_eager", fullgraph=True)
    logits = torch.zeros(3, 7)
    assert not torch.equal(compiled(logits), compiled(logits))


def test_opcheck():
    logits = torch.randn(3, 7, requires_grad=True)
    torch.library.opcheck(torch.ops.fastgan.gumbel_softmax.default, (logits, 0.5, torch.tensor([9])))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(3, dtype=torch.int64),), TypeError, "int64"),
        ((torch.zeros(()),), ValueError, "rank"),
        ((torch.zeros(3), 0.0), ValueError, "temperature=0.0"),
        ((torch.zeros(3), float("nan")), ValueError, "temperature"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        gumbel_softmax(*arguments)
    with pytest.raises(ValueError, match="seed=-1"):
        gumbel_softmax(torch.zeros(3), seed=-1)
    for seed in (torch.zeros(1), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="seed is torch"):
            gumbel_softmax(torch.zeros(3), seed=seed)
    with pytest.raises(ValueError, match="seed is on meta"):
        gumbel_softmax(torch.zeros(3), seed=torch.zeros(1, dtype=torch.int64, device="meta"))
