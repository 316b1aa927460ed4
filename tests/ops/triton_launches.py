"""Launches the Triton kernels through the public functions, on CPU tensors, in the forms those can give them, under a driver
that compiles and does not launch (triton_stub). `python triton_launches.py ARCH FIRST EVERY` takes the forms FIRST, FIRST +
EVERY, ... of each op and prints {"compiled": {op: number of kernels}, "failed": {form: error}}.

A process of its own, because the active driver is one per process, and TRITON_INTERPRET is read at import.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator

import torch
import triton_stub

import fastgan.ops.triton as kernels
from fastgan.ops import bias_act, grad_penalty, gumbel_softmax, modulate, modulated_activation, norm_act
from fastgan.ops._checks import accumulation_dtype

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
ACTS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
# A number that is 1 becomes a constant, one divisible by 16 is known to be: each kernel has its own code for them.
SHAPES = {
    "ones": (1, 1, 1, 1),
    "one pixel": (2, 3, 1, 1),
    "one channel": (2, 1, 16, 16),
    "odd": (3, 5, 7, 9),
    "prime": (1, 2, 67, 67),
    "sixteens": (2, 64, 8, 16),
    "none": (0, 3, 4, 4),
}
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "NCHW": lambda x: x,
    "NHWC": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "unaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "samples last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}
Case = tuple[str, Callable[[], object]]


def derivatives(f: Callable, *inputs: torch.Tensor, order: int) -> Callable[[], None]:
    """Calls f and takes its derivatives up to `order`."""

    def run():
        leaves = [t.detach().requires_grad_() for t in inputs]
        total = f(*leaves)
        for _ in range(order):
            grads = torch.autograd.grad(total, leaves, torch.ones_like(total), create_graph=True, allow_unused=True)
            grads = [g for g in grads if g is not None and g.requires_grad]
            if not grads:
                break
            total = torch.stack([g.sum() for g in grads]).sum()

    return run


def bias_act_cases() -> Iterator[Case]:
    for dtype, act, clamp in itertools.product(DTYPES, ACTS, (None, 0.5)):
        x, b = torch.zeros(2, 3, 5, 7, dtype=dtype), torch.zeros(3, dtype=dtype)
        f = lambda x, b, act=act, clamp=clamp: bias_act(x, b, act=act, clamp=clamp, impl="triton")  # noqa: E731
        yield f"{dtype} {act} clamp={clamp}", derivatives(f, x, b, order=2)
    for dtype, (shape, size), (layout, laid), bias in itertools.product(
        DTYPES[::2], SHAPES.items(), LAYOUTS.items(), (None, 1, 3)
    ):
        x = laid(torch.zeros(size, dtype=dtype))
        f = lambda x, b=None, dim=bias or 1: bias_act(x, b, dim, "swish", clamp=0.5, impl="triton")  # noqa: E731
        inputs = (x,) if bias is None else (x, torch.zeros(size[bias], dtype=dtype))
        yield f"{dtype} {shape} {layout} bias={bias}", derivatives(f, *inputs, order=1)
    for dtype, by_row in itertools.product(DTYPES[:3:2], (True, False)):
        x = torch.empty((2, 3, 2**30 + 5) if by_row else (2**30 + 5, 3), dtype=dtype, device="meta")
        yield f"{dtype} {tuple(x.shape)}", lambda x=x: launch_bias_act(x)


def launch_bias_act(x: torch.Tensor) -> None:
    from fastgan.ops.triton import bias_act as module

    b, numbers = x.new_empty(x.shape[1]), ("swish", 0.2, 1.0, 0.5)
    module.bias_act(x, b, 1, *numbers)
    module.bias_act_backward(x, x, b, 1, *numbers, True)


def norm_act_cases() -> Iterator[Case]:
    for dtype, act in itertools.product(DTYPES, ACTS):
        x, w, b = torch.zeros(2, 3, 9, 7, dtype=dtype), torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=dtype)
        f = lambda x, w, b, r, act=act: norm_act(x, w, b, r, act=act, impl="triton")  # noqa: E731
        yield f"{dtype} {act}", derivatives(f, x, w, b, x, order=1)
    for dtype, (shape, size), (layout, laid) in itertools.product(DTYPES[::2], SHAPES.items(), LAYOUTS.items()):
        x = laid(torch.zeros(size, dtype=dtype))
        f = lambda x: norm_act(x, act="swish", impl="triton")  # noqa: E731
        yield f"{dtype} {shape} {layout}", derivatives(f, x, order=1)
    for dtype, last in itertools.product(DTYPES[:3:2], (True, False)):
        x = torch.empty((2, 2**30 + 5, 3) if last else (2, 3, 2**30 + 5), dtype=dtype, device="meta")
        x = x.mT if last else x
        yield f"{dtype} {tuple(x.shape)} last={last}", lambda x=x: launch_norm_act(x)


def launch_norm_act(x: torch.Tensor) -> None:
    from fastgan.ops.triton import norm_act as module

    w = x.new_empty(x.shape[1])
    _, mean, rstd = module.norm_act(x, w, w, x, "swish", 0.2, 1e-5)
    module.norm_act_backward(x, x, w, w, mean, rstd, "swish", 0.2, 1e-5)


def grad_penalty_cases() -> Iterator[Case]:
    sizes = {**SHAPES, "many parts": (2, 50_001), "parts of sixteen": (16, 2**16), "nothing in a sample": (2, 0)}
    for dtype, kind, (shape, size) in itertools.product(DTYPES, ("r1", "wgan-gp", "one-sided"), sizes.items()):
        f = lambda g, kind=kind: grad_penalty(g, kind, impl="triton")  # noqa: E731
        yield f"{dtype} {kind} {shape}", derivatives(f, torch.zeros(size, dtype=dtype), order=2)
    for dtype, (layout, laid) in itertools.product(DTYPES, LAYOUTS.items()):
        f = lambda g: grad_penalty(g, "wgan-gp", impl="triton")  # noqa: E731
        yield f"{dtype} {layout}", derivatives(f, laid(torch.zeros(3, 5, 7, 9, dtype=dtype)), order=1)
    for dtype in DTYPES[:3:2]:
        g = torch.empty(2, 2**31 + 5, dtype=dtype, device="meta")
        yield f"{dtype} {tuple(g.shape)}", lambda g=g: launch_grad_penalty(g)


def launch_grad_penalty(grad: torch.Tensor) -> None:
    from fastgan.ops.triton import grad_penalty as module

    penalty, squares = module.grad_penalty(grad, "wgan-gp", 1.0)
    module.grad_penalty_backward(penalty, grad, squares, "wgan-gp", 1.0)


def gumbel_softmax_cases() -> Iterator[Case]:
    shapes = ((3, 1), (17,), (2, 3, 7), (5, 64), (2, 131), (1, 5003), (2, 4096), (0, 4), (3, 0))
    for dtype, shape in itertools.product(DTYPES, shapes):
        f = lambda x: gumbel_softmax(x, 0.5, impl="triton")  # noqa: E731
        yield f"{dtype} {shape}", derivatives(f, torch.zeros(shape, dtype=dtype), order=1)
        yield (
            f"{dtype} {shape} unaligned",
            derivatives(f, LAYOUTS["unaligned"](torch.zeros(shape, dtype=dtype)), order=0),
        )


def modulated_activation_cases() -> Iterator[Case]:
    forms = [(dtype, "odd", "NCHW", True, clamp) for dtype in DTYPES for clamp in (None, 0.5)]
    forms += [(*form, None) for form in itertools.product(DTYPES[::2], SHAPES, LAYOUTS, (True, False))]
    for dtype, shape, layout, noisy, clamp in forms:
        n, c, h, w = SHAPES[shape]
        x, scale = (
            LAYOUTS[layout](torch.zeros(n, c, h, w, dtype=dtype)),
            torch.zeros(n, c, dtype=accumulation_dtype(dtype)),
        )
        noise = (torch.zeros(n, 1, h, w, dtype=dtype),) if noisy else ()
        f = lambda x, s, b, z=None, clamp=clamp: modulated_activation.apply(x, s, z, b, "lrelu", None, clamp, "triton")  # noqa: E731
        of = derivatives(f, x, scale, torch.zeros(c, dtype=dtype), *noise, order=2)
        yield f"{dtype} {shape} {layout} noise={noisy} clamp={clamp}", of
    for dtype, last in itertools.product(DTYPES[:3:2], (True, False)):
        x = torch.empty(2, 3, 2**15, 2**15 + 1, dtype=dtype, device="meta")
        x = x.to(memory_format=torch.channels_last) if last else x
        yield f"{dtype} {tuple(x.shape)} last={last}", lambda x=x: launch_modulated_activation(x)


def launch_modulated_activation(x: torch.Tensor) -> None:
    from fastgan.ops.triton import modulated_activation as module

    scale, b = x.new_empty(x.shape[:2], dtype=accumulation_dtype(x.dtype)), x.new_empty(x.shape[1])
    module.modulated_activation(x, scale, x.new_empty(x.shape[2:]), b, 0.2, 1.0, 0.5)
    module.modulated_activation_backward(x, x, x, scale, b, 0.2, 1.0, 0.5)


def modulate_cases() -> Iterator[Case]:
    for dtype, (shape, (n, c, h, w)), (layout, laid) in itertools.product(DTYPES, SHAPES.items(), LAYOUTS.items()):
        f = lambda x, s: modulate.apply(x, s, "triton")  # noqa: E731
        of = derivatives(f, laid(torch.zeros(n, c, h, w, dtype=dtype)), torch.zeros(n, c, dtype=dtype), order=2)
        yield f"{dtype} {shape} {layout}", of
    for dtype, last in itertools.product(DTYPES[:3:2], (True, False)):
        x = torch.empty(2, 3, 2**15, 2**15 + 1, dtype=dtype, device="meta")
        x = x.to(memory_format=torch.channels_last) if last else x
        yield f"{dtype} {tuple(x.shape)} last={last}", lambda x=x: launch_modulate(x)


def launch_modulate(x: torch.Tensor) -> None:
    from fastgan.ops.triton import modulate as module

    module.modulate_backward(x, x, x.new_empty(x.shape[:2]))


CASES = {
    "modulate": modulate_cases,
    "bias_act": bias_act_cases,
    "modulated_activation": modulated_activation_cases,
    "norm_act": norm_act_cases,
    "grad_penalty": grad_penalty_cases,
    "gumbel_softmax": gumbel_softmax_cases,
}


def run(arch: int, first: int, every: int) -> dict:
    stub, compiled, failed = triton_stub.activate(arch), {}, {}
    for op, cases in CASES.items():
        before = stub.compiled
        for name, call in itertools.islice(cases(), first, None, every):
            try:
                call()
            except Exception as error:  # of any kind: what the compiler says is the finding
                failed[f"{op} {name}"] = f"{type(error).__name__}: {error}"[-600:]
        compiled[op] = stub.compiled - before
    return {"compiled": compiled, "failed": failed}


if __name__ == "__main__":
    kernels.register_for_cpu()
    json.dump(run(*map(int, sys.argv[1:])), sys.stdout)
