"""How near projections come: 20 emoji that a generator has not seen, against the picture that each projection starts from.

    python bench/experiments/projection.py RUN [--space w+] [--steps 200]

RUN was trained on Google's emoji; the pictures are Twitter's, every 95th of those without skin tones. The line of the table is
printed and kept in bench/experiments/results/projection.md and docs/experiments.md, instead of an older one of the same kind.
"""

import argparse
from pathlib import Path

import torch
from page import put

import fastgan
from fastgan import data, editing

RESULTS = Path(__file__).with_name("results") / "projection.md"
HEAD = """| generator | space | steps | PSNR at the start, dB | PSNR projected, dB | distance at the start | distance projected |
|---|---|---|---|---|---|---|
"""


def measure(editor: editing.Editor, space: str | None, steps: int) -> str:
    """The row of the table."""
    images = data.to_float(data.load("emoji:twitter:base").images[::95][:20])
    perceptual = fastgan.metrics.perceptual.load_perceptual()
    start = editing.Projector(editor, images, steps, space, perceptual=perceptual)
    first = editing.Progress(0, steps, start.distances(), start.latents)
    *_, last = editing.project(editor, images, steps, space, perceptual=perceptual, every=steps)
    psnr = [f"{float(found.psnr.mean()):.2f}" for found in (first, last)]
    distance = [f"{float(found.distances[:, 0].mean()):.2f}" for found in (first, last)]
    size = sum(p.numel() for p in editor.generator.parameters()) / 1e6
    return f"| {editor.name}, {size:.2f} million weights | {start.space} | {steps} | {' | '.join(psnr + distance)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--space", choices=("w", "w+", "z"))
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(1)
    row = measure(editing.load(args.run), args.space, args.steps)
    rows = RESULTS.read_text(encoding="utf-8").splitlines(True)[2:] if RESULTS.exists() else []
    kind = row.split("|")[1:3]
    table = HEAD + "".join([old for old in rows if old.split("|")[1:3] != kind] + [row])
    RESULTS.write_text(table, encoding="utf-8")
    put(__file__, table)
    print(row)


if __name__ == "__main__":
    main()
