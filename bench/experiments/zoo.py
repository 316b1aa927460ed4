"""Every image recipe at one equal budget: `python bench/experiments/zoo.py` (resumable; 8 hours of one thread).

Each recipe, with its defaults, trains on emoji and on Fashion-MNIST (28 pixels, enlarged to 32) for the same processor time
of one thread, start and measurements not counted. Time is counted in steps, as other programs share the machine: what a step
costs is measured once, all recipes in turns, the fastest round of each. A round is 16 steps, since some recipes have penalties in
every 4th, 8th or 16th step alone. Costs and figures are kept in results/zoo.json: other machines go on with the same steps, one
run at a time, or several with --data and --recipes. The table goes into docs/experiments.md, samples of the first seed into
docs/images; each run with all of its own lies under --out. `--again` measures the runs that lie there once more.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from page import PAGE, put

import fastgan
from fastgan import recipes
from fastgan.data.exact import write_png
from fastgan.data.pixels import viewable
from fastgan.metrics import images
from fastgan.training import RunConfig, Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import processor

KEPT = Path(__file__).parent / "results" / "zoo.json"
RECIPES = ("gan", "dcgan", "wgan-gp", "sngan", "fastgan", "r3gan", "stylegan2", "stylegan3")
DATA = ("emoji", "fashion-mnist")
ROUND = 16  # steps: as many as the longest interval of a penalty
FIGURES = ("fd", "kid", "precision", "recall")
MINUTES, SAMPLES, SEEDS, SHOWN = 10, 2000, 3, 8
HEAD = f"""{MINUTES} CPU minutes of one thread ({{processor}}) each, {SAMPLES} samples; means over
the seeds. Pictures: the first {SHOWN} samples of seed 0.

| data | recipe | seeds | steps | images a second | fd_efflite0 | kid_efflite0 | precision | recall | |
|---|---|---|---|---|---|---|---|---|---|
"""


def trainer(name: str, data: str, folder: Path, steps: int, seed: int) -> Trainer:
    recipe = recipes.get(name)
    settings = RunConfig(
        data=data,
        out=str(folder),
        resume=(folder / "config.json").exists(),
        resolution=32,
        seed=seed,
        device="cpu",
        samples=64,
        sample_every=steps,
        checkpoint_every=max(1, min(steps, 200)),
        keep=1,
    )
    return Trainer(recipe, recipe.Config(steps=steps), settings)


def costs(rounds: int = 3) -> dict[str, float]:
    """Processor seconds of a step of each recipe."""
    with tempfile.TemporaryDirectory() as folder:
        made = {name: trainer(name, "emoji", Path(folder) / name, 10**6, 0) for name in RECIPES}
        best = dict.fromkeys(made, float("inf"))
        for one in made.values():
            one._begin()
        for _ in range(rounds):
            for name, one in made.items():
                start = time.process_time()
                for _ in range(ROUND):
                    one._train_step()
                best[name] = min(best[name], (time.process_time() - start) / ROUND)
    return best


@contextlib.contextmanager
def kept() -> Iterator[dict]:
    """What KEPT holds, for reading and writing by one process at a time."""
    with open(KEPT, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = json.loads(file.read() or '{"costs": {}, "runs": []}')
        yield found
        file.truncate(0)
        file.write(json.dumps(found, indent=1) + "\n")


def picture(data: str, name: str) -> Path:
    return PAGE.parent / "images" / f"zoo-{data}-{name}.png"


def measure(run: fastgan.Run, data: str, count: int) -> dict[str, float]:
    extractor = images.load_extractor()
    with torch.no_grad():
        drawn = (run.sample(range(i, min(i + 64, count))) for i in range(0, count, 64))
        fake = images.collect_drawn(extractor, drawn)
    real = images.dataset_features(extractor, fastgan.data.load(data, resolution=32))
    return images.measure(real, fake, extractor.name, ["fd", "kid", "prdc"])


def report(found: dict) -> str:
    rows = []
    for data in DATA:
        for name in RECIPES:
            some = [one for one in found["runs"] if (one["data"], one["recipe"]) == (data, name)]
            if some:
                fd, kid, *rest = (statistics.mean(one[f"{figure}_efflite0"] for one in some) for figure in FIGURES)
                seeds = ", ".join(str(one["seed"]) for one in some)
                speed = recipes.get(name).Config().batch_size / found["costs"][name]
                cells = [
                    seeds,
                    some[0]["steps"],
                    f"{speed:.0f}",
                    f"{fd:.0f}",
                    f"{kid:.3f}",
                    *(f"{x:.2f}" for x in rest),
                ]
                path = picture(data, name)
                cells.append(f"![{name}](images/{path.name})" if path.exists() else "")
                cells = " | ".join(map(str, cells))
                rows.append((data != DATA[0], fd, f"| {data} | {name} | {cells} |\n"))
    text = HEAD.format(processor=found["processor"]) + "".join(row for *_, row in sorted(rows))
    put(__file__, text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(1)
    with kept() as found:
        if not found["costs"]:
            found |= {"costs": costs(), "processor": processor()}
    for seed, data, name in itertools.product(range(SEEDS), args.data, args.recipes):
        folder = args.out / f"{data}-{name}-{seed}"
        with kept() as found:
            about = {"data": data, "recipe": name, "seed": seed, "steps": round(60 * MINUTES / found["costs"][name])}
            there = any(about.items() <= one.items() for one in found["runs"])
        if not ((there and folder.exists()) if args.again else not there):
            continue
        if not there:
            trainer(name, data, folder, about["steps"], seed).train()
        run = fastgan.Run(folder, device="cpu")
        if seed == 0:
            strip = viewable(fastgan.data.to_uint8(run.sample(range(SHOWN))))
            write_png(torch.cat([*strip], 2), picture(data, name))
        figures = measure(run, data, SAMPLES)
        with kept() as found:
            others = [one for one in found["runs"] if not about.items() <= one.items()]
            found["runs"] = [*others, about | figures]
            print(report(found))


if __name__ == "__main__":
    main()
