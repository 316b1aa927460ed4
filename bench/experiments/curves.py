"""FD along training on emoji and Fashion-MNIST: `python bench/experiments/curves.py` (2 CPU cores; may be killed and
repeated at will: it goes on from its last checkpoints).

R3GAN's ablation of the loss (Huang et al., 2024, table 1) on DCGAN's networks at 32 and 28 pixels padded to 32: RpGAN or the
non-saturating loss, with R1 and R2 or without. All else is the same, not tuned for any of them. fd_efflite0 is a Frechet
distance in the features of EfficientNet-Lite0 (extra `metrics`): no FID, and comparable with this page alone. The table and the
figure are written to bench/experiments/results/ when all is measured, or with --report from what there is.
"""

import argparse
import statistics
from pathlib import Path

import torch

import fastgan
from fastgan import recipes
from fastgan.training import RunConfig, Trainer
from fastgan.training.log import read_metrics

RESULTS = Path(__file__).resolve().parent / "results"
DATA = ("emoji", "fashion-mnist")
LOSSES = {
    "RpGAN+R1+R2": {"loss": "rpgan"},
    "GAN+R1+R2": {"loss": "non-saturating"},
    "GAN": {"loss": "non-saturating", "gamma": 0.0},
}
HEAD = """# FD along training

`python bench/experiments/curves.py`: DCGAN at 32 pixels, {steps} steps of 32 images, {seeds} seed(s); fd_efflite0 of 1,000
samples (lower is better; not FID) at the end of the run and at its best moment; mean over the seeds.
Published beside it: what R3GAN's ablation found on stacked digits, with other networks (Huang et al., 2024): modes of 1,000.

| data | loss | fd_efflite0, end | fd_efflite0, best | published, stacked digits |
|---|---|---|---|---|
"""
COMMON = {"batch_size": 32, "gamma": 0.5, "penalty_interval": 1}
PUBLISHED = {"RpGAN+R1+R2": "1000 modes", "GAN+R1+R2": "693 modes", "GAN": ""}


def curve(folder: Path) -> dict[int, float]:
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    return {row["step"]: row["fd_efflite0/dcgan"] for row in rows if "fd_efflite0/dcgan" in row}


def train(folder: Path, data: str, seed: int, steps: int, options: dict) -> None:
    recipe = recipes.get("dcgan")
    settings = RunConfig(
        data=data,
        out=str(folder),
        resume=(folder / "config.json").exists(),
        resolution=32,
        seed=seed,
        device="cpu",
        sample_every=steps,
        metrics_every=steps // 4,
        keep=1,
    )
    Trainer(recipe, recipe.Config(steps=steps, **(COMMON | options)), settings).train()


def report(curves: dict[tuple[str, str], list[dict[int, float]]], steps: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(DATA), figsize=(9, 3.6), layout="constrained")
    lines = []
    for axis, data in zip(axes, DATA, strict=True):
        for loss in LOSSES:
            found = [c for c in curves[data, loss] if c]
            if not found:
                continue
            for c in found:
                axis.plot(list(c), list(c.values()), color=f"C{list(LOSSES).index(loss)}", label=loss)
            end, best = (statistics.mean(f(list(c.values())) for c in found) for f in (lambda v: v[-1], min))
            lines.append(f"| {data} | {loss} | {end:.1f} | {best:.1f} | {PUBLISHED[loss]} |")
        axis.set(title=data, xlabel="step", ylabel="fd_efflite0", yscale="log")
        names = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(names.values(), names.keys(), fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "curves.png", dpi=110)
    head = HEAD.format(steps=steps, seeds=max(len(c) for c in curves.values()))
    (RESULTS / "curves.md").write_text(head + "\n".join(lines) + "\n\n![FD along training](curves.png)\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="write the report from what is measured, train nothing")
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(args.threads)
    curves = {}
    for data in DATA:
        for loss, options in LOSSES.items():
            folders = [args.out / f"{data}-{loss}-{seed}" for seed in range(args.seeds)]
            for seed, folder in enumerate(folders):
                if not args.report and args.steps not in curve(folder):
                    train(folder, data, seed, args.steps, options)
            curves[data, loss] = [curve(folder) for folder in folders]
    report(curves, args.steps)


if __name__ == "__main__":
    main()
