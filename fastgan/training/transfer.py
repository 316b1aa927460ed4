"""A run that begins with other networks (`--init-from`), and parts of them that stay as they are (`--freeze-d`, `--freeze-g`).

A network whose names and shapes are the source's is taken as it is. Otherwise it is put together tensor by tensor:

- Same name and shape: taken. Layers are matched by the size that they work at: those of StyleGAN2 are named for it, the lists of
  generators begin at the smallest, those of discriminators at the image, so these are matched from their end.
- Channels of the picture: what made grey makes it thrice, what made colour makes its mean; what saw grey sees a third of it in
  each colour, what saw colour sees the sum. Alpha is that of the source, and 0 where it had none.
- Classes: another number of them begin all alike, as the mean of the old ones. What takes a class beside the latent has 0 for it
  where there was none, so a generator begins with the pictures that it made without; where there is none any more it is cut off.
- Words: those that both vocabularies have are taken from their places there to those here, the others are new.
- A larger StyleGAN2 begins with its old pictures, enlarged: the new levels add 0 to them.
- All else is new, as the recipe makes it, and so are the filters, which are made for their sizes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan import convert, fields
from fastgan.data.text import Vocabulary
from fastgan.files import complete
from fastgan.models import embedded
from fastgan.nn import EqualConv2d, EqualLinear
from fastgan.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, unpack_optimizer
from fastgan.training.ema import EMA
from fastgan.training.packed import PACKED, read_packed
from fastgan.training.recipe import Recipe
from fastgan.training.run import RunOptions, read_config

Tensors = dict[str, torch.Tensor]
_NO_CLASS, _NO_ALPHA = "0 for the class", ", 0 for alpha"
Words = tuple[list[str], list[str]]  # of a source and of a network


@dataclass
class Fitted:
    """What became of a network: the names of tensors taken as they were, `adapted` with what was done, new ones, and those of the
    source that had no place."""

    taken: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def lines(self, name: str) -> Iterator[str]:
        total = len(self.taken) + len(self.adapted) + len(self.new)
        if len(self.taken) == total and not self.left:
            yield f"{name}: all {total} tensors taken as they are"
            return
        yield f"{name}: {len(self.taken)} of {total} tensors taken as they are"
        for how in dict.fromkeys(self.adapted.values()):
            yield f"  adapted, {how}: {_brief(n for n, h in self.adapted.items() if h == how)}"
        for what, names in (("new", self.new), ("left out", self.left)):
            if names:
                yield f"  {what}: {_brief(names)}"


def _brief(names: Iterator[str] | Sequence[str], most: int = 6) -> str:
    """Modules rather than tensors, and not all of many."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return ", ".join(modules[:most]) + (f" and {len(modules) - most} more" if len(modules) > most else "")


def read(names: Sequence[str]) -> Checkpoint:
    """What lies under `names`: run folders or their names in runs/, checkpoints, shared folders, generators of the package, files
    of `fastgan convert` and of other projects; as one checkpoint. Nothing of it is executed. Raises FileNotFoundError,
    CheckpointError, ValueError."""
    found = Checkpoint(Path(" and ".join(names)), 0, {}, {"optimizers": {}})
    holders: dict[str, str] = {}  # of each network
    for name in names:
        path = embedded.locate(name)
        if not path.exists() and (Path("runs") / name).is_dir():
            path = Path("runs") / name
        if not path.exists():
            raise ValueError(f"init_from is {name!r}: no such file or folder, and no run of that name in runs/")
        if (path / PACKED).is_file():
            path /= PACKED
        tensors: Tensors
        if path.is_dir():
            checkpoint = load_checkpoint(path)
            tensors = checkpoint.tensors
            within = checkpoint.path.resolve().parent
            if within.name == "checkpoints" and (within.parent / "config.json").exists():
                found.state |= {"vocabulary": read_config(within.parent)["data"].get("vocabulary")}
            held = checkpoint.state.get("optimizers", {})
            found.state["optimizers"] |= fields.conform(held, dict[str, dict[str, Any]], f"{path}: optimizers")
        elif path.suffix == ".safetensors" and (packed := read_packed(path)) is not None:  # the averages of a run
            tensors = {f"ema/{name.replace('.', '/', 1)}": tensor for name, tensor in packed[1].items()}
            found.state |= {"vocabulary": packed[0]["data"].get("vocabulary")}
        else:
            tensors = _read_file(path)
        for network in dict.fromkeys(key.split("/")[1] for key in tensors if key.startswith(("network/", "ema/"))):
            if (other := holders.setdefault(network, name)) != name:
                raise ValueError(f"init_from: {other} and {name} both hold a {network}: leave one of them out")
        found.tensors |= tensors
    return found


