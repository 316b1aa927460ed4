"""Other projects' checkpoints: read without running code from them, written as safetensors, loaded for sampling.

What is read: `network-snapshot-*.pkl` of StyleGAN2-ADA, StyleGAN3 and R3GAN, `.pt` files in the rosinality layout (those of
pSp and e4e, whose decoder it is, among them), `.pth` files of Real-ESRGAN, GFP-GAN, CycleGAN and pix2pix, `g_*` of HiFi-GAN and
BigVGAN with their config.json beside them, and plain
state_dicts (`.pt`, `.pth`, `.safetensors`) of the same networks. The result is one .safetensors file, with the name of the
network and its constructor arguments in the header, and the same as a .json beside it, for people.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.convert import image_to_image, infer, rosinality, unpickler, vocoder
from fastgan.convert.converted import IMAGE_TO_IMAGE, Converted, Speaker
from fastgan.convert.infer import UnknownNetwork
from fastgan.convert.network import Network, checksum
from fastgan.convert.unpickler import Record
from fastgan.files import complete
from fastgan.untrusted import BadFile, clip, open_regular, parse_json, read_json, read_tensors, shorten, torch_file
from fastgan.untrusted.pickles import UnsafePickle

__all__ = ["Converted", "UnknownNetwork", "UnsafePickle", "convert", "load", "read"]

# What files call a network; the last ones are of files that hold one network, whichever that is.
_NAMES = {
    "G_ema": ("G_ema", "g_ema", "params_ema", "params", "state_dict", "generator"),
    "G": ("G", "g", "params", "state_dict", "generator"),
    "D": ("D", "d", "params", "state_dict"),
}
# What DataParallel, R3GAN's training code and torch.compile put their networks under.
_WRAPPERS = ("module.", "Model.", "_orig_mod.")
_MOST_ARGUMENTS = 2000


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _open(path: Path) -> Any:
    """The content of a file of any of the kinds above."""
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    with open_regular(path) as file:
        start = file.read(262)
    if start.startswith((b"PK\x03\x04", torch_file.LEGACY)):
        return torch_file.load(path)
    if start[257:] == b"ustar":
        raise UnsafePickle(
            f"{path} is a tar archive, as torch.save wrote before 0.1.10: load and save it with a newer one"
        )
    return unpickler.load(path)


def _choose(content: dict, network: str) -> tuple[Any, dict]:
    """The network asked for, and what lies beside it in the file."""
    for name in _NAMES[network]:
        if content.get(name) is not None:
            return content[name], content
    if content and all(isinstance(v, torch.Tensor) for v in content.values()):
        return content, {}
    held = [clip(key).strip("'") for key, value in content.items() if isinstance(value, Record | dict)][:20]
    raise UnknownNetwork(f"it holds no network {network}; it holds {', '.join(held) or 'none'}")


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the prefixes that all names share."""
    while state and (prefix := next((w for w in _WRAPPERS if all(name.startswith(w) for name in state)), None)):
        state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state


def _from_record(record: Record, source: str) -> Network:
    # What training left there and no network of ours keeps: R3GAN's type markers are attributes, not tensors.
    state = _unwrapped(record.state_dict())
    try:
        model = infer.identify(state)
    except UnknownNetwork:
        if (inner := _known_part(record)) is None:
            raise
        return inner
    arguments = record.arguments
    synthesis = arguments.pop("synthesis_kwargs", None) or {}
    if not isinstance(synthesis, dict):
        raise UnknownNetwork(f"synthesis_kwargs is {clip(synthesis)}, expected a dict")
    arguments |= synthesis
    return Network(model, arguments or infer.arguments(model, state), state, source, half=_half_stages(record))


def _known_part(record: Record) -> Network | None:
    """The StyleGAN generator that is one part of a larger network: EG3D's, for one, whose images are planes of features for its
    renderer, which no network here is. None where no part is one."""
    for name, child in record.children().items():
        if isinstance(child, Record) and {"mapping", "synthesis"} <= child.children().keys():
            found = _from_record(child, f"{record.class_name}.{name}")
            found.part = name
            return found
    return None


