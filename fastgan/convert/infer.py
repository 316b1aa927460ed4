"""Constructor arguments of the originals, read off the names and shapes of a state_dict."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from fastgan.convert import image_to_image
from fastgan.untrusted import BadFile, clip, shorten

State = Mapping[str, torch.Tensor]
DEFAULT_FILTER = [1, 3, 3, 1]
MOST_LAYERS = 1000


class UnknownNetwork(BadFile):
    """No network of this package has these names and shapes; the message says what was found."""


def count(state: State, pattern: str) -> int:
    """One more than the largest number that `pattern` finds in a name; 0 where it finds none."""
    found = max((int(m[1]) + 1 for name in state if (m := re.match(pattern, name))), default=0)
    if found > MOST_LAYERS:
        raise UnknownNetwork(f"a layer has a number above {MOST_LAYERS}")
    return found


def _resample_filter(state: State, name: str) -> dict[str, list]:
    """The argument `resample_filter`, where buffer `name` holds another filter than the usual one: a row of taps whose outer
    product it is, or the taps themselves where the filter is kept as one row."""
    kept = state[name].double()
    taps = kept if kept.dim() == 1 else kept.sum(0)
    usual = torch.tensor(DEFAULT_FILTER, dtype=torch.float64, device="cpu")
    if len(taps) == len(usual) and torch.allclose(taps / taps.sum(), usual / usual.sum(), atol=1e-6):
        return {}
    return {"resample_filter": taps.tolist()}


def _channel_limits(channels: dict[int, int]) -> dict[str, int]:
    """channel_base and channel_max of channels(r) = min(floor(base / r), max), from channels by resolution."""
    largest = max(channels.values())
    falling = [r * c for r, c in channels.items() if c < largest]
    return {"channel_max": largest, "channel_base": max(falling) if falling else max(channels) * largest}


def _mapping(state: State, z_dim: bool = True) -> dict:
    embed = state.get("mapping.embed.weight")
    found = {"mapping_kwargs": {"num_layers": count(state, r"mapping\.fc(\d+)\.")}, "c_dim": 0}
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
    kernel = state["synthesis.b4.conv1.weight"].shape[-1]
    return {
        **_mapping(state),
        "img_resolution": last,
        "img_channels": len(state[f"synthesis.b{last}.torgb.weight"]),
        "architecture": architecture,
        **_channel_limits(widths),
        **({} if kernel == 3 else {"kernel_size": kernel}),
        **({} if "synthesis.b4.conv1.noise_const" in state else {"use_noise": False}),
        **_resample_filter(state, f"synthesis.b{last}.resample_filter"),
    }


def _stylegan2_discriminator(state: State) -> dict:
    widths = {int(m[1]): t.shape[1] for n, t in state.items() if (m := re.match(r"b(\d+)\.conv0\.weight", n))}
    last = max(widths, default=4)
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
    if last > 4 and (taps := _resample_filter(state, f"b{last}.resample_filter")):
        found["block_kwargs"] = taps
    if "mapping.fc0.weight" in state:
        found |= _mapping(state, z_dim=False) | {"cmap_dim": len(state["b4.out.weight"])}
    return found


def _stylegan3_generator(state: State) -> dict:
    from fastgan.models.stylegan3 import Config

    pattern = re.compile(r"synthesis\.(L(\d+)_(\d+)_\d+)\.weight$")
    layers = sorted((int(m[2]), int(m[3]), m[1]) for n in state if (m := pattern.match(n)))
    first, last = (state[f"synthesis.{layers[i][2]}.weight"] for i in (0, -1))
    sizes = {"channels": len(last), "num_layers": layers[-1][0], "resolution": layers[-1][1]}
    found = {
        **_mapping(state),
        "img_resolution": sizes["resolution"],
        "img_channels": sizes["channels"],
        "num_layers": sizes["num_layers"],
        "conv_kernel": first.shape[-1],
        "use_radial_filters": any(t.dim() == 2 for n, t in state.items() if n.endswith("down_filter")),
    }
    names = [name for *_, name in layers]
    for most in (512, 1024, len(state["synthesis.input.weight"])):
        for base in (2**k for k in range(6, 18)):
            grids = Config(**sizes, channel_base=base, channel_max=most).schedule()
            if names == [f"L{i}_{grid.size}_{grid.channels}" for i, grid in enumerate(grids)]:
                return {**found, "channel_base": base, "channel_max": most}
    raise UnknownNetwork(
        "a StyleGAN3 generator whose channel_base and channel_max are none of the usual ones: add --config"
    )


def _r3gan(state: State) -> dict:
    widths, groups, blocks = [], [], []
    stages = count(state, r"MainLayers\.(\d+)\.")
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
    *image_to_image.FAMILIES,
]


def identify(state: State) -> str:
    """The name of the network with such a state_dict. Raises UnknownNetwork that shows some of its names."""
    for key, model, _ in FAMILIES:
        if key in state:
            return model
    some = ", ".join(clip(name).strip("'") for name in list(state)[:4])
    raise UnknownNetwork(f"no known network has these {len(state)} tensors ({some}, ...)")


def arguments(model: str, state: State) -> dict:
    """The original's constructor arguments of network `model` with this state_dict."""
    find = next(function for key, name, function in FAMILIES if name == model and key in state)
    try:
        return find(state)
    except UnknownNetwork:
        raise
    except Exception as error:  # a tensor that is missing, or of other dimensions than the network's
        raise UnknownNetwork(f"the tensors look like {model}, but one is missing or odd: {shorten(error)}") from error
