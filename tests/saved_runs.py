"""Run folders of a few numbers, written as the engine writes them and without training."""

from pathlib import Path

from fastgan import recipes
from fastgan.training import RunConfig
from fastgan.training.checkpoint import write_checkpoint
from fastgan.training.ema import EMA
from fastgan.training.run import write_config
from fastgan.training.state import pack

IMAGES = dict(name="x", resolution=8, channels=1, num_classes=2, class_names=["a", "b"])
TOKENS = dict(name="x", vocabulary_size=7, length=4, start=1, end=2, pad=0)
TEXT = TOKENS | {"vocabulary": {"level": "word", "tokens": ["u", "v", "w"]}}
SMALL = {
    "gan": (dict(units=(4, 4), latent=4), IMAGES),
    "stylegan2": (dict(width=2, max_width=4, latent=4, augment="none"), IMAGES | {"resolution": 16}),
    "r3gan": (dict(width=4, max_width=4, group_width=2, latent=4), IMAGES),
    "mle": (dict(embedding=4, hidden=4), TEXT),
    "pix2pix": (
        dict(width=1, layers=0),
        {k: v for k, v in (IMAGES | {"resolution": 32}).items() if k != "class_names"},
    ),
}


def write_run(
    folder: Path, name: str = "gan", steps: tuple[int, ...] = (1, 2), options: tuple[dict, dict] | None = None
) -> Path:
    """A run folder with a checkpoint per step; their weights differ. options: of a recipe that is not among SMALL, with data."""
    kind = recipes.get(name)
    options, data = options or SMALL[name]
    folder.mkdir(parents=True)
    for step in steps:
        recipe = kind(kind.Config(**options), dict(data))
        tensors, state = pack(recipe, EMA({n: recipe.networks[n] for n in recipe.averaged}, 0.0), {})
        counters = dict(step=step, update=2 * step, images=8 * step, seconds=0.5)
        write_checkpoint(folder / "checkpoints", step, tensors, counters | state, keep=9)
    write_config(folder, recipe, RunConfig())
    return folder