def _half_stages(record: Record) -> list[int]:
    """The numbers of R3GAN's stages that a snapshot marks as bfloat16."""
    children = record.children()
    while "MainLayers" not in children and isinstance(inner := children.get("Model"), Record) and inner is not record:
        record, children = inner, inner.children()
    stages = children.get("MainLayers")
    found = stages.children() if isinstance(stages, Record) else {}
    marks = {int(n): getattr(s.state.get("DataType"), "name", None) for n, s in found.items() if isinstance(s, Record)}
    return [number for number, mark in marks.items() if mark == "torch.bfloat16"]


def _from_state(state: Any, beside: dict, source: str) -> Network:
    if not isinstance(state, dict) or not state:
        raise UnknownNetwork(f"the network is {clip(state)}, expected a dict of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UnknownNetwork(f"{clip(name)} is {clip(tensor)}, expected a tensor with a name")
    if vocoder.is_generator(state := _unwrapped(state)):
        return vocoder.found(state, source)
    state = image_to_image.tidied(rosinality.decoder(state))
    if rosinality.is_generator(state):
        average = rosinality.one_average(beside.get("latent_avg"))
        state = rosinality.generator(state, average)
        found = Network("stylegan2.generator", infer.arguments("stylegan2.generator", state), state, source)
        # That layout clamps nothing.
        found.arguments["conv_clamp"] = None
        found.measure_average = average is None
        return found
    if rosinality.is_discriminator(state):
        state = rosinality.discriminator(state)
        found = Network("stylegan2.discriminator", infer.arguments("stylegan2.discriminator", state), state, source)
        found.arguments["conv_clamp"] = None
        return found
    model = infer.identify(state)
    return Network(model, infer.arguments(model, state), state, source)


def _converted(path: Path, say: Callable[[str], None]) -> Network | None:
    """What `convert` wrote to `path`; None for another file's tensors. Raises BadFile where the checksum does not match."""
    state, header = read_tensors(path)
    about = parse_json(header.get("fastgan", "{}").encode(), f"{path}: its header")
    model, arguments = about.get("model"), about.get("arguments")
    if not isinstance(model, str) or not isinstance(arguments, dict):
        return None
    if "sha256" not in header:
        say(f"{path} holds no checksum, as an older version wrote it: convert it again, and damage will be found")
    elif header["sha256"] != checksum(header["fastgan"], state):
        raise BadFile(f"{path} does not match its SHA-256: it is damaged. Convert it again, or copy it again")
    return Network(model, arguments, state, str(path))


def read(path: str | Path, network: str = "G_ema", arguments: dict[str, Any] | None = None) -> Network:
    """Network `network` ("G_ema", "G" or "D") of a checkpoint file; a file of one state_dict is that network.

    arguments: the original's constructor arguments, where the file does not tell them and they cannot be read off the shapes.

    Raises: UnsafePickle for a file that holds anything but plain data and networks, UnknownNetwork where nothing fits, BadFile
    for one that is damaged (all of them ValueErrors that name the file), FileNotFoundError.
    """
    path = Path(path)
    if network not in _NAMES:
        raise ValueError(f"network is {network!r}, expected one of {', '.join(_NAMES)}")
    if path.suffix == ".safetensors" and (found := _converted(path, _say)) is not None:
        found.arguments |= arguments or {}
        return found
    content = _open(path)
    if isinstance(content, Record):
        content = {network: content}
    try:
        if not isinstance(content, dict):
            raise UnknownNetwork(f"it holds {clip(content)}, expected a dict of networks or tensors")
        chosen, beside = _choose(content, network)
        found = (
            _from_record(chosen, str(path)) if isinstance(chosen, Record) else _from_state(chosen, beside, str(path))
        )
        found.arguments = _plain({**found.arguments, **(arguments or {})}, [_MOST_ARGUMENTS])
        if found.model in vocoder.MODELS:
            vocoder.check(found)
    except BadFile as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # tensors that are missing or of other dimensions than a layout's
        raise UnknownNetwork(f"{path} does not hold what its names promise: {shorten(error)}") from error
    return found


def _plain(value: Any, left: list[int]) -> Any:
    """`value` as JSON has it; `left` counts what may still come, as a pickle can hold one list a thousand times."""
    left[0] -= 1
    if left[0] < 0:
        raise UnknownNetwork(f"it has more than {_MOST_ARGUMENTS} constructor arguments")
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= _MOST_ARGUMENTS else value
    if isinstance(value, dict):
        return {str(name): _plain(v, left) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, left) for v in value]
    if value is None or isinstance(value, str | bool) or (isinstance(value, int) and value.bit_length() <= 64):
        return value
    if isinstance(value, float) and math.isfinite(value):  # JSON has no others
        return value
    name = getattr(value, "name", None)  # a torch type, such as torch.float16
    if isinstance(name, str) and name.startswith("torch."):
        return name
    raise UnknownNetwork(f"constructor argument {clip(value)} is not plain data")


