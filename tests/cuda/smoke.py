"""Each op in each element type, laid out, launched and wrapped in every way, against float64 on the CPU, in under a minute:
`python tests/cuda/smoke.py --device cuda --json FILE`. Outputs and gradients start as NaN, so that what is not written shows.

With --device cpu the same runs on CPU tensors, without what only a GPU has: a rehearsal of this script.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tolerances import TOLERANCE, assert_close

from fastgan import ops
from fastgan.ops import _library

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TORCHS_OWN = {"conv2d_resample", "modulated_conv2d", "grid_sample", "minibatch_stddev", "pixel_norm"}
F4, F12 = ops.setup_filter([1, 3, 3, 1]), ops.setup_filter([1, 2, 4, 7, 9, 10, 10, 9, 7, 4, 2, 1])


PLACED: dict[tuple[str, torch.dtype], tuple[torch.Tensor, ...]] = {}  # a graph captures no copy from the CPU


def place_filters(device: torch.device) -> None:
    """F4 and F12 on `device`, in the types that go with images of each type."""
    for dtype in DTYPES:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        PLACED[device.type, dtype] = tuple(f.to(device, wide) for f in (F4, F12))


def _f4(x: torch.Tensor) -> torch.Tensor:
    return PLACED[x.device.type, x.dtype][0]


def _f12(x: torch.Tensor) -> torch.Tensor:
    return PLACED[x.device.type, x.dtype][1]


def _grid_sample(x, shift):
    across, down = (torch.linspace(-0.9, 1.1, n, device=x.device, dtype=x.dtype) for n in (x.shape[3], x.shape[2]))
    grid = torch.stack([across.expand(x.shape[2], -1), down[:, None].expand(-1, x.shape[3])], -1)
    return ops.grid_sample(x, grid.expand(x.shape[0], -1, -1, -1) + 0.01 * shift.mean())


def _modulate(x, s):
    return _library.select("modulate", "auto", x)(x, s)


def _weights_per_sample(x, w, s):
    """The form that nothing takes by itself on a GPU, nor with gradients on a CPU."""
    impl = "cuda" if x.is_cuda else "reference"
    return ops.modulated_conv2d(x, w, s, padding=1, impl=impl)


def _image(*more: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return (2, 8, 20, 18), *more


# name: (function of its tensors, their shapes); the first one is laid out in the ways of WAYS
OPS: dict[str, tuple[Callable, tuple[tuple[int, ...], ...]]] = {
    **{f"bias_act {act}": (lambda x, b, act=act: ops.bias_act(x, b, act=act, clamp=64.0), _image((8,)))
       for act in ("linear", "lrelu", "tanh", "swish", "softplus")},
    "norm_act": (lambda x, w, b, r: ops.norm_act(x, w, b, r, act="lrelu"), _image((8,), (8,), (2, 8, 20, 18))),
    "norm_act large": (lambda x, w, b: ops.norm_act(x, w, b), ((1, 2, 130, 131), (2,), (2,))),
    **{f"grad_penalty {kind}": (lambda g, kind=kind: ops.grad_penalty(g, kind), _image()) for kind in ("r1", "wgan-gp")},
    "grad_penalty large": (lambda g: ops.grad_penalty(g), ((2, 8, 40, 54),)),
    "gumbel_softmax": (lambda x: ops.gumbel_softmax(x.flatten(1), 0.7, seed=7), _image()),
    "gumbel_softmax large": (lambda x: ops.gumbel_softmax(x.flatten(1), 0.7, seed=7), ((2, 8, 32, 33),)),
    "upfirdn2d": (lambda x: ops.upfirdn2d(x, _f4(x), 2, 1, [2, 1, 2, 1], gain=4), _image()),
    "upfirdn2d 16-bit": (lambda x: ops.upfirdn2d(x, _f4(x), 2, 1, [2, 1, 2, 1], gain=4), _image()),
    "upfirdn2d 16-bit NHWC": (
        lambda x: ops.upfirdn2d(x.contiguous(memory_format=torch.channels_last), _f4(x), 1, 2, 1), _image()),
    "upfirdn2d separable": (lambda x: ops.upfirdn2d(x, _f12(x), 1, 2, 5), _image()),
    "upfirdn2d 16-bit separable": (lambda x: ops.upfirdn2d(x, _f12(x), 2, 1, [6, 5, 6, 5]), _image()),
    "upfirdn2d tiled": (lambda x: ops.upfirdn2d(x, _f12(x), 2, 2, 5), _image()),
    "upfirdn2d learnt": (lambda x, f: ops.upfirdn2d(x, f.to(_f4(x)), 2, 1, 3), _image((3, 4))),
    "upfirdn2d odd": (lambda x: ops.upfirdn2d(x, _f4(x), 3, 2, [2, -1, 0, 3]), _image()),
    "filtered_lrelu": (lambda x, b: ops.filtered_lrelu(x, _f12(x), _f12(x), b, 2, 2, 10, clamp=1.0), _image((8,))),
    "filtered_lrelu 16-bit": (
        lambda x, b: ops.filtered_lrelu(x, _f12(x), _f12(x), b, 2, 2, 11, clamp=1.0), _image((8,))),
    "filtered_lrelu 2-D": (lambda x, b: ops.filtered_lrelu(x, _f4(x), _f4(x), b, 4, 2, 4), _image((8,))),
    "filtered_snake": (
        lambda x, a, b: ops.filtered_snake(x.flatten(2), a, b, _f12(x), _f12(x), logscale=True), _image((8,), (8,))),
    "filtered_snake 16-bit": (
        lambda x, a, b: ops.filtered_snake(x.flatten(2)[..., :352], a, b, _f12(x), _f12(x), logscale=True),
        _image((8,), (8,))),
    "filtered_snake up 4": (
        lambda x, a, b: ops.filtered_snake(x.flatten(2), a, b, _f12(x), _f12(x), 4, 1, logscale=True), _image((8,), (8,))),
    "snake": (lambda x, a, b: ops.snake(x, a, b, logscale=True), _image((8,), (8,))),
    "modulate": (_modulate, _image((2, 8))),
    "modulated_conv2d": (lambda x, w, s: ops.modulated_conv2d(x, w, s, padding=1), _image((6, 8, 3, 3), (2, 8))),
    "modulated_conv2d lrelu": (
        lambda x, w, s, n, b: ops.modulated_conv2d(x, w, s, n, padding=1, bias=b, act="lrelu", clamp=64.0),
        _image((6, 8, 3, 3), (2, 8), (20, 18), (6,))),
    "modulated_conv2d per sample": (_weights_per_sample, _image((6, 8, 3, 3), (2, 8))),
    "conv2d_resample": (lambda x, w: ops.conv2d_resample(x, w, _f4(x), up=2, padding=1), _image((6, 8, 3, 3))),
    "grid_sample": (_grid_sample, _image((3,))),
    "minibatch_stddev": (lambda x: ops.minibatch_stddev(x, 2), _image()),
    "pixel_norm": (lambda x: ops.pixel_norm(x), _image()),
}  # fmt: skip
SHORT = (
    "upfirdn2d 16-bit",
    "upfirdn2d 16-bit NHWC",
    "upfirdn2d 16-bit separable",
    "filtered_lrelu 16-bit",
    "filtered_snake 16-bit",
)  # whose kernels are for 16 bits alone: in bfloat16, whatever is asked for

Result = list[torch.Tensor]


def with_gradients(f: Callable, inputs: list[torch.Tensor]) -> Result:
    """The output and its gradients in every input."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = f(*leaves)
    dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def planes(f, inputs):
    return with_gradients(f, inputs)


