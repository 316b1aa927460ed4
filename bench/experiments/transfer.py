"""Steps that `--init-from` saves: DCGAN on one style of emoji, begun anew and begun with a run on the other style.

    python bench/experiments/transfer.py            # trains what is missing under --out, then writes the table
    python bench/experiments/transfer.py --report   # the table alone

The table goes into bench/experiments/results/transfer.md and docs/experiments.md. Steps, not seconds, are counted: the networks
and so the cost of a step are the same on both sides.
"""

import argparse
import statistics
from pathlib import Path

import torch
from page import put

import fastgan
from fastgan import recipes
from fastgan.training import RunConfig, Trainer
from fastgan.training.checkpoint import list_checkpoints
from fastgan.training.log import read_metrics

RESULTS = Path(__file__).with_name("results") / "transfer.md"
FIRST, OTHER = "emoji:google", "emoji:twitter:base"
SAMPLES = 1000
COMMON = {"batch_size": 32, "gamma": 0.5, "penalty_interval": 1}
HEAD = """DCGAN (width {width}, batch 32, `--ema-halflife {halflife:.0f}`) on {other}, {steps} steps, fd_efflite0 of {samples}
samples: begun anew, and with `--init-from` a run of {before} steps on {first} (one such run, seed 0; before any step its
networks are at fd {start:.0f} from the other style). Reached: the first step, of every {every}th, at or below where the start
from scratch ended.

| seed | from scratch: fd at the end | from the other style: fd at the end | reached after | share of the steps |
|---|---|---|---|---|
"""


def curve(folder: Path) -> dict[int, float]:
    """fd by step."""
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    return {row["step"]: row["fd_efflite0/dcgan"] for row in rows if "fd_efflite0/dcgan" in row}


def train(
    folder: Path, data: str, seed: int, steps: int, every: int, source: tuple[str, ...] = (), **config: float
) -> None:
    """A run that is measured every `every` steps; 0: never."""
    recipe = recipes.get("dcgan")
    settings = RunConfig(
        data=data,
        out=str(folder),
        resume=(folder / "config.json").exists(),
        seed=seed,
        device="cpu",
        samples=16,
        sample_every=steps,
        checkpoint_every=every or steps,
        metrics_every=every,
        metrics_samples=SAMPLES,
        keep=1,
        init_from=source,
    )
    Trainer(recipe, recipe.Config(steps=steps, **COMMON, **config), settings).train()


def start(folder: Path) -> float:
    """fd of the first run's networks against the other style."""
    run = fastgan.Run(folder, device="cpu")
    facts = vars(run.saved.run) | {"data": OTHER}
    found = run.recipe.evaluate(run.networks, facts, SAMPLES, metrics=["fd"])
    return found["dcgan"]["fd_efflite0"]


def report(out: Path, args: argparse.Namespace) -> None:
    lines, shares = [], []
    for seed in range(args.seeds):
        scratch, taken = curve(out / f"scratch-{seed}"), curve(out / f"taken-{seed}")
        target = scratch[args.steps]
        reached = next((step for step, fd in sorted(taken.items()) if fd <= target and step % args.every == 0), None)
        after, share = ("not reached", "-") if reached is None else (str(reached), f"{reached / args.steps:.0%}")
        shares += [] if reached is None else [reached / args.steps]
        lines.append(f"| {seed} | {target:.0f} | {taken[args.steps]:.0f} | {after} | {share} |\n")
    if len(shares) == args.seeds:
        lines.append(f"| mean | | | | {statistics.mean(shares):.0%} |\n")
    about = dict(
        width=args.width,
        steps=args.steps,
        samples=SAMPLES,
        every=args.every,
        before=args.before,
        first=FIRST,
        other=OTHER,
        halflife=args.ema_halflife,
    )
    text = HEAD.format(**about, start=start(out / "first")) + "".join(lines)
    RESULTS.write_text(text, encoding="utf-8")
    put(__file__, text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--before", type=int, default=800, help="steps of the run that the others begin with")
    parser.add_argument("--every", type=int, default=80, help="steps from one measurement to the next")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--ema-halflife", type=float, default=1000.0, help="of all runs, in images")
    parser.add_argument("--report", action="store_true", help="write the table from what is measured, train nothing")
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(1)
    if not args.report:
        first = args.out / "first"
        config = dict(width=args.width, max_width=8 * args.width, ema_halflife=args.ema_halflife)
        if [step for step, _ in list_checkpoints(first / "checkpoints")][-1:] != [args.before]:
            train(first, FIRST, 0, args.before, 0, **config)
        for seed in range(args.seeds):
            for name, every, source in (("scratch", args.steps, ()), ("taken", args.every, (str(first),))):
                folder = args.out / f"{name}-{seed}"
                if args.steps not in curve(folder):
                    train(folder, OTHER, seed, args.steps, every, source, **config)
    report(args.out, args)


if __name__ == "__main__":
    main()
