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
        """The module, in eval mode. Raises UnknownNetwork where tensors and arguments do not fit: before it takes memory."""
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
        return made.eval().requires_grad_(False)


def checksum(about: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
