"""An import never runs upward, wherever in a module it stands."""

import ast
from pathlib import Path

import fastgan

ROOT = Path(fastgan.__file__).parent
# Rooms of a floor may import each other; what has no floor (files, fields, ...) lies below all of them, and imports none.
FLOORS = (
    "ops",
    "nn losses data media",
    "patch models",
    "convert metrics",
    "training",
    "recipes",
    "runs sampling upscaling vocoding",
    "editing export sharing",
    "explore",
    "cli",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
# The package itself, which is imported first and names all rooms; the entry points; what tells of everything.
OUTSIDE = {"__init__", "__main__", "run", "import_hook", "info", "_site"}
# A method of every network, for prompts; of sharing it needs nothing until it is called.
ALLOWED = {("models/network.py", "sharing")}


def rooms(tree):
    """Those of fastgan that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "relative"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("fastgan."))


def test_no_import_runs_upward():
    upward = []
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT)
        here = file.parts[0].removesuffix(".py")
        if here not in OUTSIDE:
            found = set(rooms(ast.parse(path.read_text(encoding="utf-8"))))
            upward += [(str(file), room) for room in found if FLOOR.get(room, -1) > FLOOR.get(here, -1)]
    assert set(upward) == ALLOWED
