"""HiFi-GAN's and BigVGAN's generators (`g_%08d`, `bigvgan_generator.pt`): in any of three forms of weight normalisation, with the
config.json beside the file, which alone tells dilations and how the mel spectrogram was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastgan.convert.infer import UnknownNetwork
from fastgan.convert.network import Network
from fastgan.nn import MelSpectrogram
from fastgan.nn.weight_norm import NEWER, factors
from fastgan.untrusted import BadFile, clip, read_json
from fastgan.untrusted.blueprint import within

MODELS = ("hifigan.generator", "bigvgan.generator")


def is_generator(state: Mapping[str, torch.Tensor]) -> bool:
    heads = {name.partition(".")[0] for name in state}
    return {"conv_pre", "ups", "resblocks", "conv_post"} <= heads


def found(state: Mapping[str, torch.Tensor], source: str) -> Network:
    """The network, with the whole of config.json for its arguments; none where there is no such file."""
    model = MODELS["activation_post" in {name.partition(".")[0] for name in state}]
    beside = Path(source).with_name("config.json")
    arguments = read_json(beside) if beside.is_file() else {}
    return Network(model, arguments, _tidied(state), source)


def check(network: Network) -> None:
    """UnknownNetwork that says what config.json lacks, or where its mel spectrogram is none or not the network's."""
    needed = ["resblock", "upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel"]
    needed += ["resblock_kernel_sizes", "resblock_dilation_sizes", "sampling_rate", "n_fft", "hop_size", "win_size"]
    needed += ["num_mels", "activation", "snake_logscale"] if network.model == MODELS[1] else []
    if missing := [name for name in needed if name not in network.arguments]:
        raise UnknownNetwork(
            f"{network.source} is a {network.model}, and its shapes do not tell {', '.join(missing)}: put its config.json beside "
            f"it, or give --config '{{\"{missing[0]}\": ...}}'"
        )
    config = network.arguments
    for name in ("sampling_rate", "n_fft", "hop_size", "win_size"):
        if type(config[name]) is not int or config[name] < 1:
            raise UnknownNetwork(f"{network.source}: {name} is {clip(config[name])}, expected a positive integer")
    try:
        with within(network.state.values(), network.source):  # before it takes memory
            MelSpectrogram(**mel_of(config))
            hop = math.prod(config["upsample_rates"])
    except BadFile as error:
        raise UnknownNetwork(str(error)) from error
    bands = network.state["conv_pre.weight_v"].shape[1] if "conv_pre.weight_v" in network.state else None
    for name, found, own in (
        ("hop_size", config["hop_size"], hop),
        ("num_mels", config.get("num_mels", 80), bands),
    ):
        if own is not None and found != own:
            raise UnknownNetwork(
                f"{network.source}: {name} is {clip(found)}, and the network's frames have {clip(own)}"
            )


def _tidied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In the form `weight_g`, `weight_v`."""
    made: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        head, _, tail = name.rpartition(".")
        for newer, old in zip(NEWER, ("weight_g", "weight_v"), strict=True):
            if name.endswith(f".{newer}"):
                head, tail = name.removesuffix(newer).rstrip("."), old
        if tail == "weight":
            if tensor.dim() < 3:
                raise UnknownNetwork(f"{clip(name)} has shape {list(tensor.shape)}, expected a convolution's")
            g, v = factors(tensor)
            made |= {f"{head}.weight_g": g, f"{head}.weight_v": v}
        else:
            made[f"{head}.{tail}"] = tensor
    return made


def mel_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `fastgan.nn.MelSpectrogram` for a config.json."""
    return {
        "rate": config["sampling_rate"],
        "length": config["n_fft"],
        "hop": config["hop_size"],
        "window": config["win_size"],
        "bands": config.get("num_mels", 80),
        "low": config.get("fmin") or 0.0,
        "high": config.get("fmax"),
    }
