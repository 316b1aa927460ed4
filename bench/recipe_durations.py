"""How long the default run of each recipe takes here: writes fastgan/recipes/durations.json, which `fastgan train --help` shows.

    python bench/recipe_durations.py [RECIPE ...]            on an idle machine
    python bench/recipe_durations.py --busy [RECIPE ...]     one thread, and its processor time: where others compute too

Not whole runs, some of which take days: of each recipe the start, then each kind of step that the run has (pre-training, lazy
regularisation, ...), ROUNDS times at places spread over the run; a grid of samples, a checkpoint and a measurement, once each.
The estimate is their sum over the run. Of a kind of step the fastest counts, as others' work on the machine only adds.
"""

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from machine import processor

import fastgan
from fastgan.recipes import OURS, durations, get
from fastgan.training import Trainer
from fastgan.training.settings import Settings

ROUNDS = 3


def threads(busy: bool) -> int:
    return 1 if busy else torch.get_num_threads()


def kinds(recipe, steps: int) -> dict[tuple, list[int]]:
    """The steps of a run by what they compute."""
    found = defaultdict(list)
    for step in range(steps):
        found[tuple((update.optimizer, update.loss.__name__) for update in recipe.updates(step))].append(step)
    return found


def spread(steps: list[int], count: int) -> list[int]:
    return [steps[i * (len(steps) - 1) // max(count - 1, 1)] for i in range(count)]


def measure(name: str, folder: Path, busy: bool) -> dict[str, float]:
    """Seconds of the parts of the recipe's default run, and of the whole, in a process of its own."""
    now = time.process_time if busy else time.perf_counter

    def clock(function) -> float:
        start = now()
        function()
        return now() - start

    torch.set_num_threads(threads(busy))
    fastgan.tune_cpu_allocator()
    settings = Settings.of(get(name))
    run = dataclasses.replace(settings.run, out=str(folder / name), device="cpu")
    begun = now()
    trainer = Trainer(settings.kind, settings.recipe, run)
    trainer._begin()
    parts = {"start": now() - begun}
    trainer._sinks.open(trainer.folder, 0, trainer.recipe)
    steps = settings.recipe.steps
    total = 0.0
    for places in kinds(trainer.recipe, steps).values():
        taken = []
        for place in spread(places, min(ROUNDS, len(places)) + 1):  # the first one warms up
            trainer.step = place
            taken.append(clock(trainer._train_step))
        total += len(places) * min(taken[1:])
    parts["step"] = total / steps  # in the mean
    parts["samples"] = clock(lambda: trainer._show(trainer._draw()))
    trainer.step = steps
    parts["checkpoint"] = clock(lambda: (trainer._save(), trainer._writer.wait()))
    parts["measurement"] = clock(trainer._evaluate) if run.metrics_every else 0.0
    trainer._loader.close()
    trainer._writer.close()
    trainer._sinks.close()
    trainer._lock.release()
    times = {"step": steps, "samples": 1 + steps // run.sample_every, "checkpoint": steps // run.checkpoint_every}
    times["measurement"] = steps // run.metrics_every if run.metrics_every else 0
    whole = parts["start"] + sum(parts[part] * count for part, count in times.items())
    return {"steps": steps, "seconds": round(whole, 1)} | {part: round(value, 4) for part, value in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(OURS), help="those to measure anew (default: all)")
    parser.add_argument("--busy", action="store_true", help="one thread, and its processor time")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    known = durations.read()
    here = processor(), threads(options.busy), options.busy
    same = known is not None and (known.processor, known.cores, known.busy) == here
    found = dict(known.recipes) if same else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.recipes:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[name] = pool.submit(measure, name, Path(folder), options.busy).result()
            print(f"{name:10} {durations.spoken(found[name]['seconds'])}  {found[name]}", flush=True)
            write(found, options.busy, load)
    print(f"{durations.FILE}: {here[1]} cores of {here[0]}, load {load:.2f} before")


def write(found: dict[str, dict[str, float]], busy: bool, load: float) -> None:
    table = durations.Durations(
        processor=processor(),
        cores=threads(busy),
        date=datetime.date.today().isoformat(),
        torch=torch.__version__,
        fastgan=fastgan.__version__,
        load=round(load, 2),
        busy=busy,
        recipes={name: found[name] for name in OURS if name in found},
    )
    durations.FILE.write_text(json.dumps(dataclasses.asdict(table), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
