"""First and second derivatives of a function, in the form the golden vectors record them."""

from collections.abc import Callable

import torch


def derivatives(
    f: Callable, inputs: dict[str, torch.Tensor], gy: torch.Tensor, v: torch.Tensor, by: str
) -> dict[str, torch.Tensor]:
    """f(**inputs) with upstream gradient gy: "y", "g<name>" for every input, and with s = sum(g<by> v): "ds_<name>" and
    "ds_gy". A derivative that does not exist is a tensor of zeros, as in the recorded arrays."""
    inputs = {name: t.clone().requires_grad_() for name, t in inputs.items()}
    gy = gy.clone().requires_grad_()
    y = f(**inputs)
    first = torch.autograd.grad(y, list(inputs.values()), gy, create_graph=True)
    found = {"y": y, **{f"g{name}": g for name, g in zip(inputs, first, strict=True)}}
    s = (found[f"g{by}"] * v).sum()
    wanted = {**inputs, "gy": gy}
    second = torch.autograd.grad(s, list(wanted.values()), allow_unused=True)
    for (name, t), g in zip(wanted.items(), second, strict=True):
        found[f"ds_{name}"] = torch.zeros_like(t) if g is None else g
    return found
