"""Comparison of a network with a golden model: names, outputs, and gradients of gradients. Recorded in float32 throughout, so
on a GPU, where the highest resolutions run in float16 by default, float32 is asked for."""

import torch
from device import seeded
from golden import golden_model

SHARE = 2e-5  # of max|expected|: float32 rounding of the recorded outputs and ours
NORMS = 1e-4  # of a parameter gradient's norm


def close(actual: torch.Tensor, expected: torch.Tensor, share: float = SHARE) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max() / expected.abs().max()
    assert difference <= share, f"off by {difference:.2e} of the maximum"


def check_gradient_norms(network, s: torch.Tensor, meta: dict) -> None:
    """Those of s by every parameter. A parameter that s does not depend on has the recorded norm 0, or none."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    for name, g in zip(names, torch.autograd.grad(s, parameters, allow_unused=True), strict=True):
        expected = meta["grad"]["norms"].get(name)
        if g is None or expected is None:
            assert g is None and not expected, name
        else:
            assert abs(g.norm().item() - expected) <= NORMS * max(expected, 1e-6), name


def build(network, name: str):
    """(network with the stored state, meta, arrays, c)"""
    meta, arrays = golden_model(name)
    model = network.from_reference(**meta["constructor_kwargs"])
    for kind in ("params", "buffers"):
        found = getattr(model, f"named_{'parameters' if kind == 'params' else kind}")()
        assert [[n, list(t.shape)] for n, t in found] == meta[kind]
    model.load_state_dict({n.removeprefix("sd/"): t for n, t in arrays.items() if n.startswith("sd/")}, strict=True)
    return model, meta, arrays, arrays.get("in/c")


def check_calls(model, meta, arrays, c) -> None:
    """Every recorded call; the one that updates the running means last, with their new values."""
    z = arrays["in/z"]
    for key, psi in (("out/ws_psi1", 1), ("out/ws_psi07", 0.7)):
        close(model.mapping(z, c, truncation_psi=psi), arrays[key])
    calls = sorted(meta["calls"], key=lambda call: call["kwargs"].get("update_emas", False))
    assert len(calls) > 1
    for call in calls:
        if call["out"] == "out/psi1_transform":
            identity = model.synthesis.input.transform.clone()
            model.synthesis.input.transform.copy_(arrays["in/transform"])
        with torch.no_grad():
            close(model(z, c, force_fp32=True, **call["kwargs"]), arrays[call["out"]])
        if call["out"] == "out/psi1_transform":
            model.synthesis.input.transform.copy_(identity)
    buffers = dict(model.named_buffers())
    for name, value in meta["after_update_emas"].items():
        close(buffers[name].reshape(-1), torch.tensor(value))


def check_parameter_gradients(model, loss: torch.Tensor, expected: dict) -> None:
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        norm, total, largest = expected[name] or (0.0, 0.0, 0.0)
        gradient = torch.zeros(1) if gradient is None else gradient
        scale = max(norm, 1e-12)
        assert abs(gradient.norm().item() - norm) <= NORMS * scale, name
        assert abs(gradient.abs().max().item() - largest) <= NORMS * scale, name
        assert abs(gradient.sum().item() - total) <= NORMS * scale * max(1, gradient.numel() ** 0.5), name


def check_path_length(
    model, meta, arrays, c, nudge: tuple[float, int] = (0.0, 0), dtype: torch.dtype = torch.float32, **synthesis
) -> None:
    """`nudge` (size, seed): relative change of w. A leaky ReLU whose input is zero to within rounding may be recorded on
    either side; its flip moves gradients by up to 1e-3 and the image by nothing. In float64 the gradient of
    sg3t_generator_cond_6layers takes two values under changes of 1e-7: one 6.8e-4 of the maximum from the recorded one,
    the other 1e-6. A nudge picks the recorded side; in `dtype` float64, at the
    recorded w, it does so whatever the order in which kernels sum."""
    size, seed = nudge
    model, arrays = model.to(dtype), {n: t.to(dtype) if n.startswith(("in/", "out/")) else t for n, t in arrays.items()}
    ws = model.mapping(arrays["in/z"], None if c is None else c.to(dtype))
    if dtype == torch.float64:  # the recorded w itself, with our mapping's derivative
        ws = ws + (arrays["out/ws_psi1"] - ws).detach()
    ws = ws * (1 + size * torch.randn(ws.shape, generator=seeded(seed)))
    images = model.synthesis(ws, force_fp32=True, **synthesis)
    (g,) = torch.autograd.grad((images * arrays["in/pl_noise"]).sum(), ws, create_graph=True)
    close(g, arrays["out/pl_grads"], NORMS)
    lengths = g.square().sum(2).mean(1).sqrt()
    close(lengths, arrays["out/pl_lengths"])
    penalty = (lengths - 0.3).square().mean()
    expected = meta["path_length"]
    assert abs(penalty.item() - expected["penalty"]) <= NORMS * expected["penalty"]
    check_parameter_gradients(model, penalty, expected["param_grads"])
