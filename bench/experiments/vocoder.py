"""What runs of `fastgan train vocoder` are worth: figures on the held-out recordings beside Griffin-Lim's, and one to hear.

    for seed in 0 1 2; do fastgan train vocoder --data speech --seed $seed --out runs/voice$seed; done
    python bench/experiments/vocoder.py runs/voice? --out OUT

writes OUT/figures.md, and recorded.wav, made.wav and griffin-lim.wav of one recording, "made" by the first run.
"""

import argparse
import json
from pathlib import Path

import torch

import fastgan
from fastgan.media import Signal
from fastgan.metrics import speech
from fastgan.recipes import load_run
from fastgan.training.checkpoint import list_checkpoints
from fastgan.training.log import read_metrics

FIGURES = ("mel-l1", "stft", "periodicity", "voicing", "pesq", "stoi", "fd-mel")
CLIP = 0  # of the held-out recordings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    columns, lines = {}, []
    for folder in reversed(options.runs):
        recipe, networks = load_run(folder)
        run = json.loads((folder / "config.json").read_text())["run"]
        found = recipe.evaluate(networks, run, 10**6)
        columns = {f"seed {run['seed']}": found.pop(recipe.name)} | columns | found
        step = list_checkpoints(folder / "checkpoints")[-1][0]
        seconds = [row["seconds"] for row in read_metrics(folder / "metrics.jsonl") if "seconds" in row]
        lines = [f"- seed {run['seed']}: step {step} of {recipe.config.steps}, {seconds[-1] / 60:.0f} minutes", *lines]
    lines += ["", f"| figure | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{values[name]:.3f}' for values in columns.values())} |" for name in FIGURES]
    (options.out / "figures.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")
    data = fastgan.data.load_recordings(run["data"], rate=run["rate"], split=run["split"])
    mel = recipe.heard(networks)
    recorded = data.held_out[CLIP][None, : len(data.held_out[CLIP]) // mel.hop * mel.hop]
    with torch.no_grad():
        heard = mel(recorded)
        spoken = {
            "recorded": recorded,
            "made": networks["generator"](heard)[0],
            "griffin-lim": speech.griffin_lim(heard, mel),
        }
    for name, signal in spoken.items():
        Signal.save_one(signal, options.out / f"{name}.wav", {"rate": data.rate})


if __name__ == "__main__":
    main()
