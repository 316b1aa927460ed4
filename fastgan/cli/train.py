"""fastgan train."""

import itertools
import shlex

from fastgan.cli.options import need_extra, parse_settings, trust_data


def _recipe_list() -> str:
    from fastgan.recipes import RECIPES

    width = max(map(len, RECIPES))
    return "\n".join(f"  {name:{width}}  {entry.help}" for name, entry in RECIPES.items())


def train(argv: list[str]) -> int:
    """Train a GAN: fastgan train RECIPE [--data NAME|FOLDER|ZIP] [--steps N] [--out DIR] [--resume] [--config FILE] [...]"""
    if not argv or argv[0] in ("-h", "--help"):
        print(
            f"{train.__doc__}\n\nrecipes (fastgan train RECIPE --help lists its options):\n{_recipe_list()}"
            "\n\nor a recipe of your own: mypackage.recipes:Mine, ./mine.py:Mine"
        )
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
