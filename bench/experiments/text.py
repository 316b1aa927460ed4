"""MLE, SeqGAN and RelGAN on the synthetic oracle (length 20) and on poems: `python bench/experiments/text.py`.

Every run is a run folder that resumes from its last checkpoint, and every finished measurement is a line of
OUT/results.jsonl, so the command may be killed and repeated at will. When all is measured (or with --report) it writes
text.md beside this file and docs/images/text-quality-diversity.png.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

import fastgan
from fastgan import recipes
from fastgan.metrics.evaluate_text import evaluate
from fastgan.training import RunConfig, Trainer

HERE = Path(__file__).resolve().parent
TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
SAMPLES = 5000
ORACLE = {
    "seqgan": {
        "embedding": 32,
        "hidden": 32,
        "pretrain": 2000,  # 13 epochs of 10,000 sentences
        "pretrain_lr": 1e-2,
        "discriminator_pretrain": 300,
        "discriminator_steps": 1,
        "rollouts": 4,
        # With the paper's widths and embeddings it learns the training sentences by heart: it hardly tells held-out ones
        # from generated ones, and its reward says little of them.
        "filters": 0.25,
        "widest": 4,
        "dropout": 0.5,
        "embedding_range": 0.17,
        "ema_halflife": 0.0,
        "lr": 5e-3,
        "interleave_lr": 0.0,
        "steps": 2000 + 300 + 40,
    },
    "relgan": {
        "embedding": 32,
        "hidden": 64,
        "pretrain": 2000,
        "pretrain_lr": 5e-3,
        "discriminator_steps": 2,
        "filters": 0.25,
        "inverse_temperature": 100.0,
        "lr": 1e-3,
        "discriminator_lr": 1e-3,
        "steps": 2000 + 200,
    },
}
POEMS = {
    # The recipe's defaults, chosen with seeds 0 and 3.
    "seqgan": {"pretrain": 300, "discriminator_pretrain": 200, "steps": 600},
    "relgan": {"pretrain": 1000, "discriminator_steps": 2, "steps": 1150},
}


POEM_SEEDS = {"seqgan": (1, 2), "relgan": (0,)}


class Results:
    """Measurements by key, one JSON line each."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, key: str, **values) -> None:
        self.rows[key] = {"key": key, **values}
        with self.path.open("a") as file:
            file.write(json.dumps(self.rows[key], ensure_ascii=False) + "\n")


def measure(trainer: Trainer, temperatures=(1.0,)) -> dict:
    """All metrics per temperature, and the first ten samples."""
    recipe, networks = trainer.recipe, trainer.ema.networks
    out = {}
    for temperature in temperatures:
        batches = [list(range(i, i + 500)) for i in range(0, SAMPLES, 500)]
        tokens = torch.cat([recipe.draw_tokens(networks, seeds, temperature) for seeds in batches])
        unknown = 3 if recipe.vocabulary is not None else None
        values = evaluate(networks["generator"], tokens, trainer.dataset, unknown, temperature)
        out[f"{temperature:g}"] = {"values": values, "samples": recipe.decode(tokens[:10])}
    return out


def run(results: Results, out: Path, recipe_name: str, data: str, seed: int, options: dict) -> None:
    """Train to the end of pretraining, measure, train to the end, measure; what is done already is not repeated."""
    recipe = recipes.get(recipe_name)
    for phase, steps in (("mle", options["pretrain"]), ("gan", options["steps"])):
        key = f"{data}/{recipe_name}/{seed}/{phase}"
        if key in results.rows:
            continue
        folder = out / f"{data}-{recipe_name}-{seed}"
        config = recipe.Config(**{**options, "steps": steps})
        settings = RunConfig(
            data=data,
            out=str(folder),
            resume=(folder / "config.json").exists(),
            seed=seed,
            device="cpu",
            workers=0,
            log_every=20,
            sample_every=10**9,
            checkpoint_every=250 if phase == "mle" else 10,
            keep=1,
            samples=10,
        )
        began = time.process_time()
        trainer = Trainer(recipe, config, settings)
        trainer.train()
        trained = time.process_time() - began
        measured = measure(trainer, TEMPERATURES if phase == "mle" else (1.0,))
        results.add(key, cpu_seconds=trained, steps=steps, options=options, columns=measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])  # 0 to 2 served to choose the settings
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help="run only what begins with this, such as oracle/seqgan")
    parser.add_argument("--report", action="store_true", help="write the report from what is measured, train nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fastgan.tune_cpu_allocator()
    torch.set_num_threads(args.threads)
    results = Results(args.out / "results.jsonl")
    if not args.report:
        plan = [(name, "oracle", seed, ORACLE[name]) for seed in args.seeds for name in ORACLE]
        plan += [(name, "tang-quatrains", seed, POEMS[name]) for name in POEMS for seed in POEM_SEEDS[name]]
        for name, data, seed, options in plan:
            if f"{data}/{name}/{seed}".startswith(args.only or ""):
                run(results, args.out, name, data, seed, options)
    from text_report import write

    write(results.rows, HERE / "text.md", HERE.parents[1] / "docs" / "images", os.cpu_count())


if __name__ == "__main__":
    main()
