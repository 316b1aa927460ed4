"""What the networks that `fastgan.models.build` makes have in common."""

from __future__ import annotations

import dataclasses

from torch import nn

from fastgan.fields import brief


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


def _parameters(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} parameters"
