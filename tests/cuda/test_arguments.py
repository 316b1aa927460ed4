"""What torch.ops.fastgan.* is handed directly: a tensor on another device, of another dtype or size is an exception, never an
address that is not the GPU's; and no launch asks for more than the smallest GPU has."""

import pytest
import torch
from cuda_emulation import emulated
from tolerances import assert_close

from fastgan.ops import filtered_lrelu

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")
OPS = torch.ops.fastgan_cuda
X, F, B = torch.randn(2, 3, 8, 8), torch.ones(4), torch.zeros(3)
STYLES, WEIGHT, GAIN = torch.randn(2, 3), torch.randn(5, 3, 3, 3), torch.randn(2, 3)
A = torch.ones(8)
MASK = torch.zeros(2, 3, 8, 2, 4, dtype=torch.uint8)
# op: arguments with which it works
CALLS = {
    "upfirdn2d": (X, F, F, [1, 1], [1, 1], [2, 1, 2, 1], False, 1.0),
    "upfirdn2d_filter_backward": (X, X, [4, 4], [1, 1], [1, 1], [2, 1, 2, 1], False, 1.0),
    "filtered_lrelu": (X, B, F, F, 1, 1, [3, 3, 3, 3], 1.0, 0.2, -1.0, False, True),
    "filtered_lrelu_backward": (X, MASK, F, F, 1, 1, [3, 3, 3, 3], [8, 8, 8, 8], 1.0, 0.2, False),
    "filtered_snake": (X[0], A, A, F, F, 2, 2),
    "filtered_snake_backward": (X[0], X[0], A, A, F, F, 2, 2),
    "modulated_conv2d_squares": (WEIGHT,),
    "modulated_conv2d_weight": (WEIGHT, STYLES, GAIN, True),
    "modulated_conv2d_weight_backward": (torch.randn(2, 5, 3, 3, 3), WEIGHT, STYLES, GAIN, torch.ones(2, 5), True),
}
TENSORS = [(op, i) for op, call in CALLS.items() for i, t in enumerate(call) if isinstance(t, torch.Tensor)]


@pytest.fixture(scope="module", autouse=True)
def kernels():
    emulated.load()


def run(op, arguments):
    """The kernel itself: with a tensor of another device among its arguments the dispatcher would choose another."""
    cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    return getattr(OPS, op).default.redispatch(cpu, *arguments)


@pytest.mark.parametrize("op", CALLS)
def test_the_arguments_are_right(op):
    run(op, CALLS[op])


@pytest.mark.parametrize(("op", "index"), TENSORS)
def test_a_tensor_on_another_device(op, index):
    arguments = list(CALLS[op])
    arguments[index] = arguments[index].to("meta")
    with pytest.raises(RuntimeError, match="expected all of them"):
        run(op, arguments)


@pytest.mark.parametrize(("op", "index"), TENSORS)
def test_a_tensor_of_another_dtype(op, index):
    arguments = list(CALLS[op])
    alone = sum(isinstance(t, torch.Tensor) for t in arguments) == 1  # then float64 is as good
    for dtype in (torch.int32, torch.complex64, torch.float64)[: 2 if alone else 3]:
        arguments[index] = CALLS[op][index].to(dtype)
        with pytest.raises(RuntimeError, match=r"dtype|float|uint8"):
            run(op, arguments)


@pytest.mark.parametrize(("op", "index"), TENSORS)
def test_a_tensor_that_is_not_contiguous(op, index):
    expected = run(op, CALLS[op])
    arguments = list(CALLS[op])
    arguments[index] = torch.stack([arguments[index]] * 2, -1)[..., 0]
    assert not arguments[index].is_contiguous()
    torch.testing.assert_close(run(op, arguments), expected)


@pytest.mark.parametrize("factors", [(1, 4), (1, 1), (4, 4), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_filter_asks_for_more_shared_memory_than_the_smallest_gpu_has(factors, dtype):
    for taps_u, taps_d in ((32, 32), (20, 20), (21, 20)):
        fu, fd = (torch.rand(t, t, dtype=torch.float64) / t**2 for t in (taps_u, taps_d))
        x = torch.randn(1, 1, 20, 20, dtype=dtype, requires_grad=True)
        arguments = dict(b=torch.ones(1, dtype=dtype), up=factors[0], down=factors[1], padding=33)
        results = {}
        for impl, t in (("cuda", x), ("reference", x.double())):
            b = arguments["b"].to(t.dtype)
            y = filtered_lrelu(t, fu, fd, **(arguments | {"b": b}), impl=impl)
            results[impl] = (y, *torch.autograd.grad(y.sum(), x))
        for actual, expected in zip(results["cuda"], results["reference"], strict=True):
            assert_close(actual, expected, 1e-4 if dtype == torch.float32 else None)


def test_more_shared_memory_than_there_is_names_the_launch(monkeypatch):
    monkeypatch.setenv("FASTGAN_EMULATED_SHARED_KIB", "49")
    f = torch.rand(32, 32)
    arguments = (torch.randn(1, 1, 64, 64), None, f, f, 1, 1, [33] * 4, 1.0, 0.2, -1.0, False, False)
    with pytest.raises(
        RuntimeError, match=r"filtered_lrelu: invalid argument \(\d+ blocks of 128 threads with \d+ bytes"
    ):
        run("filtered_lrelu", arguments)
    monkeypatch.setenv("FASTGAN_EMULATED_SHARED_KIB", "99")
    run("filtered_lrelu", arguments)
