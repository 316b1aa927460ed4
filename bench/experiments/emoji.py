"""Which recipe draws the best emoji in five minutes of two cores: every candidate trains for the same processor time.

    python bench/experiments/emoji.py --share 0.3 --seeds 1 --samples 500                             # elimination
    python bench/experiments/emoji.py --share 0.5 --seeds 3 --only dcgan "dcgan, batch 16, lazy"      # these with three seeds
    python bench/experiments/emoji.py --report                                   # the tables of what there is, train nothing

Equal time is counted in steps, as other programs share the machine: what a step costs is measured first, all candidates in turns
on one thread, the fastest round of each; the whole time is that of the candidate "dcgan" for 2,500 steps. Runs that are finished
are kept; the table goes into docs/experiments.md.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from page import put

import fastgan
from fastgan import recipes
from fastgan.metrics import images
from fastgan.training import RunConfig, Trainer

OTHER = "emoji:twitter:base"
REFERENCE, STEPS = "dcgan", 2500
SMALL = {"width": 16, "max_width": 128}
OLD = {"batch_size": 32, "lr": 1e-3, "gamma": 0.5, "penalty_interval": 1}
LAZY = {"penalty_interval": 4, "gamma": 0.1}  # "lazy": penalties in every fourth step
CANDIDATES: dict[str, tuple[str, dict]] = {
    REFERENCE: ("dcgan", OLD),
    "dcgan, batch 16": ("dcgan", OLD | {"batch_size": 16}),
    "dcgan, batch 8": ("dcgan", OLD | {"batch_size": 8}),
    "dcgan, rate 2e-3": ("dcgan", OLD | {"lr": 2e-3}),
    "dcgan, batch 16, rate 2e-3": ("dcgan", OLD | {"batch_size": 16, "lr": 2e-3}),
    "dcgan, batch 16, by class": ("dcgan", OLD | {"batch_size": 16, "conditional": True}),
    "dcgan, batch 16, gamma 0.1": ("dcgan", OLD | {"batch_size": 16, "gamma": 0.1}),
    "dcgan, batch 16, no penalty": ("dcgan", OLD | {"batch_size": 16, "gamma": 0.0}),
    "dcgan, batch 16, diffaugment": ("dcgan", OLD | {"batch_size": 16, "augment": "diffaugment"}),
    "dcgan, batch 16, width 48": ("dcgan", OLD | {"batch_size": 16, "width": 48}),
    "dcgan, batch 16, lazy": ("dcgan", OLD | {"batch_size": 16} | LAZY | {"gamma": 0.5}),
    "dcgan, batch 16, lazy, by class": ("dcgan", OLD | {"batch_size": 16, "conditional": True} | LAZY | {"gamma": 0.5}),
    "dcgan, batch 16, lazy, gamma 0.1": ("dcgan", OLD | {"batch_size": 16} | LAZY),
    "dcgan, batch 8, lazy, gamma 0.1": ("dcgan", OLD | {"batch_size": 8} | LAZY),
    "dcgan, batch 16, lazy, gamma 0.1, rate 2e-3": ("dcgan", OLD | {"batch_size": 16, "lr": 2e-3} | LAZY),
    "dcgan, batch 16, lazy, gamma 0.1, momentum 0.5": ("dcgan", OLD | {"batch_size": 16, "beta1": 0.5} | LAZY),
    "dcgan, batch 16, lazy, gamma 0.1, non-saturating": (
        "dcgan",
        OLD | {"batch_size": 16, "loss": "non-saturating"} | LAZY,
    ),
    "dcgan, batch 16, lazy, gamma 0.1, diffaugment": (
        "dcgan",
        OLD | {"batch_size": 16, "augment": "diffaugment"} | LAZY,
    ),
    "r3gan, width 16": ("r3gan", SMALL | {"batch_size": 16}),
    "stylegan2, width 16": ("stylegan2", SMALL | {"batch_size": 16, "augment": "none"}),
    "stylegan2, width 16, no path length": (
        "stylegan2",
        SMALL | {"batch_size": 16, "augment": "none", "path_weight": 0.0},
    ),
    "fastgan": ("fastgan", {}),
}
HEAD = """| share of the time | candidate | steps | images | samples | fd_efflite0, each seed | kid_efflite0 | fd, other style |
|---|---|---|---|---|---|---|---|
"""


def trainer(name: str, out: Path, steps: int, seed: int = 0) -> Trainer:
    family, options = CANDIDATES[name]
    recipe = recipes.get(family)
    settings = RunConfig(
        data="emoji",
        out=str(out),
        resume=(out / "config.json").exists(),
        seed=seed,
        device="cpu",
        samples=64,
        sample_every=steps,
        checkpoint_every=min(steps, 500),
        keep=1,
    )
    return Trainer(recipe, recipe.Config(steps=steps, **options), settings)


def kind(name: str) -> str:
    """What decides the cost of a step: rates and weights do not."""
    recipe, options = CANDIDATES[name]
    return f"{recipe} {sorted((key, value) for key, value in options.items() if key not in ('lr', 'ema_halflife'))}"


def costs(names: list[str], file: Path, rounds: int = 3) -> dict[str, float]:
    """Processor seconds of a step of each kind, which are kept in `file`: rounds of four steps, in turns with the reference."""
    known = json.loads(file.read_text()) if file.exists() else {}
    new = {kind(name): name for name in names if kind(name) not in known}
    if not new:
        return known
    first = kind(REFERENCE)
    with tempfile.TemporaryDirectory() as folder:
        timed = {first: REFERENCE} | new
        made = {key: trainer(name, Path(folder) / str(i), 10**6) for i, (key, name) in enumerate(timed.items())}
        best: dict[str, float] = defaultdict(lambda: float("inf"))
        for one in made.values():
            one._begin()
            one._train_step()
        for _ in range(rounds):
            for key, one in made.items():
                start = time.process_time()
                for _ in range(4):
                    one._train_step()
                best[key] = min(best[key], (time.process_time() - start) / 4)
    known.setdefault(first, best[first])
    # What was measured at another time, beside other programs, is made comparable by the reference, measured both times.
    known |= {key: best[key] * known[first] / best[first] for key in new}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1) + "\n")
    return known


def measure(folder: Path, count: int) -> dict[str, float]:
    """Of `count` samples, against the training set and against the other style, which is only looked at."""
    run = fastgan.Run(folder, device="cpu")
    extractor = images.load_extractor()
    with torch.no_grad():
        fake = images.collect_drawn(extractor, (run.sample(range(i, min(i + 64, count))) for i in range(0, count, 64)))
    real, other = (images.dataset_features(extractor, fastgan.data.load(name)) for name in ("emoji", OTHER))
    found = images.measure(real, fake, extractor.name, ["fd", "kid"])
    seen = run.saved.config.batch_size * run.saved.config.steps
    return found | {"other": images.measure(other, fake, extractor.name, ["fd"])["fd_efflite0"], "images": seen}


def report(out: Path) -> None:
    """The tables of all shares, the best first, printed and put into the page."""
    runs = defaultdict(list)
    for file in sorted(out.glob("*/emoji.json")):
        found = json.loads(file.read_text())
        runs[found["share"], found["candidate"]].append(found)
    rows = []
    for (share, name), found in runs.items():
        mean = {key: statistics.mean(one[key] for one in found) for key in ("fd_efflite0", "kid_efflite0", "other")}
        each = ", ".join(f"{one['fd_efflite0']:.0f}" for one in found)
        cells = [
            f"{share:.0%}",
            name,
            str(found[0]["steps"]),
            f"{found[0]['images']:,}",
            str(found[0]["samples"]),
            each,
        ]
        cells += [f"{mean['kid_efflite0']:.3f}", f"{mean['other']:.0f}"]
        rows.append((-share, mean["fd_efflite0"], f"| {' | '.join(cells)} |\n"))
    text = HEAD + "".join(row for *_, row in sorted(rows))
    put(__file__, text)
    print(text)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-search"))
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="CANDIDATE")
    parser.add_argument("--share", type=float, default=1.0, help="of the time of 2,500 steps of dcgan with batch 32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--report", action="store_true", help="write the table of what is measured, train nothing")
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(1)
    if not args.report:
        cost = costs(args.only, args.out / "costs.json")
        for seed in range(args.seeds):
            for name in args.only:
                folder = args.out / f"{slug(name)}-{args.share:g}-{seed}"
                if (folder / "emoji.json").exists():
                    continue
                steps = round(STEPS * args.share * cost[kind(REFERENCE)] / cost[kind(name)])
                start = time.process_time()
                trainer(name, folder, steps, seed).train()
                spent = time.process_time() - start
                about = {"candidate": name, "share": args.share, "seed": seed, "samples": args.samples, "steps": steps}
                found = about | measure(folder, args.samples) | {"seconds": round(spent, 1)}
                (folder / "emoji.json").write_text(json.dumps(found, indent=1) + "\n")
                print(name, seed, found, flush=True)
    report(args.out)


if __name__ == "__main__":
    main()
