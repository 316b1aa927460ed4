"""fastgan train."""

import itertools
import shlex

from fastgan.cli.options import need_extra, parse_settings, trust_data
from fastgan.cli.table import show
from fastgan.fields import docstring

_MORE = """
A recipe of your own: fastgan train mypackage.recipes:Mine, fastgan train ./mine.py:Mine
Options of a recipe:  fastgan train RECIPE --help"""


def _list() -> None:
    """The recipes, what each is for, and how long its default run took where that was measured."""
    from fastgan.recipes import RECIPES, durations

    measured = durations.read()
    times = {} if measured is None else measured.recipes
    rows = []
    for name, entry in RECIPES.items():
        took = times.get(name)
        rows.append(
            [name, durations.spoken(took["seconds"]) if took else "-", str(took["steps"]) if took else "-", entry.help]
        )
    show(["recipe", ">about", ">steps", "for"], rows)
    if measured is not None:
        print(f"\n{measured.how}")


def train(argv: list[str]) -> int:
    """Train a GAN: fastgan train RECIPE [--data NAME|FOLDER|ZIP] [--steps N] [--out DIR] [--resume] [--config FILE] [...]"""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{docstring(train)}\n")
        _list()
        print(_MORE)
        return 0 if argv else 2
    need_extra()
    from fastgan import fields, runs
    from fastgan.recipes import RECIPES
    from fastgan.training import Interrupted, Trainer

    name, rest = (None, argv) if argv[0].startswith("-") else (argv[0], argv[1:])
    config, preset = _value("--config", rest), _value("--preset", rest)
    settings = runs.plan(name, config, preset)
    kind = settings.kind
    words, about = words_of(kind), fields.about(kind.Config)
    if kind.presets:
        lines = "\n".join(f"  {name}: {preset.about}" for name, preset in kind.presets.items())
        about += f"\n\npresets:\n{lines}"
    program = f"fastgan train {name or kind.name}"
    settings = parse_settings(settings, words, rest, program, about)
    if settings.run.resume:
        # The run's own options are the defaults now; what the command line says still wins.
        runs.check_resumed(config, preset)
        settings = parse_settings(runs.saved(settings), words, rest, program, about)
    trust_data(settings.run.data, rest)
    _tune_cpu(settings.run.device)
    trainer = Trainer(kind, settings.recipe, settings.run)
    if trainer.world.main and not settings.run.resume:
        print(_how_long(settings), flush=True)
    try:
        folder = trainer.train()
    except Interrupted as stop:
        if trainer.world.main:
            print(stop, flush=True)
        return 128 + stop.signal
    finally:
        trainer.close()
    if trainer.world.main:
        name = RECIPES.name_of(kind, elsewhere=True)
        code = f" --recipe {shlex.quote(name)}" if ":" in name else ""
        print(f"done: {folder}/report.html, samples in {folder}/samples")
        print(f"more: fastgan sample {shlex.quote(str(folder))} --seeds 0-15{code}")
    return 0


def words_of(kind) -> dict[str, str]:
    """The options of `fastgan train RECIPE` that are none of the run's or the recipe's, with their help."""
    words = {"config": "A YAML file of options, such as the run.yaml of a run's folder; what stands here wins over it."}
    if kind.presets:
        words["preset"] = (
            f"Values of options together: {', '.join(kind.presets)}. The file and what stands here win over it."
        )
    return words


def _how_long(settings) -> str:
    from fastgan.recipes import durations

    measured = durations.read()
    seconds = measured and measured.of(settings)
    if seconds is None:
        return "time: the first figures tell"
    return f"time: about {durations.spoken(seconds)} on {measured.machine}; the first figures tell how long here"


def _value(option: str, argv: list[str]) -> str | None:
    """What follows `option`, which decides on the options that there are."""
    found = None
    for word, after in itertools.zip_longest(argv, argv[1:]):
        if word == option:
            found = after
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _tune_cpu(device: str) -> None:
    """Before the first large allocation of a run on the CPU."""
    import torch

    import fastgan

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        fastgan.tune_cpu_allocator()