def channels_last(f, inputs):
    return with_gradients(f, [inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:]])


def unaligned(f, inputs):
    return with_gradients(f, [torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape) for t in inputs])


def strided(f, inputs):
    return with_gradients(f, [torch.stack([t, t], -1)[..., 0] for t in inputs])


def compiled(f, inputs):
    torch._dynamo.reset()
    return with_gradients(torch.compile(f, backend="aot_eager", fullgraph=True), inputs)


def autocast(f, inputs):
    """Whatever is computed in, what comes out has the same numbers and types."""
    half = torch.float16 if inputs[0].dtype == torch.float16 else torch.bfloat16
    with torch.autocast(inputs[0].device.type, dtype=half):
        return with_gradients(f, inputs)


def side_stream(f, inputs):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(2_000_000)  # whoever forgets the stream reads the result too early
        results = with_gradients(f, inputs)
    torch.cuda.current_stream().wait_stream(side)
    return results


def graph_replay(f, inputs):
    """Captured on other numbers."""
    held = [torch.zeros_like(t) + 0.5 for t in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        leaves = [t.requires_grad_() for t in held]
        dy = torch.linspace(-1, 1, f(*leaves).numel(), dtype=torch.float64, device=held[0].device)
        torch.autograd.grad(f(*leaves).sum(), leaves)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = f(*leaves)
        results = [y, *torch.autograd.grad(y, leaves, dy.view(y.shape).to(y.dtype))]
    with torch.no_grad():
        for kept, t in zip(held, inputs, strict=True):
            kept.copy_(t)
    graph.replay()
    return [r.detach() for r in results]


WAYS = (planes, channels_last, unaligned, strided, compiled, autocast, side_stream, graph_replay)
ONLY_CUDA = (side_stream, graph_replay)


def check(name: str, ways: list[str], dtypes: list[str], device: torch.device) -> dict[str, str]:
    """{case: "ok", "skipped: why" or the error} of one op."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    place_filters(torch.device("cpu"))
    place_filters(device)
    f, shapes = OPS[name]
    found = {}
    # A 16-bit coordinate lies in another cell than the one meant.
    known = DTYPES[::3] if name == "grid_sample" else DTYPES
    wanted = [t for t in known if str(t).removeprefix("torch.") in dtypes]
    for dtype in (torch.bfloat16,) if name in SHORT else wanted:
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
        expected = with_gradients(f, [v.double() for v in values])
        for way in [way for way in WAYS if way.__name__ in ways]:
            case = f"{name} {str(dtype).removeprefix('torch.')} {way.__name__}"
            if device.type == "cpu" and way in ONLY_CUDA:
                found[case] = "skipped: needs a GPU"
                continue
            try:
                results = way(f, [v.to(device) for v in values])
                # In torch's own products autocast rounds as it should; ours compute in float32 whatever is around them.
                loose = way is autocast and name.split()[0] in TORCHS_OWN
                tolerance = 4 * max(TOLERANCE[dtype], TOLERANCE[torch.bfloat16] if loose else 0)
                for i, (actual, e) in enumerate(zip(results, expected, strict=True)):
                    assert loose or actual.dtype in (dtype, torch.float32), f"result {i} is {actual.dtype}"
                    assert_close(actual.cpu(), e, tolerance)
                found[case] = "ok"
            except Exception as error:
                found[case] = f"{type(error).__name__}: {error}"[:400]
    return found


def past_faults(device: torch.device) -> dict[str, str]:
    """What was once wrong, and only a GPU can show to be right."""
    found = {}

    def case(function: Callable[[], None]) -> None:
        try:
            function()
            found[function.__name__] = "ok"
        except Exception as error:
            found[function.__name__] = f"{type(error).__name__}: {error}"[:400]

    x, f = torch.randn(1, 4, 16, 16, device=device), F4.to(device)

    def ones_and_zeros():
        for shape in ((1, 1, 1, 1), (1, 3, 1, 1), (0, 3, 4, 4), (2, 1, 16, 16), (1, 2, 67, 67)):
            for dtype in DTYPES:
                t = torch.randn(shape, device=device).to(dtype)
                for y in (ops.bias_act(t, t.new_zeros(t.shape[1]), act="swish"), ops.norm_act(t), ops.grad_penalty(t)):
                    assert y.isfinite().all()

    def large_float64_filters():
        plane = torch.rand(32, 32, dtype=torch.float64, device=device) / 1024
        y = ops.filtered_lrelu(x.double(), plane, plane, up=1, down=4, padding=31)
        assert_close(y.cpu(), ops.filtered_lrelu(x.double().cpu(), plane.cpu(), plane.cpu(), up=1, down=4, padding=31))

    def not_finite():
        for value in (float("nan"), float("inf")):
            t = x.clone()
            t[0, 1, 7, 6] = value
            for g in (
                lambda t, impl: ops.bias_act(t, act="relu", impl=impl),
                lambda t, impl: ops.upfirdn2d(t, f.to(t.device), padding=2, impl=impl),
                lambda t, impl: ops.filtered_lrelu(
                    t, f.to(t.device), f.to(t.device), up=2, down=2, padding=4, impl=impl
                ),
            ):
                assert torch.equal(g(t.cpu(), "reference").isfinite(), g(t, "auto").isfinite().cpu())

    def modulated_convolution_of_large_styles_under_autocast():
        w, s = torch.randn(6, 4, 3, 3, device=device), 100 + torch.randn(1, 4, device=device)
        exact = ops.modulated_conv2d(x.double(), w.double(), s.double(), padding=1)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast(device.type, dtype=dtype):
                assert_close(ops.modulated_conv2d(x, w, s, padding=1).cpu(), exact.cpu(), 3e-2)

    def a_graph_draws_new_noise():
        logits = torch.zeros(4, 64, device=device)
        ops.gumbel_softmax(logits)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = ops.gumbel_softmax(logits)
        graph.replay()
        first = y.clone()
        graph.replay()
        assert not torch.equal(first, y)

    def a_filter_on_the_cpu_is_an_error_and_no_more():
        calls = (
            lambda: torch.ops.fastgan.upfirdn2d(x, F4, None, [1, 1], [1, 1], [2, 1, 2, 1], False, 1.0),
            lambda: torch.ops.fastgan.upfirdn2d(x.cpu(), f, None, [1, 1], [1, 1], [2, 1, 2, 1], False, 1.0),
            lambda: torch.ops.fastgan.bias_act(x, torch.zeros(4), 1, "lrelu", 0.2, 1.0, -1.0),
            lambda: torch.ops.fastgan.filtered_lrelu(x, None, F4, f, 1, 1, [2] * 4, 1.0, 0.2, -1.0, False, False),
        )
        for call in calls:
            try:
                call()
            except (RuntimeError, ValueError, TypeError):
                torch.cuda.synchronize()
                continue
            raise AssertionError("no error")
        assert ops.upfirdn2d(x, f, padding=2).isfinite().all()

    def more_than_2_31_elements():
        large = torch.empty(1, 2, 2**30 + 5, dtype=torch.float16, device=device)
        large[:, :, -64:] = 3.0
        assert (ops.bias_act(large, torch.ones(2, device=device).half())[:, :, -64:] == 4).all()
        image = torch.zeros(2, 1, 46400, 23200, dtype=torch.float16, device=device)
        image[1, 0, -4:, -4:] = 1.0
        assert ops.upfirdn2d(image, torch.ones(4, device=device) / 4)[1, 0, -1, -1] == 1

    everywhere = (
        ones_and_zeros,
        large_float64_filters,
        not_finite,
        modulated_convolution_of_large_styles_under_autocast,
    )
    on_a_gpu = (a_graph_draws_new_noise, a_filter_on_the_cpu_is_an_error_and_no_more, more_than_2_31_elements)
    for function in everywhere:
        case(function)
    for function in on_a_gpu:
        if device.type == "cuda":
            case(function)
        else:
            found[function.__name__] = "skipped: needs a GPU"
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--jobs", type=int, default=8, help="processes; 1: this one")
    names = [way.__name__ for way in WAYS]
    parser.add_argument("--ways", nargs="*", choices=names, default=names)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--only", nargs="*", choices=OPS, default=list(OPS), help="these ops (default: all)")
    options = parser.parse_args()
    start, found = time.perf_counter(), {}
    work = [functools.partial(check, name, options.ways, options.dtypes) for name in options.only]
    work += [past_faults] if options.ways == names else []

    def take(part: dict[str, str]) -> None:
        """Shows and keeps what is known so far: whoever is ended early has said it."""
        found.update(part)
        for case, text in part.items():
            if text != "ok" and not text.startswith("skipped"):
                print(f"{case}: {text}"[:220], flush=True)
        if options.json:
            options.json.write_text(json.dumps(summary(found)))

    if options.jobs == 1:  # what watches this process need not follow others
        for f in work:
            take(f(options.device))
    else:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            for future in [pool.submit(f, options.device) for f in work]:
                take(future.result())
    result = summary(found)
    counts = f"{result['cases']} cases, {len(result['failed'])} failed, {result['skipped']} skipped"
    print(f"smoke: {counts}, {time.perf_counter() - start:.0f} s")
    return int(bool(result["failed"]))


def summary(found: dict[str, str]) -> dict:
    skipped = sum(text.startswith("skipped") for text in found.values())
    failed = {case: text for case, text in found.items() if text != "ok" and not text.startswith("skipped")}
    return {"cases": len(found), "skipped": skipped, "failed": failed}


if __name__ == "__main__":
    raise SystemExit(main())
