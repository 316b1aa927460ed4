"""Training steps on a GPU, eager and by CUDA graphs: `python tests/cuda/train_graphs.py --device cuda --json FILE`, a minute.

Equality: the same updates eagerly (the graphs' own path, which never captures) and replayed, in deterministic settings, must
leave the same weights bit for bit; how far plain `fastgan train --deterministic` ends from there is printed beside it. Speed:
images per second of the last steps of each way to train. With --device cpu the same runs on the stand-in of tests/graph_stub.py,
fewer steps of it: a rehearsal, whose speeds mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
import traceback
from pathlib import Path

import torch
from graph_stub import Stub

from fastgan import recipes
from fastgan.training import RunConfig, Trainer, graphs

SMALL = {"batch_size": 8, "width": 8, "max_width": 16, "latent": 8}
LAZY = {"r1_interval": 4, "path_interval": 4}  # often enough that their graphs are replayed
CASES = {"dcgan": {}, "dcgan ada": {"augment": "ada-full"}, "stylegan2": LAZY}
WAYS = {
    "eager, deterministic": {"deterministic": True},
    "eager": {},
    "graphs": {"graphs": True},
    "graphs, channels_last": {"graphs": True, "channels_last": True},
    "eager, bf16": {"precision": "bf16"},
    "graphs, bf16": {"graphs": True, "precision": "bf16"},
    "graphs, channels_last, bf16": {"graphs": True, "channels_last": True, "precision": "bf16"},
}


class Timed(Trainer):
    """Notes when the last `measured` steps begin and end. Attributes: `rate`, images per second in them; `host`, seconds of a
    step until the host is done with it."""

    measured = 1

    def _train_step(self):
        first = self.step == self.config.steps - self.measured
        if first:
            self._wait()
            self._began = time.perf_counter()
        result = super()._train_step()
        if self.step == self.config.steps:
            host = time.perf_counter() - self._began
            self._wait()
            self.rate = self.measured * self.config.batch_size / (time.perf_counter() - self._began)
            self.host = host / self.measured
        return result

    def _wait(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()


def train(case: str, steps: int, measured: int, device: str, folder: str, sizes: dict, **run) -> Timed:
    recipe = recipes.get(case.split()[0])
    never = steps + 1
    settings = {"data": "emoji", "resolution": 64, "samples": 1, "device": device, "log": (), "workers": 2}
    often = {"log_every": never, "checkpoint_every": never, "sample_every": never}
    config = recipe.Config(steps=steps, **sizes | CASES[case])
    trainer = Timed(recipe, config, RunConfig(out=folder, **settings, **often, **run))
    trainer.measured = measured
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    networks = [*trainer.recipe.networks.items(), *((f"average of {n}", m) for n, m in trainer.ema.networks.items())]
    return {f"{name}.{key}": value.clone() for name, network in networks for key, value in network.state_dict().items()}


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict:
    """How many tensors differ, and the greatest difference, in units of the largest weight of its tensor."""
    differ = {
        name: (a[name] - b[name]).abs().max() / b[name].abs().max() for name in a if not torch.equal(a[name], b[name])
    }
    return {
        "differ": len(differ),
        "of": len(a),
        "most": float(max(differ.values(), default=0.0)),
        "first": [*differ][:3],
    }


def equality(case: str, steps: int, device: str, scratch: Path) -> dict:
    def run(name: str, **options) -> dict[str, torch.Tensor]:
        return weights(train(case, steps, 1, device, str(scratch / name), SMALL, deterministic=True, **options))

    # gather's gradient, of which augmentations are made, adds in any order otherwise.
    torch.use_deterministic_algorithms(True, warn_only=True)
    plain = run("plain")
    graphs.WARM_UP = 10**9
    try:
        eager = run("eager", graphs=True)
    finally:
        graphs.WARM_UP = 2
    replayed = run("graphs", graphs=True)
    torch.use_deterministic_algorithms(False)
    return {"graphs against eager": distance(replayed, eager), "against a plain run": distance(replayed, plain)}


def speed(case: str, end: float, device: str, scratch: Path) -> dict:
    real, found = device == "cuda", {}
    for way, options in WAYS.items():
        sizes = {} if real else SMALL
        # 16 steps have one R1 and four path lengths, as in a long run; R1's graph is made in step 33.
        steps, measured = ((56 if "graphs" in options else 20), 16) if real else (6, 1)
        if time.monotonic() > end:
            found[way] = "not begun: no time left"
            continue
        try:
            trainer = train(case, steps, measured, device, str(scratch / way), sizes, **options)
            found[way] = {"images/s": round(trainer.rate), "host ms/step": round(1e3 * trainer.host, 2)}
        except Exception as error:
            found[way] = {"error": f"{type(error).__name__}: {error}"[:400]}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=55.0, help="begin nothing later than this")
    options = parser.parse_args()
    real = options.device == "cuda"
    if not real:
        graphs.Backend = Stub
    CASES["stylegan2 speed"] = {} if real else LAZY  # its own intervals, 16 and 4
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    began, found, good = time.monotonic(), {"torch": torch.__version__}, True
    end, steps = began + options.seconds, 20 if real else 12
    jobs = [
        ("equal dcgan", equality, ("dcgan", steps)),
        ("equal stylegan2", equality, ("stylegan2", steps)),
        ("speed stylegan2", speed, ("stylegan2 speed", end)),
        ("speed dcgan", speed, ("dcgan", end)),
        ("equal dcgan ada", equality, ("dcgan ada", steps)),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for name, job, arguments in jobs:
            if time.monotonic() > end:
                found[name] = "not begun: no time left"
                continue
            start = time.monotonic()
            try:
                found[name] = job(*arguments, options.device, Path(scratch) / name)
                good &= not name.startswith("equal") or found[name]["graphs against eager"]["differ"] == 0
            except Exception as error:
                traceback.print_exc()
                found[name], good = {"error": f"{type(error).__name__}: {error}"[:2000]}, False
            print(f"{name} ({time.monotonic() - start:.1f} s): {json.dumps(found[name], indent=1)}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
