"""Runs every CUDA entry, emulated with one OS thread per CUDA thread, under AddressSanitizer (bounds) and ThreadSanitizer
(races in shared and global memory), and compares the results with the reference. Exits with 1 where anything is found.

A block of 128 OS threads takes tens of milliseconds, so each case has the few blocks that show its edges.
"""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KINDS = ("address", "thread")


def cases():
    """(name, function of impl that gives the tensors to compare)"""
    import torch

    from fastgan.ops import filtered_lrelu, filtered_snake, upfirdn2d
    from fastgan.ops.modulated_conv2d import _backward_reference, _reference

    torch.manual_seed(0)
    f24, f12, f4, radial = torch.rand(24) / 6, torch.rand(12) / 6, torch.rand(4, 4) / 8, torch.rand(5, 6) / 15

    def with_gradients(f, *inputs):
        inputs = [t.detach().requires_grad_() for t in inputs]
        y = f(*inputs)
        return y, *torch.autograd.grad(y, inputs, torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype))

    def upfirdn2d_case(x, f, *arguments):
        return lambda impl: with_gradients(lambda x: upfirdn2d(x, f, *arguments, impl=impl), x)

    def filtered_lrelu_case(x, fu, fd, b, **options):
        return lambda impl: with_gradients(lambda x: filtered_lrelu(x, fu, fd, b, clamp=0.5, **options, impl=impl), x)

    f5 = torch.rand(5, 5) / 12
    yield "upfirdn2d tiled, whole packs", upfirdn2d_case(torch.randn(1, 2, 20, 40), f5, 1, 1, [2, 2, 2, 2])
    yield "upfirdn2d tiled, separable", upfirdn2d_case(torch.randn(1, 1, 13, 37).half(), f5[0], 2, 1, [6, 5, 6, 5])
    yield "upfirdn2d tiled, float64", upfirdn2d_case(torch.randn(1, 1, 19, 21).double(), f12, 1, 4, 7)
    last = torch.randn(1, 8, 6, 5).bfloat16().contiguous(memory_format=torch.channels_last)
    yield "upfirdn2d streaming, whole packs", upfirdn2d_case(torch.randn(1, 2, 20, 40), f4, 1, 1, [2, 1, 2, 1])
    yield "upfirdn2d streaming, separable", upfirdn2d_case(torch.randn(1, 1, 13, 37).half(), f12, 2, 1, [6, 5, 6, 5])
    yield "upfirdn2d streaming, channels_last", upfirdn2d_case(last.float(), f4, 1, 2, [1, 2, 2, 1])
    x = torch.arange(432.0).sin().view(1, 1, 18, 24)
    yield "upfirdn2d on tensor cores", upfirdn2d_case(x.bfloat16(), f4, 1, 1, [2, 2, 2, 2])
    yield "upfirdn2d on tensor cores, factors of 2", upfirdn2d_case(x[:, :, :5, :17].half(), f4, 2, 1, [2, 1, 2, 1])
    yield "upfirdn2d on tensor cores, channels_last", upfirdn2d_case(last, f4, 1, 1, [2, 2, 2, 2])
    last24 = torch.cat([last] * 3, 1).half().contiguous(memory_format=torch.channels_last)
    yield "upfirdn2d on tensor cores, channels_last, factors of 2", upfirdn2d_case(last24, f4, 2, 1, [2, 1, 2, 1])
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, 3, 39, 14).bfloat16().contiguous(memory_format=layout)
        yield f"upfirdn2d on tensor cores, 12 taps, {layout}", upfirdn2d_case(x, f12, 1, 2, [5, 5, 6, 5])
    yield "upfirdn2d direct", upfirdn2d_case(torch.randn(1, 2, 5, 7), f4, 3, 2, [2, -1, 0, 3])
    yield "upfirdn2d direct, packs of channels", upfirdn2d_case(last, f5, 2, 1, [2, 2, 2, 2])
    x = torch.randn(1, 3, 9, 11)
    yield "upfirdn2d filter gradient", lambda impl: with_gradients(lambda f: upfirdn2d(x, f, 2, 3, 4, impl=impl), f4)

    b = torch.randn(1)
    x = torch.randn(1, 1, 20, 25)
    yield "filtered_lrelu up 2 down 2", filtered_lrelu_case(x, f12, f12, b, up=2, down=2, padding=[9, 8, 10, 9])
    last = torch.randn(1, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    yield (
        "filtered_lrelu up 4 down 2",
        filtered_lrelu_case(last, f24, f12, b.expand(3), up=4, down=2, padding=[9, 8, 10, 9]),
    )
    last = torch.randn(1, 8, 6, 5).contiguous(memory_format=torch.channels_last)
    of_pixels = filtered_lrelu_case(last, f12, f12, b.expand(8), up=2, down=2, padding=[9, 8, 10, 9])
    yield "filtered_lrelu up 2 down 2, channels_last", of_pixels
    x = torch.randn(1, 1, 19, 26)
    for dtype in (torch.bfloat16, torch.float16):
        yield (
            f"filtered_lrelu on tensor cores, {dtype}",
            filtered_lrelu_case(x.to(dtype), f12, f12, b.to(dtype), up=2, down=2, padding=[11, 10, 10, 9]),
        )
    yield (
        "filtered_lrelu on tensor cores, up 4",
        filtered_lrelu_case(x[..., :12].half(), f24, f12, b.half(), up=4, down=2, padding=[18, 17, 17, 19]),
    )
    for channels, up in ((8, 2), (3, 4)):
        last = torch.randn(1, channels, 19, 13).half().contiguous(memory_format=torch.channels_last)
        yield (
            f"filtered_lrelu on tensor cores, channels_last, {channels} channels",
            filtered_lrelu_case(last, (f12, f24)[up // 4], f12, b.expand(channels).half(), up=up, down=2, padding=11),
        )
    x = torch.randn(1, 1, 20, 25)
    yield "filtered_lrelu tiled", filtered_lrelu_case(x, f5[0], f12, b, up=2, down=2, padding=[9, 8, 10, 9])
    yield "filtered_lrelu up 4 down 1", filtered_lrelu_case(x[:, :, :7, :8], f12, None, b, up=4, padding=5)
    yield (
        "filtered_lrelu radial",
        filtered_lrelu_case(x[:, :, :9].half(), radial, radial, b.half(), up=1, down=4, padding=5),
    )
    yield (
        "filtered_lrelu float64",
        filtered_lrelu_case(x[:, :, :8].double(), f12, radial, b.double(), up=2, down=2, padding=9),
    )

    def filtered_snake_case(x, fu, fd, up, down):
        alpha, beta = torch.rand(x.shape[1]).to(x.dtype), 1 + torch.rand(x.shape[1]).to(x.dtype)
        return lambda impl: with_gradients(
            lambda x, alpha, beta: filtered_snake(x, alpha, beta, fu, fd, up, down, impl=impl), x, alpha, beta
        )

    yield "filtered_snake", filtered_snake_case(torch.randn(1, 2, 72), f12, f4[0], 2, 2)
    yield "filtered_snake in packs", filtered_snake_case(torch.randn(2, 2, 72), f12, f12, 2, 2)
    yield "filtered_snake in packs, two tiles", filtered_snake_case(torch.randn(1, 1, 2040), f12, f12, 2, 2)
    yield "filtered_snake on tensor cores", filtered_snake_case(torch.randn(2, 2, 96).bfloat16(), f12, f12, 2, 2)
    yield (
        "filtered_snake on tensor cores, many pieces",
        filtered_snake_case(torch.randn(1, 3, 416).half(), f12, f12, 2, 2),
    )
    yield "filtered_snake two stretches, odd", filtered_snake_case(torch.randn(1, 1, 519).half(), f24, f5[0], 4, 1)
    yield "filtered_snake float64", filtered_snake_case(torch.randn(2, 1, 5).double(), f4[0], f24, 1, 4)

    def modulated_case(samples, out, channels, size, gain):
        weight, styles = torch.randn(out, channels, size, size), torch.randn(samples, channels)
        gain = torch.randn(samples, channels) if gain else None
        dw = torch.randn(samples, *weight.shape)

        def run(impl):
            if impl == "reference":
                w, d = _reference(weight, styles, gain, True)
                return weight.square().sum((2, 3)), w, d, *_backward_reference(dw, weight, styles, gain, d, True)
            ops = torch.ops.fastgan_cuda
            w, d = ops.modulated_conv2d_weight(weight, styles, gain, True)
            gradients = ops.modulated_conv2d_weight_backward(dw, weight, styles, gain, d, True)
            return ops.modulated_conv2d_squares(weight), w, d, *gradients

        return run

    yield "modulated_conv2d", modulated_case(2, 2, 260, 3, True)
    yield "modulated_conv2d, unaligned", modulated_case(1, 2, 35, 1, False)


def work(kind: str) -> None:
    """In a process that was started with the runtime of sanitizer `kind`."""
    import torch
    from cuda_emulation import emulated

    emulated.load(sanitize=kind)
    torch.set_num_threads(1)
    for name, run in cases():
        start = time.perf_counter()
        for actual, expected in zip(run("cuda"), run("reference"), strict=True):
            tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2}.get(actual.dtype, 1e-4)
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
        print(f"{kind:8} {name}: clean ({time.perf_counter() - start:.1f} s)", flush=True)


def main() -> int:
    sys.path.insert(0, str(HERE.parent))
    from cuda_emulation import emulated

    if emulated.compiler() is None:
        print("sanitizers: no g++ here")
        return 1
    for kind in KINDS:
        emulated.build(emulated.kernels(), kind)
    environments = {kind: emulated.sanitized_environment(kind) for kind in KINDS}
    running = {kind: subprocess.Popen([sys.executable, __file__, kind], env=environments[kind]) for kind in KINDS}
    codes = {kind: process.wait() for kind, process in running.items()}
    print(
        "sanitizers:",
        ", ".join(f"{kind} {'clean' if code == 0 else f'FAILED ({code})'}" for kind, code in codes.items()),
    )
    return int(any(codes.values()))


if __name__ == "__main__":
    if sys.argv[1:]:
        work(sys.argv[1])
    else:
        sys.exit(main())