def _read_file(path: Path) -> Tensors:
    places = {"G": "network/generator", "G_ema": "ema/generator", "D": "network/discriminator"}
    tensors: Tensors = {}
    reason: Exception | None = None
    for key, place in places.items():
        try:
            network = convert.read(path, key)
        except convert.UnknownNetwork as error:
            reason = reason or error
            continue
        # A file of one network is that, whatever it is called.
        if network.model.rpartition(".")[2] == place.rpartition("/")[2]:
            tensors |= {f"{place}/{name}": tensor for name, tensor in network.build().state_dict().items()}
    if not tensors:
        raise reason or ValueError(f"{path} holds neither a generator nor a discriminator")
    return tensors


def begin(recipe: Recipe, ema: EMA, source: Checkpoint, optimizers: bool = False) -> dict[str, Fitted]:
    """Put the networks of `source` into those of `recipe` and into the averages, and say what was done; with `optimizers` the
    state of these too.

    Raises ValueError where a network takes nothing, or the optimisers' state does not belong to the networks as they are now.
    """
    report, channels = {}, recipe.data.get("channels", 0)
    vocabularies = [facts.get("vocabulary") for facts in (source.state, recipe.data)]
    words = None
    if all(vocabularies) and vocabularies[0] != json.loads(json.dumps(vocabularies[1])):
        words = Vocabulary.from_dict(vocabularies[0]).tokens, Vocabulary.from_dict(vocabularies[1]).tokens
    for name, network in recipe.networks.items():
        # Where a file holds a generator's average alone, training goes on from that; buffers alone are state of that training.
        found = source.under(f"network/{name}/") or source.under(f"ema/{name}/")
        if not any(True for _ in network.parameters()):
            continue
        if not found:
            report[name] = Fitted(new=list(network.state_dict()))
            continue
        first = name.startswith("discriminator")
        values, report[name] = fit(found, network, channels, first, words)
        if not report[name].taken:
            raise ValueError(
                f"init_from: no tensor of the {name} in {source.path} fits that of {recipe.name}: it is of another family, or"
                f" of other widths ({_brief(report[name].left)} there, {_brief(report[name].new)} here)"
            )
        network.load_state_dict(values)
        if name in ema.networks:
            average = source.under(f"ema/{name}/") or found
            ema.networks[name].load_state_dict(fit(average, ema.networks[name], channels, first, words)[0])
    if not any(fitted.taken for fitted in report.values()):
        held = ", ".join(
            dict.fromkeys(name.split("/")[1] for name in source.tensors if not name.startswith("optimizer/"))
        )
        raise ValueError(f"init_from: {source.path} holds {held}, and {recipe.name} has {', '.join(recipe.networks)}")
    if optimizers:
        _take_optimizers(recipe, source, report)
    return report


