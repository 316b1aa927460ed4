"""Constructor arguments of the originals, read off the names and shapes of a state_dict."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

State = Mapping[str, torch.Tensor]


class UnknownNetwork(ValueError):
    """No network of this package has these names and shapes; the message says what was found."""


def _count(state: State, pattern: str) -> int:
    """One more than the largest number that `pattern` finds in a name; 0 where it finds none."""
    return max((int(m[1]) + 1 for name in state if (m := re.match(pattern, name))), default=0)


def _channel_limits(channels: dict[int, int]) -> dict[str, int]:
    """channel_base and channel_max of channels(r) = min(floor(base / r), max), from channels by resolution."""
    largest = max(channels.values())
    falling = [r * c for r, c in channels.items() if c < largest]
    return {"channel_max": largest, "channel_base": max(falling) if falling else max(channels) * largest}


def _mapping(state: State, z_dim: bool = True) -> dict:
    embed = state.get("mapping.embed.weight")
    found = {"mapping_kwargs": {"num_layers": _count(state, r"mapping\.fc(\d+)\.")}, "c_dim": 0}
    if embed is not None:
        found["c_dim"] = embed.shape[1]
    if z_dim:
        inputs = state["mapping.fc0.weight"].shape[1]
        found |= {"z_dim": inputs - (0 if embed is None else len(embed)), "w_dim": len(state["mapping.w_avg"])}
    return found


def _stylegan2_generator(state: State) -> dict:
    widths = {int(m[1]): len(t) for n, t in state.items() if (m := re.match(r"synthesis\.b(\d+)\.conv1\.weight", n))}
    last = max(widths)
    architecture = "resnet" if f"synthesis.b{last}.skip.weight" in state else "skip"
    if architecture == "skip" and "synthesis.b4.torgb.weight" not in state:
        architecture = "orig"
    return {
        **_mapping(state),
        "img_resolution": last,
        "img_channels": len(state[f"synthesis.b{last}.torgb.weight"]),
        "architecture": architecture,
        **_channel_limits(widths),
    }


def _stylegan2_discriminator(state: State) -> dict:
    widths = {int(m[1]): t.shape[1] for n, t in state.items() if (m := re.match(r"b(\d+)\.conv0\.weight", n))}
    last = max(widths)
    widths[4] = len(state["b4.conv.weight"])
    architecture = "resnet" if f"b{last}.skip.weight" in state else "skip" if "b4.fromrgb.weight" in state else "orig"
    extra = state["b4.conv.weight"].shape[1] - widths[4]
    found = {
        "c_dim": 0,
        "img_resolution": last,
        "img_channels": state[f"b{last}.fromrgb.weight"].shape[1],
        "architecture": architecture,
        "epilogue_kwargs": {"mbstd_num_channels": extra},
        **_channel_limits(widths),
    }
    if "mapping.fc0.weight" in state:
        found |= _mapping(state, z_dim=False) | {"cmap_dim": len(state["b4.out.weight"])}
    return found


def _stylegan3_generator(state: State) -> dict:
    from fastgan.models.stylegan3 import Generator

    layers = sorted(
        (int(m[1]), int(m[2]), m[0].rpartition(".")[0])
        for n in state
        if (m := re.match(r"synthesis\.L(\d+)_(\d+)_\d+\.weight$", n))
    )
    kernel = state[f"{layers[0][2]}.weight"].shape[-1]
    radial = any(t.dim() == 2 for n, t in state.items() if n.endswith("down_filter"))
    found = {
        **_mapping(state),
        "img_resolution": layers[-1][1],
        "img_channels": len(state[f"{layers[-1][2]}.weight"]),
        "num_layers": layers[-1][0],
        "conv_kernel": kernel,
        "use_radial_filters": radial,
    }
    names = {n for n in state if n.startswith("synthesis.L")}
    for most in (512, 1024, len(state["synthesis.input.weight"])):
        for base in (2**k for k in range(6, 18)):
            candidate = {**found, "channel_base": base, "channel_max": most}
            with torch.device("meta"):
                made = Generator.from_reference(**candidate).state_dict()
            if {n for n in made if n.startswith("synthesis.L")} == names:
                return candidate
    raise UnknownNetwork(
        "a StyleGAN3 generator whose channel_base and channel_max are none of the usual ones: add --config"
    )


def _r3gan(state: State) -> dict:
    widths, groups, blocks = [], [], []
    stages = _count(state, r"MainLayers\.(\d+)\.")
    for s in range(stages):
        pattern = rf"MainLayers\.{s}\.Layers\.(\d+)\.LinearLayer2\.Layer\.weight"
        found = sorted(int(m[1]) for n in state if (m := re.match(pattern, n)))
        if not found:
            raise UnknownNetwork(f"an R3GAN network whose stage {s} has no residual block: add --config")
        block = f"MainLayers.{s}.Layers.{found[0]}."
        inner = state[block + "LinearLayer2.Layer.weight"]
        blocks.append(len(found))
        widths.append(len(state[block + "LinearLayer3.Layer.weight"]))
        groups.append(len(inner) // inner.shape[1])
    embed = state.get("EmbeddingLayer.weight")
    out = {
        "WidthPerStage": widths,
        "CardinalityPerStage": groups,
        "BlocksPerStage": blocks,
        "ExpansionFactor": len(inner) // widths[-1],
        "KernelSize": inner.shape[-1],
    }
    if embed is not None:
        out |= {"ConditionDimension": embed.shape[1], "ConditionEmbeddingDimension": len(embed)}
    if "AggregationLayer.Layer.weight" in state:
        inputs = state["MainLayers.0.Layers.0.LinearLayer.weight"].shape[1]
        out["NoiseDimension"] = inputs - (0 if embed is None else len(embed))
    return out


# (a name that only this network has, the model's name, how its arguments are found)
FAMILIES = [
    ("synthesis.input.freqs", "stylegan3.generator", _stylegan3_generator),
    ("synthesis.b4.const", "stylegan2.generator", _stylegan2_generator),
    ("b4.fc.weight", "stylegan2.discriminator", _stylegan2_discriminator),
    ("AggregationLayer.Layer.weight", "r3gan.generator", _r3gan),
    ("ExtractionLayer.Layer.weight", "r3gan.discriminator", _r3gan),
]


def identify(state: State) -> str:
    """The name of the network with such a state_dict. Raises UnknownNetwork that shows some of its names."""
    for key, model, _ in FAMILIES:
        if key in state:
            return model
    some = ", ".join(list(state)[:4])
    raise UnknownNetwork(f"no known network has these {len(state)} tensors ({some}, ...)")


def arguments(model: str, state: State) -> dict:
    """The original's constructor arguments of network `model` with this state_dict."""
    find = next(function for _, name, function in FAMILIES if name == model)
    try:
        return find(state)
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, UnknownNetwork):
            raise
        raise UnknownNetwork(f"the tensors look like {model}, but something is missing: {error}") from error
