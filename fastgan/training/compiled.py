"""A whole optimiser step as one function: loss, penalties' gradients of gradients and the parameters' gradients.

`torch.compile(D)` cannot be differentiated twice, so a penalty needs its whole step compiled, inner `autograd.grad`
included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastgan._torch_private import compile_error, traces_gradients, tracing_gradients


class CannotCompile(RuntimeError):
    """A loss does something that cannot be traced, or this torch cannot trace gradients of gradients."""


Step = Callable[..., tuple[dict[str, torch.Tensor], tuple[torch.Tensor | None, ...]]]


def gradient_step(loss: Callable[..., dict[str, torch.Tensor]], parameters: Sequence[torch.Tensor]) -> Step:
    """step(*args, weight=None) -> (values, gradients): what `loss(*args)` returned, without a graph, and the gradient
    of its entry "loss", times `weight` (a scalar tensor, 1 if None), with respect to each parameter; None where the
    loss does not depend on it. Nothing is written to `.grad`.
    """

    def step(*args: Any, weight: torch.Tensor | None = None):
        values = loss(*args)
        weights = None if weight is None else weight.to(values["loss"].dtype)
        gradients = torch.autograd.grad(values["loss"], parameters, weights, allow_unused=True)
        return {name: value.detach() for name, value in values.items()}, gradients

    return step


def compiled_step(loss: Callable[..., dict[str, torch.Tensor]], parameters: Sequence[torch.Tensor]) -> Step:
    """`gradient_step(loss, parameters)`, compiled as one graph at its first call; equal to it to rounding.

    The loss may call penalties, `torch.autograd.grad(..., create_graph=True)` and `requires_grad_()` on what it
    computes. Random draws are eager's own, so the same seed gives the same step. What it computes must not escape with
    a graph (an attribute set to a tensor, say): only the returned values leave the graph.

        d_step = compiled_step(lambda real, z: {"loss": ...}, list(discriminator.parameters()))
        values, gradients = d_step(real, z)

    Args:
        loss: tensors (or objects that hold them) -> scalars by name, with "loss" among them.
        parameters: what to differentiate with respect to; they require gradients when the step is called.

    Raises:
        CannotCompile: this torch has no `torch._dynamo.config.trace_autograd_ops`; or, at the first call, the loss does
            something that cannot be traced.
    """
    if not traces_gradients():
        raise CannotCompile(
            f"torch {torch.__version__} cannot trace gradients of gradients"
            " (torch._dynamo.config.trace_autograd_ops is missing); torch 2.13 and 2.14 can"
        )
    whole = gradient_step(loss, parameters)
    # Dynamo keeps what it compiled, and counts recompilations, per code object: without a copy all steps share one.
    whole.__code__ = whole.__code__.replace()
    run = torch.compile(whole, fullgraph=True, options={"fallback_random": True})

    def step(*args: Any, weight: torch.Tensor | None = None):
        try:
            with tracing_gradients():
                return run(*args, weight=weight)
        except compile_error() as error:
            why = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise CannotCompile(f"a loss cannot be compiled as one graph ({why})") from error

    return step