def _take_optimizers(recipe: Recipe, source: Checkpoint, report: dict[str, Fitted]) -> None:
    changed = [name for name, fitted in report.items() if fitted.adapted or fitted.new]
    held = source.state["optimizers"]
    if changed or held.keys() != recipe.optimizers.keys():
        why = f"the {changed[0]} is not taken as it is" if changed else f"{source.path} holds none that fits"
        raise ValueError(f"init_optimizer=True, and {why}: leave it out, and the optimisers begin anew")
    for name, optimizer in recipe.optimizers.items():
        groups = optimizer.state_dict()["param_groups"]  # rates are this run's own
        theirs, own = (sum(len(group.get("params", ())) for group in g) for g in (held[name].get("groups", ()), groups))
        if theirs != own:  # state is known by number
            raise ValueError(
                f"init_optimizer=True: the optimiser of the {name} has {own} parameters, and in {source.path} {theirs}:"
                " freeze what was frozen there, or leave it out"
            )
        try:
            unpack_optimizer(optimizer, source.under(f"optimizer/{name}/"), held[name] | {"groups": groups, "made": []})
        except CheckpointError as error:
            raise ValueError(f"init_optimizer=True: {source.path}: {error}") from error


def fit(
    source: Tensors, network: nn.Module, channels: int, image_first: bool, words: Words | None = None
) -> tuple[Tensors, Fitted]:
    """The state of `network` from `source`, as this module's docstring says; the network itself is not changed.

    channels: of the pictures; 0 of texts. image_first: the network's lists begin at the image. words: of the source's vocabulary
    and the network's, where these differ.
    """
    target = network.state_dict()
    if (
        words is None
        and source.keys() == target.keys()
        and all(source[name].shape == t.shape for name, t in target.items())
    ):
        return dict(source), Fitted(taken=list(target))
    source, report, made = _renamed(source, target, image_first), Fitted(), {}
    # Of what only one of both has; a text's embedding is of words.
    classes = _class_widths(source) ^ _class_widths(target) if channels else set()
    highest = max(
        (int(level) for name in source for level in re.findall(r"^synthesis\.b(\d+)\.torgb", name)), default=0
    )
    equal = {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, EqualLinear | EqualConv2d)
    }
    for name, own in target.items():
        old, adapted = source.get(name), None
        same = old is not None and old.shape == own.shape
        if words is not None and old is not None and _by_word(name, old, own, words):
            made[name], report.adapted[name] = _spelt(old, own, words)
            continue
        if same and (not _is_filter(name) or torch.equal(old, own.cpu())):
            made[name] = old
            report.taken.append(name)
            continue
        if old is not None and not _is_filter(name):
            adapted = _adapted(name, old, own, channels, classes, image_first)
            if adapted is not None and name in equal:
                # Such a layer divides its weights by the root of their number for one output (Karras et al., 2018).
                adapted = adapted[0] * (own[0].numel() / old[0].numel()) ** 0.5, adapted[1]
        elif (level := re.match(r"synthesis\.b(\d+)\.torgb\.(weight|bias)$", name)) and int(level[1]) > highest > 0:
            adapted = torch.zeros_like(own), "0, which adds nothing to the picture"
        if adapted is None:
            made[name] = own
            report.new.append(name)
        else:
            made[name], report.adapted[name] = adapted
    report.left = [name for name in source if name not in target]
    return made, report


def _by_word(name: str, old: torch.Tensor, own: torch.Tensor, words: Words) -> bool:
    """Whether the tensors have a row for each word."""
    named = name in ("embedding.weight", "output.weight", "output.bias") and old.shape[1:] == own.shape[1:]
    return named and (old.shape[0], own.shape[0]) == (len(words[0]), len(words[1]))


def _spelt(old: torch.Tensor, own: torch.Tensor, words: Words) -> tuple[torch.Tensor, str]:
    """`own` with the rows of `old` of the words that both vocabularies have."""
    places = {word: i for i, word in enumerate(words[0])}
    both = [(i, places[word]) for i, word in enumerate(words[1]) if word in places]
    here, there = torch.tensor(both, device="cpu").T
    made = own.clone()
    made[here] = old[there].to(own)
    return made, f"{len(both)} of {len(words[1])} words as they were, the others new"


