"""What the networks that `fastgan.models.build` makes have in common."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fastgan.fields import brief

if TYPE_CHECKING:
    from typing_extensions import Self


class Network(nn.Module):
    """A module whose `repr` is a few lines: family, options that are not at their defaults, parameters of the whole and of its
    parts. `torch.nn.Module.__repr__(network)` has a line for every layer."""

    def __repr__(self) -> str:
        config = getattr(self, "config", None)
        options = brief(config).partition("(")[2] if dataclasses.is_dataclass(config) else ")"
        family = type(self).__module__.rpartition(".")[2]
        lines = [f"{family}.{type(self).__name__}({options}: {_parameters(self)}"]
        lines += [f"  {name}: {type(part).__name__}, {_parameters(part)}" for name, part in self.named_children()]
        return "\n".join(lines)

    @classmethod
    def from_pretrained(
        cls, where: str | Path, device: str | torch.device = "cpu", *, revision: str | None = None
    ) -> Self:
        """The network of this class in a shared folder, in user/name on huggingface.co, or fastgan:emoji, in eval mode:

            generator = fastgan.models.dcgan.Generator.from_pretrained("me/emoji-dcgan")

        Nothing in the files is executed (`fastgan.sharing.load`, whose errors these are). Raises ValueError where there is no
        network of this class.
        """
        from fastgan import sharing

        networks = sharing.load(where, device, revision=revision)[1]
        for network in networks.values():
            if isinstance(network, cls):
                return network
        held = ", ".join(f"{type(n).__module__}.{type(n).__name__}" for n in networks.values())
        raise ValueError(f"{where} holds {held}, no {cls.__module__}.{cls.__name__}")


def _parameters(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} parameters"
