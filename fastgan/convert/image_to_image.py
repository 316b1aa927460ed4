"""Networks that make images of images: which they are and their constructor arguments, read off names and shapes.

Files: `RealESRGAN_x4plus.pth` and its kin, `GFPGANv1.4.pth`, `latest_net_G_A.pth` of CycleGAN and `latest_net_G.pth` of pix2pix,
discriminators of all of them, among these those of VQGAN's code (`main.` for `model.`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

State = Mapping[str, torch.Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def tidied(state: State) -> dict[str, torch.Tensor]:
    """The names of this package where a layout has others, and no statistics that instance normalisation never used."""
    if "main.0.weight" in state:
        state = {name.replace("main.", "model.", 1): tensor for name, tensor in state.items()}
    if not ("model.0.weight" in state or "model.1.weight" in state or "model.model.0.weight" in state):
        return dict(state)

    def used(name: str) -> bool:
        head, _, tail = name.rpartition(".")
        return tail not in _STATISTICS or f"{head}.weight" in state

    return {name: tensor for name, tensor in state.items() if used(name)}


def _numbers(state: State, prefix: str) -> list[int]:
    """The numbers that follow `prefix` in names."""
    tails = (name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix))
    return sorted({int(tail) for tail in tails if tail.isdecimal() and len(tail) < 5})


def _rrdbnet(state: State) -> dict[str, Any]:
    first, last = state["conv_first.weight"], state["conv_last.weight"]
    scale = {1: 4, 4: 2, 16: 1}[first.shape[1] // len(last)]  # the input is pixel-unshuffled by 4 / scale
    return {
        "num_in_ch": len(last),
        "num_out_ch": len(last),
        "scale": scale,
        "num_feat": len(first),
        "num_block": len(_numbers(state, "body.")),
        "num_grow_ch": len(state["body.0.rdb1.conv1.weight"]),
    }


def _compact(state: State) -> dict[str, Any]:
    first, last = state["body.0.weight"], _numbers(state, "body.")[-1]
    found = {
        "num_in_ch": first.shape[1],
        "num_out_ch": first.shape[1],
        "num_feat": len(first),
        "num_conv": last // 2 - 1,
        "upscale": math.isqrt(len(state[f"body.{last}.weight"]) // first.shape[1]),
    }
    # ReLU and leaky ReLU leave no names: without `act_type` such a file is refused, as it lacks PReLU's.
    return found


def _unet_discriminator(state: State) -> dict[str, Any]:
    return {"num_in_ch": state["conv0.weight"].shape[1], "num_feat": len(state["conv0.weight"])}


def _gfpgan(state: State) -> dict[str, Any]:
    decoder = "stylegan_decoder."
    levels = len(_numbers(state, decoder + "to_rgbs."))
    style = state[decoder + "style_conv1.modulated_conv.modulation.weight"].shape[1]
    width = state[decoder + "constant_input.weight"].shape[1]
    per_layer = len(state["final_linear.weight"]) != style
    found = {
        "out_size": 4 << levels,
        "num_style_feat": style,
        "num_mlp": sum(name.startswith(decoder + "style_mlp.") and name.endswith(".bias") for name in state),
        "fix_decoder": False,
        "input_is_latent": per_layer,
        "different_w": per_layer,
        "narrow": width / 512,
        "sft_half": len(state["condition_scale.0.2.weight"]) == state["condition_scale.0.0.weight"].shape[1],
    }
    if levels > 3:  # 64 pixels: 256 * multiplier * narrow channels
        found["channel_multiplier"] = state[f"{decoder}to_rgbs.3.modulated_conv.weight"].shape[2] / (width / 2)
    return found


def _norm(state: State, name: str) -> dict[str, str]:
    return {"norm": "batch" if name in state else "instance"}


def _resnet(state: State) -> dict[str, Any]:
    last = _numbers(state, "model.")[-1]
    blocks = [n for n in _numbers(state, "model.") if f"model.{n}.conv_block.1.weight" in state]
    return {
        "input_nc": state["model.1.weight"].shape[1],
        "output_nc": len(state[f"model.{last}.weight"]),
        "ngf": len(state["model.1.weight"]),
        "n_blocks": len(blocks),
        "use_dropout": f"model.{blocks[0]}.conv_block.6.weight" in state,
        **_norm(state, "model.2.weight"),
    }


def _unet(state: State) -> dict[str, Any]:
    return {
        "input_nc": state["model.model.0.weight"].shape[1],
        "output_nc": state["model.model.3.weight"].shape[1],
        "ngf": len(state["model.model.0.weight"]),
        "num_downs": max(name.count("model.") for name in state) - 1,
        **_norm(state, "model.model.1.model.2.weight"),
    }


def _patch(state: State) -> dict[str, Any]:
    return {
        "input_nc": state["model.0.weight"].shape[1],
        "ndf": len(state["model.0.weight"]),
        "n_layers": _numbers(state, "model.")[-1] // 3,
        **_norm(state, "model.3.weight"),
    }


def _pixel(state: State) -> dict[str, Any]:
    first = state["net.0.weight"]
    return {"input_nc": first.shape[1], "ndf": len(first), "n_layers": 0, **_norm(state, "net.3.weight")}


# As `infer.FAMILIES`: (a name that only this network has, the model's name, how its arguments are found)
FAMILIES: list[tuple[str, str, Callable[[State], dict[str, Any]]]] = [
    ("conv_hr.weight", "esrgan.generator", _rrdbnet),
    ("conv4.weight_orig", "esrgan.discriminator", _unet_discriminator),
    ("body.0.bias", "esrgan.compact", _compact),
    ("stylegan_decoder.style_conv1.bias", "gfpgan.clean", _gfpgan),
    ("stylegan_decoder.style_conv1.activate.bias", "gfpgan.original", _gfpgan),
    ("model.10.conv_block.1.weight", "cyclegan.generator", _resnet),
    ("model.model.0.weight", "pix2pix.generator", _unet),
    ("model.0.weight", "cyclegan.discriminator", _patch),
    ("net.0.weight", "cyclegan.discriminator", _pixel),
]
