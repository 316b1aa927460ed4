"""A network found in a file, from the file's tensors and arguments to a module that works."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastgan.convert.infer import UnknownNetwork
from fastgan.models import network_class
from fastgan.untrusted import BadFile
from fastgan.untrusted.blueprint import check_fit, naming, within


@dataclass
class Network:
    """A network as found in a file: its name in `fastgan.models`, its original's constructor arguments, its tensors.

    `source` names the file in errors; `measure_average`: the mean latent is not in the file; `half`: the numbers of R3GAN's
    stages that training ran in bfloat16; `part`: of which part of a larger network this is.
    """

    model: str
    arguments: dict[str, Any]
    state: dict[str, torch.Tensor]
    source: str
    measure_average: bool = False
    half: Sequence[int] = ()
    part: str = ""

    def build(self) -> nn.Module:
        """The module, in eval mode, its mean latent measured where that was not in the file. Raises UnknownNetwork where tensors
        and arguments do not fit: before it takes memory."""
        where = f"{self.source} as {self.model}"
        try:
            kind = network_class(self.model)
            with within(self.state.values(), where):
                planned = kind.from_reference(**self.arguments)
            check_fit(planned, self.state, where)
            with naming(where):
                made = kind.from_reference(**self.arguments)
                made.load_state_dict(self.state)
        except BadFile as error:
            raise UnknownNetwork(str(error)) from error
        made.eval().requires_grad_(False)
        if self.measure_average:
            made.mapping.w_avg.copy_(_average(made))
        return made


def _average(generator: nn.Module) -> torch.Tensor:
    """The mean of w over 10,000 latents, drawn 400 at a time."""
    random, parts = torch.Generator("cpu").manual_seed(0), []
    for _ in range(25):
        z = torch.randn(400, generator.z_dim, generator=random, device="cpu")
        parts.append(generator.mapping(z, None)[:, 0].mean(0))
    return torch.stack(parts).mean(0)


def checksum(about: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
