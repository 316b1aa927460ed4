"""StyleGAN2 state_dicts in the rosinality layout, renamed and rescaled to the original's.

There, convolution weights are [1, O, I, k, k] and scaled by 1/sqrt(I k^2) also where demodulation follows; here that factor is
folded into the weight, so that the epsilon of the demodulation (1e-8) weighs the same and outputs are equal.
"""

from __future__ import annotations

import math

import torch

from fastgan.convert.infer import DEFAULT_FILTER, State, UnknownNetwork, count
from fastgan.ops import setup_filter


def decoder(state: State) -> State:
    """The generator in a file of pSp, e4e and those built on them, which keep it beside their encoder; else `state` itself."""
    inner = {name.removeprefix("decoder."): t for name, t in state.items() if name.startswith("decoder.")}
    return inner if is_generator(inner) else state


def one_average(average: torch.Tensor | None) -> torch.Tensor | None:
    """The mean latent [L] of one that is kept for each layer [layers, L]; None where the layers' differ."""
    if isinstance(average, torch.Tensor) and average.dim() == 2 and len(average) > 1:
        return average[0] if (average == average[0]).all() else None
    return average


def is_generator(state: State) -> bool:
    return "conv1.conv.modulation.weight" in state and "input.input" in state


def is_discriminator(state: State) -> bool:
    return "final_linear.1.weight" in state and ("convs.0.0.weight" in state or "conv_body.0.0.weight" in state)


def _filters(out: dict[str, torch.Tensor], names: list[str]) -> None:
    for name in names:
        out[f"{name}.resample_filter"] = setup_filter(DEFAULT_FILTER)


def generator(state: State, latent_average: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """The original's state_dict. `latent_average`: the mean of w; without it a later step has to measure it.

    Files from before that project kept its noise hold none: theirs was drawn anew for each image, and here each layer gets
    one pattern from N(0, 1) (seed 0).
    """
    out: dict[str, torch.Tensor] = {}
    keeps_noise = any(name.startswith("noises.") for name in state)
    random = torch.Generator("cpu").manual_seed(0)
    for i in range(1, count(state, r"style\.(\d+)\.")):
        for part in ("weight", "bias"):
            out[f"mapping.fc{i - 1}.{part}"] = state[f"style.{i}.{part}"]
    width = len(out["mapping.fc0.bias"])
    out["mapping.w_avg"] = torch.zeros(width) if latent_average is None else latent_average.reshape(width)
    out["synthesis.b4.const"] = state["input.input"][0]

    def layer(source: str, target: str, noise: int, resolution: int) -> None:
        weight = state[f"{source}.conv.weight"][0]
        out[f"{target}.weight"] = weight / math.sqrt(weight[0].numel())
        out[f"{target}.noise_strength"] = state[f"{source}.noise.weight"].reshape(())
        out[f"{target}.bias"] = state[f"{source}.activate.bias"].reshape(-1)
        for part in ("weight", "bias"):
            out[f"{target}.affine.{part}"] = state[f"{source}.conv.modulation.{part}"]
        if keeps_noise:
            out[f"{target}.noise_const"] = state[f"noises.noise_{noise}"].squeeze()
        else:
            out[f"{target}.noise_const"] = torch.randn(resolution, resolution, generator=random, device="cpu")
        _filters(out, [target])

    def to_rgb(source: str, target: str) -> None:
        out[f"{target}.weight"] = state[f"{source}.conv.weight"][0]
        out[f"{target}.bias"] = state[f"{source}.bias"].reshape(-1)
        for part in ("weight", "bias"):
            out[f"{target}.affine.{part}"] = state[f"{source}.conv.modulation.{part}"]

    layer("conv1", "synthesis.b4.conv1", 0, 4)
    to_rgb("to_rgb1", "synthesis.b4.torgb")
    levels = count(state, r"to_rgbs\.(\d+)\.")
    for i in range(levels):
        block = f"synthesis.b{8 << i}"
        layer(f"convs.{2 * i}", f"{block}.conv0", 2 * i + 1, 8 << i)
        layer(f"convs.{2 * i + 1}", f"{block}.conv1", 2 * i + 2, 8 << i)
        to_rgb(f"to_rgbs.{i}", f"{block}.torgb")
    _filters(out, [f"synthesis.b{4 << i}" for i in range(levels + 1)])
    return out


def discriminator(state: State) -> dict[str, torch.Tensor]:
    """The original's state_dict, architecture "resnet". BasicSR calls `conv_body` what is `convs` here."""
    state = {name.replace("conv_body.", "convs.", 1): tensor for name, tensor in state.items()}
    out: dict[str, torch.Tensor] = {}
    levels = count(state, r"convs\.(\d+)\.") - 1
    if levels < 1:
        raise UnknownNetwork("a discriminator in the rosinality layout without residual blocks")
    top = 4 << levels
    out[f"b{top}.fromrgb.weight"] = state["convs.0.0.weight"]
    out[f"b{top}.fromrgb.bias"] = state["convs.0.1.bias"].reshape(-1)
    _filters(out, [f"b{top}.fromrgb"])
    for i in range(levels):
        source, target = f"convs.{i + 1}", f"b{top >> i}"
        for layer, weight, bias in (("conv0", "conv1.0", "conv1.1"), ("conv1", "conv2.1", "conv2.2")):
            out[f"{target}.{layer}.weight"] = state[f"{source}.{weight}.weight"]
            out[f"{target}.{layer}.bias"] = state[f"{source}.{bias}.bias"].reshape(-1)
        out[f"{target}.skip.weight"] = state[f"{source}.skip.1.weight"]
        _filters(out, [target, *(f"{target}.{layer}" for layer in ("conv0", "conv1", "skip"))])
    out["b4.conv.weight"] = state["final_conv.0.weight"]
    out["b4.conv.bias"] = state["final_conv.1.bias"].reshape(-1)
    _filters(out, ["b4.conv"])
    for source, target in (("final_linear.0", "b4.fc"), ("final_linear.1", "b4.out")):
        for part in ("weight", "bias"):
            out[f"{target}.{part}"] = state[f"{source}.{part}"]
    return out
