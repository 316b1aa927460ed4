"""How figures depend on the number of samples: `python bench/experiments/metric_samples.py`.

A perfect generator draws from the data's own distribution. So one half of the emoji is the data set, and n random images of the
other half are its samples: what a figure then says is its error at n samples. Writes results/metric_samples.md.
"""

from pathlib import Path

import torch

import fastgan.data
from fastgan.metrics import fid, images, kid, prdc

COUNTS, DRAWS = (50, 100, 250, 500, 1000, 1500), 5
HEAD = """# Figures and the number of samples

`python bench/experiments/metric_samples.py` makes this page. {half} emoji of {side} pixels, drawn at random, are the data
set; n of the other {half} are the samples of a generator that could not be better. Features of efflite0; mean and standard
deviation over {draws} draws.

| n | fd_efflite0 | kid_efflite0 | precision | recall | density | coverage |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    emoji = fastgan.data.load("emoji")
    extractor = images.load_extractor("efflite0")
    rows = images.collect(extractor, emoji.images.split(64)).rows
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(rows), generator=draw)
    half = len(rows) // 2
    real, rest = rows[order[:half]], rows[order[half : 2 * half]]
    lines = []
    for n in COUNTS:
        found = []
        for _ in range(DRAWS):
            fake = rest[torch.randperm(half, generator=draw)[:n]]
            both = [fid.Statistics(rows.shape[1]) for _ in range(2)]
            for statistics, part in zip(both, (real, fake), strict=True):
                statistics.update(part)
            found.append(
                [fid.frechet_distance(*both), kid.kernel_distance(real, fake, subsets=10)[0], *prdc.prdc(real, fake)]
            )
        mean, deviation = (f(torch.tensor(found, dtype=torch.float64), 0) for f in (torch.mean, torch.std))
        cells = [f"{m:.{d}f} ± {s:.{d}f}" for m, s, d in zip(mean, deviation, (0, 3, 2, 2, 2, 2), strict=True)]
        lines.append(f"| {n} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    page = HEAD.format(half=half, side=emoji.resolution, draws=DRAWS) + "\n".join(lines) + "\n"
    Path(__file__).with_name("results").joinpath("metric_samples.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
