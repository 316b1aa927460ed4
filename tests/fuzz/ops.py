"""Random calls of every public op, for as long as it is told: python tests/fuzz/ops.py --seconds 60 --seed 0

Shapes of 0, 1 and prime sizes, every dtype and layout, views and expanded tensors, options in and out of their range, NaN and
Inf. A right call must be its definition in float64 (values, where NaN and Inf are and, in some calls, gradients); a wrong one
must raise TypeError or ValueError that begins with the op's name, or NotImplementedError with a message. Anything else is
printed with the command that repeats it, and the script ends with 1. The same seed makes the same calls.
"""

import argparse
import faulthandler
import inspect
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import calls
import convolutions
import torch

from fastgan import ops

SIMPLE = (
    "bias_act",
    "norm_act",
    "grad_penalty",
    "gumbel_softmax",
    "grid_sample",
    "minibatch_stddev",
    "pixel_norm",
    "snake",
    "filtered_snake",
    "fma",
)
MAKERS = {name: getattr(calls, name) for name in SIMPLE}
MAKERS |= {
    name: getattr(convolutions, name)
    for name in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d", "filtered_lrelu", "conv2d", "conv_transpose2d",
                 "conv2d_resample", "modulated_conv2d")
}  # fmt: skip
# Whose names may begin the message, too.
MADE_OF = dict.fromkeys(("filter2d", "upsample2d", "downsample2d"), ("upfirdn2d",))
MADE_OF["snake"] = ("filtered_snake",)
MADE_OF["conv2d_resample"] = ("upfirdn2d",)
MADE_OF["modulated_conv2d"] = ("conv2d_resample", "upfirdn2d", "modulated_conv2d_weight")
# Relative to the largest value: sums of a few hundred terms in float32, and a few roundings to 16 bits on the way.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


class Wrong(Exception):
    """An answer that is not the definition's."""


def in_float64(arguments):
    # Contiguous: torch's own float64 gradient refuses a weight to one channel that is not.
    return {k: v.double().contiguous() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}


def compare(what, found, expected, dtype):
    if found.shape != expected.shape:
        raise Wrong(f"{what} has shape {tuple(found.shape)}; expected {tuple(expected.shape)}")
    tolerance = max(TOLERANCE[dtype], TOLERANCE[found.dtype])  # a filter is float32 whatever the image
    found, expected = found.detach().double(), expected.detach()
    largest = torch.finfo(found.dtype if dtype == torch.float64 else dtype).max / 8
    clear = expected.abs() <= largest  # beyond, rounding decides what is Inf
    clear |= ~expected.isfinite()
    if not torch.equal((found.isfinite() & clear), (expected.isfinite() & clear)):
        raise Wrong(f"{what} is not finite where the definition is, or finite where it is not")
    both = clear & expected.isfinite()
    if both.any():
        scale = max(1.0, expected[both].abs().max().item())
        difference = (found[both] - expected[both]).abs().max().item()
        if difference > tolerance * scale:
            raise Wrong(f"{what} differs by {difference:.3e} where values are up to {scale:.3e}")


def right_call(call, draw):
    arguments = dict(call.arguments)
    names = [n for n in call.differentiable if isinstance(arguments.get(n), torch.Tensor)]
    gradients = not draw.special and draw.chance(0.3)
    if gradients:
        arguments |= {n: arguments[n].detach().requires_grad_() for n in names}
    y = call.function(**arguments)
    wide = in_float64(call.arguments)
    if gradients:
        wide |= {n: wide[n].clone().requires_grad_() for n in names}
    expected = call.definition(**wide)
    compare("the result", y, expected, draw.dtype)
    if gradients and y.requires_grad:
        gy = torch.randn(y.shape, generator=draw.generator, dtype=torch.float64).to(y.dtype)
        found = torch.autograd.grad(y, [arguments[n] for n in names], gy)
        wanted = torch.autograd.grad(expected, [wide[n] for n in names], gy.double(), allow_unused=True)
        # A filter is float32 whatever the image.
        rounding = max(torch.finfo(t).eps for t in (draw.dtype, torch.float32))
        if any(kinked(call, wide, names, gy.double(), wanted, turn, draw.dtype) for turn in (-rounding, rounding)):
            return
        for name, a, b in zip(names, found, wanted, strict=True):
            if a.dtype != arguments[name].dtype:
                raise Wrong(f"the gradient by {name} is {a.dtype}")
            compare(f"the gradient by {name}", a, torch.zeros_like(wide[name]) if b is None else b, draw.dtype)