@in_float32
def convert(
    source: str | Path,
    out: str | Path,
    network: str = "G_ema",
    arguments: dict[str, Any] | None = None,
    *,
    say: Callable[[str], None] = _say,
) -> Path:
    """Writes network `network` of checkpoint `source` to `out` (.safetensors); arguments and errors as of `read`.

    The network is built and loaded before anything is written, so a file that exists is one that works; its header holds a
    checksum of everything, which `load` verifies. A generator in the rosinality layout without a mean latent gets that of
    10,000 draws (seed 0), as its own code does when sampling. `say` is told what is not as in training.

    Raises FileExistsError where the .json beside `out` is not of an earlier conversion.
    """
    from safetensors.torch import save_file

    out = Path(out)
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: expected a name that ends with .safetensors")
    beside = out.with_suffix(".json")
    if os.path.lexists(beside) and not _written(beside):
        raise FileExistsError(f"{beside} is there, and would be replaced with {out}: choose another name")
    found = read(source, network, arguments)
    built = found.build()
    about = {"model": found.model, "arguments": found.arguments, "source": Path(source).name, "network": network}
    tensors = {name: tensor.contiguous().clone() for name, tensor in built.state_dict().items()}
    header = {"fastgan": json.dumps(about, allow_nan=False)}
    header["sha256"] = checksum(header["fastgan"], tensors)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with complete(out) as partial, complete(beside) as text:
            save_file(tensors, partial, metadata=header)
            text.write_text(json.dumps(about, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except Exception as error:  # an OSError, or the library's own for the same
        raise ValueError(f"{out} cannot be written: {shorten(error)}") from error
    if found.part:
        channels = found.arguments.get("img_channels")
        say(f"only part {found.part!r} of the network is known and converted; its images have {channels} channels")
    if found.half and "FP16Stages" not in found.arguments:
        say(
            f"training ran the stages {found.half} in bfloat16 (FP16Stages); converted, all run in float32, which is more"
            f" exact. For the same as in training: --config '{{\"FP16Stages\": {found.half}}}'"
        )
    return out


def _written(path: Path) -> bool:
    """Whether `path` is a .json as `convert` writes it."""
    try:
        return read_json(path).keys() == {"model", "arguments", "source", "network"}
    except BadFile:
        return False


@in_float32
def load(
    path: str | Path, device: str | torch.device = "cpu", *, say: Callable[[str], None] = _say
) -> tuple[Converted, dict[str, nn.Module]]:
    """A converted generator and its networks ({"generator": module}), as `fastgan.recipes.load_run` gives those of a run.

    Raises UnknownNetwork for a file that `convert` did not write, or one of a discriminator, BadFile for one that is damaged,
    which its checksum tells; `say` is told where a file of an older version has none.
    """
    found = _converted(Path(path), say)
    if found is None:
        if re.fullmatch(r"step-\d+", Path(path).resolve().parent.name):
            raise UnknownNetwork(f"{path} is a part of a run's checkpoint: name its folder, {Path(path).parent}")
        raise UnknownNetwork(
            f"{path} was not written by fastgan convert: run `fastgan convert {shlex.quote(str(path))} OUT.safetensors`"
        )
    if found.model in vocoder.MODELS:
        vocoder.check(found)
        speaker = Speaker(found.model, found.build().to(device), vocoder.mel_of(found.arguments))
        return speaker, {"generator": speaker.generator}
    if found.model in IMAGE_TO_IMAGE:
        generator = found.build().to(device)
        return IMAGE_TO_IMAGE[found.model](found.model, generator), {"generator": generator}
    if found.model not in ("stylegan2.generator", "stylegan3.generator", "r3gan.generator"):
        raise UnknownNetwork(f"{path} is a {clip(found.model)}: only generators draw samples")
    generator = found.build().to(device)
    return Converted(found.model, generator), {"generator": generator}
