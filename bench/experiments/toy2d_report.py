"""The table and the figure of toy2d.py, from its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

PUBLISHED = {  # modes; Lin et al. 2018
    ("ring", "GAN"): "6.3",
    ("grid", "GAN"): "17.3 (PacGAN4: 24.8)",
}
HEAD = """# Two-dimensional mixtures

`python bench/experiments/toy2d.py` trains, measures, and writes this page ({seeds} seeds, {seconds} CPU seconds in all).
Published: modes of PacGAN's table (Lin et al., 2018), with other networks than here; each row of ours has the networks,
optimisers and number of steps of the row beside it, and differs in the loss alone. Ours: mean over the seeds, in brackets
the worst seed. High quality: share of 2,500 samples within 3 deviations of a mode; {ideal:.1%} of the data's own are.
The settings were chosen by trials of RpGAN+R1+R2 on the grid, with these seeds and by these figures; the vanilla GAN's were not
tuned apart.

{settings}

| data | method | modes, published | modes, ours | high quality | reverse KL | seeds with all modes and 95% | steps |
|---|---|---|---|---|---|---|---|
"""


def write(runs: dict[tuple[str, str], Any], folder: Path, settings: Any) -> None:
    """toy2d.md and toy2d.png of `runs`, by (data, method)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for (data, method), run in runs.items():
        step, found = run.history[-1]
        modes, good, kl = torch.tensor(found, dtype=torch.float64).unbind(1)
        total = run.data.measure(run.samples()[0]).total
        whole = int(((modes == total) & (good >= 0.95)).sum())
        steps = f"{step}" if step == run.data.steps else f"{step} of {run.data.steps}"
        rows.append(
            f"| {data} | {method} | {PUBLISHED.get((data, method), '')} | {modes.mean():.1f} of {total} ({modes.min():.0f})"
            f" | {good.mean():.1%} ({good.min():.1%}) | {kl.mean():.3f} ({kl.max():.3f}) | {whole} of {len(modes)} | {steps} |"
        )
    head = HEAD.format(
        seeds=max(len(run.generators) for run in runs.values()),
        seconds=round(sum(run.seconds for run in runs.values())),
        ideal=1 - torch.tensor(-4.5).exp().item(),
        settings=f"`{settings}`",
    )
    table = "\n".join(rows)
    page = f"{head}{table}\n\n![Samples of the worst seed, and modes and quality along the runs](toy2d.png)\n"
    (folder / "toy2d.md").write_text(page)
    draw(runs, folder / "toy2d.png")
    print(table)


def draw(runs: dict[tuple[str, str], Any], path: Path) -> None:
    """A row per data set: its samples, those of each method's worst seed, and the share of high quality along the runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets, methods = (list(dict.fromkeys(key[i] for key in runs)) for i in (0, 1))
    shape = (len(sets), len(methods) + 2)
    figure, axes = plt.subplots(*shape, figsize=(3 * shape[1], 3 * shape[0]), squeeze=False, layout="constrained")
    for row, data in zip(axes, sets, strict=True):
        here = {method: runs[data, method] for method in methods if (data, method) in runs}
        example = next(iter(here.values())).data.draw(1000, torch.Generator().manual_seed(0))
        pictures = {data: example}
        for method, run in here.items():
            worst = min(range(len(run.generators)), key=lambda i, run=run: run.history[-1][1][i][:2])
            pictures[f"{method}, worst seed"] = run.samples()[worst, :1000]
            steps = [step for step, _ in run.history]
            shares = torch.tensor([[seed[1] for seed in found] for _, found in run.history])
            row[-1].plot(steps, shares.mean(1), label=method)
            row[-1].fill_between(steps, shares.amin(1), shares.amax(1), alpha=0.25)
        for axis, (title, points) in zip(row, pictures.items(), strict=False):
            axis.scatter(*points.mT, s=1.5, linewidths=0)
            axis.set_title(title, fontsize=9)
            low, high = example.amin(0), example.amax(0)
            margin = 0.15 * (high - low).max()
            axis.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
        row[-1].set_title("high quality over steps", fontsize=9)
        row[-1].legend(fontsize=7)
    figure.savefig(path, dpi=70)
    plt.close(figure)