def _is_filter(name: str) -> bool:
    return name.rpartition(".")[2] in ("resample_filter", "up_filter", "down_filter", "Kernel")


def _renamed(source: Tensors, target: Tensors, image_first: bool) -> Tensors:
    """`source` by the names that its layers have in `target`."""
    if image_first:
        lengths = [_lengths(tensors) for tensors in (source, target)]
        shift = {part: lengths[1][part] - count for part, count in lengths[0].items() if part in lengths[1]}

        def moved(name: str) -> str:
            found = re.match(r"(\w+)\.(\d+)\.", name)
            if not found or not shift.get(found[1]):
                return name
            return f"{found[1]}.{int(found[2]) + shift[found[1]]}.{name[found.end() :]}"

        return {moved(name): tensor for name, tensor in source.items()}
    # StyleGAN3 names layers L0_36_64, for number, size and channels.
    layers = {f[1]: f[0] for name in target for f in re.finditer(r"synthesis\.L(\d+)_\d+_\d+", name)}
    return {
        re.sub(r"^synthesis\.L(\d+)_\d+_\d+", lambda found: layers.get(found[1], found[0]), name): tensor
        for name, tensor in source.items()
    }


def _lengths(tensors: Tensors) -> dict[str, int]:
    """How many entries each list of layers has."""
    found: dict[str, int] = {}
    for name in tensors:
        if match := re.match(r"(\w+)\.(\d+)\.", name):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    return found


def _embeds(name: str) -> bool:
    return "embed" in name.lower()


def _class_widths(tensors: Tensors) -> set[int]:
    """The sizes of what embeds classes; empty in a network without them."""
    return {size for name, tensor in tensors.items() if _embeds(name) and tensor.dim() == 2 for size in tensor.shape}


def _adapted(
    name: str, old: torch.Tensor, own: torch.Tensor, channels: int, classes: set[int], sees: bool
) -> tuple[torch.Tensor, str] | None:
    """`old` in the shape of `own`, and how; None where nothing says what that would mean. classes: widths of what only one of
    both networks has for its class. sees: pictures go in, not out."""
    axes = [axis for axis, (a, b) in enumerate(zip(old.shape, own.shape, strict=False)) if a != b]
    if old.dim() != own.dim() or len(axes) != 1:
        return None
    axis = axes[0]
    had, has = old.shape[axis], own.shape[axis]
    if _embeds(name) and channels:
        return old.mean(axis, keepdim=True).expand_as(own), "each class the mean of the old ones"
    if max(had, has) <= 4 and has == channels:
        how = f"{has} channels instead of {had}{_NO_ALPHA * (had % 2 > has % 2)}"
        return _other_channels(old, own, axis, sees), how
    if old.dim() > 1 and abs(had - has) in classes:
        return _overlap(old, own, axis), _NO_CLASS if has > had else "without the class"
    return None


def _other_channels(old: torch.Tensor, own: torch.Tensor, axis: int, sees: bool) -> torch.Tensor:
    """Colours of colours, and alpha of alpha, which 2 and 4 channels have and which begins at 0 where it is new."""
    had, has = (count - (count % 2 == 0) for count in (old.shape[axis], own.shape[axis]))
    alpha = old.narrow(axis, had, old.shape[axis] - had)
    colours = old.narrow(axis, 0, had)
    if had < has:
        colours = colours.expand([has if i == axis else -1 for i in range(old.dim())]) / (3 if sees else 1)
    elif had > has:
        colours = colours.sum(axis, keepdim=True) if sees else colours.mean(axis, keepdim=True)
    return _overlap(torch.cat([colours, alpha], axis), own, axis)


def _overlap(old: torch.Tensor, own: torch.Tensor, axis: int) -> torch.Tensor:
    """The beginning of `old` along an axis, and 0 for the rest of `own`."""
    made, both = torch.zeros_like(own), min(old.shape[axis], own.shape[axis])
    made.narrow(axis, 0, both).copy_(old.narrow(axis, 0, both))
    return made


