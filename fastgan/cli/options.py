"""What the commands share: their options, and the errors that are shown without a traceback."""

import importlib.util

# What `train` and `sample` need beyond torch: module -> package
EXTRA = {
    "tyro": "tyro",
    "rich": "rich",
    "tensorboard": "tensorboard",
    "safetensors": "safetensors",
    "PIL": "pillow",
}


class UsageError(Exception):
    """A mistake in the command line; shown without a traceback."""


def need_extra() -> None:
    missing = [package for module, package in EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: pip install 'fastgan[train]'")


def parse(config, default, argv: list[str], program: str, description: str):
    import tyro

    markers = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(config, default=default, args=argv, prog=program, description=description, config=markers)


def seed_list(text: str) -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]. Raises UsageError."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = []
    if not seeds:
        raise UsageError(f"--seeds is {text!r}, expected numbers and ranges such as 0-15,20")
    return seeds