def kinked(call, wide, names, gy, wanted, turn, dtype) -> bool:
    """Whether inputs that differ by a rounding have other gradients: on a kink, such as a clamp's, several are right."""
    moved = wide | {n: (wide[n].detach() * (1 + turn) + turn).requires_grad_() for n in names}
    y = call.definition(**moved)
    found = torch.autograd.grad(y, [moved[n] for n in names], gy, allow_unused=True)
    pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if a is not None and b is not None]
    return any((a - b).abs().max() > TOLERANCE[dtype] * b.abs().max().clamp(min=1) for a, b in pairs if a.numel())


def wrong_call(op, call, draw):
    name, value = draw.of(*call.wrong)
    if value is None and call.arguments.get(name, 0) is None:
        return
    try:
        y = call.function(**{**call.arguments, name: value})
    except (TypeError, ValueError) as error:
        if not str(error).startswith(tuple(f"{part}: " for part in (op, *MADE_OF.get(op, ())))):
            raise Wrong(f"{name}={value!r} is refused without the op's name: {error}") from error
    except NotImplementedError as error:
        if not str(error):
            raise
    except RuntimeError as error:
        raise Wrong(f"{name}={value!r} reaches torch: {error}") from error
    else:
        raise Wrong(f"{name}={value!r} is accepted; the result has shape {tuple(y.shape)}")


def described(arguments):
    def one(v):
        return f"{tuple(v.shape)} {v.dtype} {v.stride()}" if isinstance(v, torch.Tensor) else repr(v)

    return ", ".join(f"{k}={one(v)}" for k, v in arguments.items())


def run(op: str, number: int, seed: int) -> str | None:
    """What is wrong with this call; None."""
    draw = calls.Draw(f"{seed} {op} {number}")
    call = MAKERS[op](draw)
    try:
        (right_call if draw.chance(0.7) else lambda c, d: wrong_call(op, c, d))(call, draw)
    except Exception as error:
        where = "" if isinstance(error, Wrong) else traceback.format_exc(limit=-3)
        return f"{type(error).__name__}: {error}\n{where}  {op}({described(call.arguments)})"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=3000, help="of each op, at most")
    parser.add_argument("--op", choices=MAKERS, help="this op alone")
    parser.add_argument("--call", type=int, help="this call alone")
    options = parser.parse_args()
    no_ops = {"available", "decompositions", "kaiser_sinc_filter", "no_weight_gradients", "setup_filter"}
    assert set(MAKERS) == set(ops.__all__) - no_ops
    faulthandler.enable()
    warnings.simplefilter("ignore")
    chosen = [options.op] if options.op else list(MAKERS)
    numbers = [options.call] if options.call is not None else range(options.calls)
    last, end = Path(tempfile.gettempdir()) / f"fastgan_fuzz_{options.seed}.txt", time.monotonic() + options.seconds
    print(f"the call under way is named in {last}, should the process die")
    counts, failures = dict.fromkeys(chosen, 0), 0
    for number in numbers:
        for op in chosen:
            if time.monotonic() > end:
                break
            repeat = f"python tests/fuzz/ops.py --seed {options.seed} --op {op} --call {number}"
            last.write_text(repeat + "\n")
            if found := run(op, number, options.seed):
                failures += 1
                print(f"{repeat}\n  {found}\n", flush=True)
            counts[op] += 1
    print("calls: " + ", ".join(f"{op} {n}" for op, n in counts.items()))
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