def freeze(recipe: Recipe, run: RunOptions) -> list[str]:
    """Take the parameters of the discriminators' first `run.freeze_d` blocks (Mo et al., "Freeze the Discriminator", 2020) and of
    the mapping network's first `run.freeze_g` layers, out of the optimisers; returns the names of both.

    Raises ValueError for a network that has no so many, or none at all.
    """
    frozen: dict[str, nn.Module] = {}
    if run.freeze_d:
        judges = {name: n for name, n in recipe.networks.items() if name.startswith("discriminator")}
        if not judges:
            raise ValueError(f"freeze_d is {run.freeze_d}, and {recipe.name} has no discriminator")
        for name, network in judges.items():
            parts = dict(_blocks(network))
            if run.freeze_d >= len(parts):
                raise ValueError(
                    f"freeze_d is {run.freeze_d}, expected at most {len(parts) - 1}: the {name} has {', '.join(parts)}"
                )
            frozen |= {f"{name}.{part}": module for part, module in [*parts.items()][: run.freeze_d]}
    if run.freeze_g:
        mapping = getattr(recipe.networks.get("generator"), "mapping", None)
        if mapping is None:
            raise ValueError(f"freeze_g is {run.freeze_g}, and the generator of {recipe.name} has no mapping network")
        layers = {part: module for part, module in mapping.named_children() if not _embeds(part)}
        if run.freeze_g > len(layers):
            raise ValueError(f"freeze_g is {run.freeze_g}, expected at most {len(layers)}: {', '.join(layers)}")
        frozen |= {f"generator.mapping.{part}": module for part, module in [*layers.items()][: run.freeze_g]}
    kept = {p for module in frozen.values() for p in module.parameters()}
    for parameter in kept:
        parameter.requires_grad_(False)
    for optimizer in recipe.optimizers.values():
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p not in kept]
    return list(frozen)


def check_frozen(recipe: Recipe, fitted: dict[str, Fitted], frozen: Sequence[str]) -> None:
    """ValueError for a frozen part with weights that are new, as it would stay as chance made it, or that are 0 for a class or
    for alpha, which the source had not, as these would never matter."""
    for part in frozen:
        name, _, within = part.partition(".")
        own = [key for key, _ in recipe.networks[name].named_parameters() if key.startswith(f"{within}.")]
        option = "freeze_d" if name.startswith("discriminator") else "freeze_g"
        if set(own) & set(fitted[name].new):
            raise ValueError(
                f"{option}: the {part} is new, and would stay as it is without having learnt: leave it out"
            )
        for key in own:
            for ending, what in ((_NO_CLASS, "class"), (_NO_ALPHA, "alpha")):
                if fitted[name].adapted.get(key, "").endswith(ending):
                    raise ValueError(f"{option}: the {part} knows no {what} yet, and would learn of none: leave it out")


def _blocks(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a discriminator that have weights, from the image on: its modules, and of lists what is in them."""
    for name, child in network.named_children():
        if not any(True for _ in child.parameters()) or _embeds(name) or name == "mapping":
            continue  # what takes the class
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from ((f"{name}.{i}", part) for i, part in enumerate(child) if any(True for _ in part.parameters()))
        else:
            yield name, child


def tell(folder: Path, run: RunOptions, fitted: dict[str, Fitted], frozen: list[str]) -> None:
    """Print what was taken, what is new and what stays as it is, and keep it in the run's transfer.json; nothing is written for a
    run that goes on, whose file is there."""
    for name, network in fitted.items():
        print(*network.lines(name), sep="\n")
    if frozen:
        print(f"frozen: {', '.join(frozen)}")
    if fitted:
        about = {"from": run.init_from, "networks": {name: vars(n) for name, n in fitted.items()}, "frozen": frozen}
        with complete(folder / "transfer.json") as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
