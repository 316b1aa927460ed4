"""Every image recipe at one equal budget: `python bench/experiments/zoo.py --minutes 30 --seeds 3` (resumable; 24 hours).

Each recipe, with its defaults, trains on emoji and on Fashion-MNIST (28 pixels, enlarged to 32) for the same processor time
of one thread, start and measurements not counted. Time is counted in steps, as other programs share the machine: what a step
costs is measured first, on each data set all recipes in turns, the fastest round of each. A round is 16 steps, since some recipes
have penalties in every 4th, 8th or 16th step alone. The table goes into docs/experiments.md; a grid of samples lies in each run's
folder under --out.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch

import fastgan
from fastgan import recipes
from fastgan.metrics import images
from fastgan.training import RunConfig, Trainer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments.md"
BEGIN, END = "<!-- python bench/experiments/zoo.py -->\n", "<!-- end of zoo.py -->\n"
RECIPES = ("gan", "dcgan", "wgan-gp", "sngan", "fastgan", "r3gan", "stylegan2", "stylegan3")
DATA = ("emoji", "fashion-mnist")
ROUND = 16  # steps: as many as the longest interval of a penalty
FIGURES = ("fd", "kid", "precision", "recall")
HEAD = """{minutes:g} CPU minutes of one thread each, {samples} samples, seeds: {seeds}; means over the seeds.

| data | recipe | steps | images a second | fd_efflite0 | kid_efflite0 | precision | recall |
|---|---|---|---|---|---|---|---|
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


def costs(data: str, file: Path, rounds: int = 3) -> dict[str, float]:
    """Processor seconds of a step of each recipe, which are kept in `file`."""
    if file.exists():
        return json.loads(file.read_text())
    with tempfile.TemporaryDirectory() as folder:
        made = {name: trainer(name, data, Path(folder) / name, 10**6, 0) for name in RECIPES}
        best = dict.fromkeys(made, float("inf"))
        for one in made.values():
            one._begin()
        for _ in range(rounds):
            for name, one in made.items():
                start = time.process_time()
                for _ in range(ROUND):
                    one._train_step()
                best[name] = min(best[name], (time.process_time() - start) / ROUND)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(best, indent=1) + "\n")
    return best


def measure(folder: Path, data: str, count: int) -> dict[str, float]:
    run, extractor = fastgan.Run(folder, device="cpu"), images.load_extractor()
    with torch.no_grad():
        drawn = (run.sample(range(i, min(i + 64, count))) for i in range(0, count, 64))
        fake = images.collect_drawn(extractor, drawn)
    real = images.dataset_features(extractor, fastgan.data.load(data, resolution=32))
    return images.measure(real, fake, extractor.name, ["fd", "kid", "prdc"])


def report(out: Path) -> None:
    found = [json.loads(file.read_text()) for file in sorted(out.glob("*/zoo.json"))]
    budgets = {(one["minutes"], one["samples"]) for one in found}
    if len(budgets) != 1:
        raise SystemExit(f"{out} holds runs of {len(budgets)} budgets, expected one: {sorted(budgets)}")
    minutes, samples = budgets.pop()
    rows = []
    for data in DATA:
        for name in RECIPES:
            some = [one for one in found if (one["data"], one["recipe"]) == (data, name)]
            if some:
                mean = {
                    key: statistics.mean(one[key] for one in some) for key in some[0] if key not in ("data", "recipe")
                }
                fd, kid, *rest = (mean[f"{figure}_efflite0"] for figure in FIGURES)
                cells = [
                    f"{mean['steps']:.0f}",
                    f"{mean['speed']:.0f}",
                    f"{fd:.0f}",
                    f"{kid:.3f}",
                    *(f"{x:.2f}" for x in rest),
                ]
                rows.append((data != DATA[0], fd, f"| {data} | {name} | {' | '.join(cells)} |\n"))
    seeds = ", ".join(map(str, sorted({one["seed"] for one in found})))
    text = HEAD.format(minutes=minutes, samples=samples, seeds=seeds) + "".join(row for *_, row in sorted(rows))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{text}{END}", page, flags=re.S), encoding="utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--report", action="store_true", help="write the table of what is measured, train nothing")
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(1)
    for seed in () if args.report else range(args.seeds):
        for data in args.data:
            cost = costs(data, args.out / f"costs-{data}.json")
            for name in RECIPES:
                folder = args.out / f"{data}-{name}-{seed}"
                if (folder / "zoo.json").exists():
                    continue
                steps = max(1, round(60 * args.minutes / cost[name]))
                made = trainer(name, data, folder, steps, seed)
                made.train()
                about = {"data": data, "recipe": name, "seed": seed, "minutes": args.minutes, "samples": args.samples}
                speed = made.config.batch_size / cost[name]
                figures = measure(folder, data, args.samples) | {"steps": steps, "speed": speed}
                (folder / "zoo.json").write_text(json.dumps(about | figures, indent=1) + "\n")
    report(args.out)


if __name__ == "__main__":
    main()
