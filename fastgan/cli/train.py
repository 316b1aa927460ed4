"""fastgan train."""

from dataclasses import dataclass

from fastgan.cli.options import need_extra, parse


def _recipe_list() -> str:
    from fastgan.recipes import RECIPES

    width = max(map(len, RECIPES))
    return "\n".join(f"  {name:{width}}  {entry.help}" for name, entry in RECIPES.items())


def train(argv: list[str]) -> int:
    """Train a GAN: fastgan train RECIPE [--data NAME|FOLDER|ZIP] [--steps N] [--out DIR] [--resume] [...]"""
    if not argv or argv[0] in ("-h", "--help"):
        print(
            f"{train.__doc__}\n\nrecipes (fastgan train RECIPE --help lists its options):\n{_recipe_list()}"
            "\n\nor a recipe of your own: mypackage.recipes:Mine, ./mine.py:Mine"
        )
        return 0 if argv else 2
    need_extra()
    from fastgan import recipes
    from fastgan.training import Interrupted, Trainer, run_options

    name, *rest = argv
    chosen = recipes.get(name)

    @dataclass
    class Options:
        run: run_options(chosen)
        recipe: chosen.Config

    program = f"fastgan train {name}"
    defaults = Options(run_options(chosen)(**chosen.run_defaults), chosen.Config())
    options = parse(Options, defaults, rest, program, chosen.Config.__doc__)
    if options.run.resume:
        # The run's own options are the defaults now; what the command line says still wins.
        options = parse(Options, _saved_options(chosen, options.run, Options), rest, program, chosen.Config.__doc__)
    _tune_cpu(options.run.device)
    trainer = Trainer(chosen, options.recipe, options.run)
    try:
        folder = trainer.train()
    except Interrupted as stop:
        if trainer.world.main:
            print(stop, flush=True)
        return 128 + stop.signal
    finally:
        trainer.close()
    if trainer.world.main:
        print(f"done: {folder}/report.html, samples in {folder}/samples\nmore: fastgan sample {folder} --seeds 0-15")
    return 0


def _saved_options(recipe, run, options):
    import dataclasses

    from fastgan.recipes import check_run, read_run
    from fastgan.training.checkpoint import list_checkpoints
    from fastgan.training.run import find_folder

    folder = find_folder(recipe.name, run)
    saved = check_run(folder, recipe)[0] if list_checkpoints(folder / "checkpoints") else read_run(folder, recipe)
    return options(dataclasses.replace(saved.run, out=str(folder), resume=True), saved.config)


def _tune_cpu(device: str) -> None:
    """Before the first large allocation of a run on the CPU."""
    import torch

    import fastgan

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        fastgan.tune_cpu_allocator()
