"""Two-dimensional mixtures, ten seeds at once: `python bench/experiments/toy2d.py` (one CPU thread; may be killed and
repeated at will: it goes on from its last checkpoint).

The ring, the grid and how they are judged are PacGAN's (Lin et al., 2018, section 4.1; after Srivastava et al., 2017):
8 Gaussians of deviation 0.01 on the unit circle, 25 of deviation 0.05 at spacing 2; 2,500 samples, each of high quality
within 3 deviations of a mode, which is covered if at least one of them falls on it. Networks and optimisers are ours and
the same for every method: see `Settings`. The Swiss roll has no modes: there, high quality is within 3 deviations of the
curve, and what is covered are 100 pieces of it.

All seeds of a method train together as one batched network: every seed has its own weights, data and draws, and Adam
moves each weight by its own history, so each is a run of its own. The table and the figure are written to
bench/experiments/results/ when all is measured, or with --report from what there is.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from toy2d_report import write

from fastgan.losses import adversarial, penalty
from fastgan.metrics.modes import Modes, gaussian_modes, histogram_modes
from fastgan.training.batch import derive_seed

HERE = Path(__file__).resolve().parent
SAMPLES = 2500
CHECKS = 40  # measurements, and checkpoints, along a run


@dataclass(frozen=True)
class Data:
    """`draw(n, generator)` -> float32 [n, 2]; `measure(samples [n, 2])` -> Modes; `deviation` of a coordinate, by which the
    networks' data are divided; `steps`: length of a run."""

    draw: Callable[[int, torch.Generator], torch.Tensor]
    measure: Callable[[torch.Tensor], Modes]
    deviation: float
    steps: int


def mixture(centres: torch.Tensor, std: float, steps: int) -> Data:
    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        chosen = centres[torch.randint(len(centres), (n,), generator=generator)]
        return chosen + std * torch.randn(n, 2, generator=generator)

    return Data(draw, lambda samples: gaussian_modes(samples, centres, std), float(centres.std(correction=0)), steps)


def swiss_roll(steps: int, std: float = 1 / 30, pieces: int = 100) -> Data:
    """The plane curve t (cos t, sin t) / 7.5, t uniform on [1.5 pi, 4.5 pi], with normal noise (as in Gulrajani et al.
    2017, figure 1, where nothing is counted)."""

    def curve(u: torch.Tensor) -> torch.Tensor:
        t = 1.5 * math.pi * (1 + 2 * u)
        return torch.stack([t * t.cos(), t * t.sin()], -1) / 7.5

    fine = curve(torch.linspace(0, 1, 50 * pieces))

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        return curve(torch.rand(n, generator=generator)) + std * torch.randn(n, 2, generator=generator)

    def measure(samples: torch.Tensor) -> Modes:
        distance, nearest = torch.cdist(samples, fine).min(1)
        good = distance <= 3 * std
        found = histogram_modes(torch.bincount(nearest[good] // 50, minlength=pieces))
        return found._replace(high_quality=float(good.double().mean()))

    return Data(draw, measure, float(fine.std(0).mean()), steps)


def ring(steps: int) -> Data:
    angle = torch.arange(8) * (math.pi / 4)
    return mixture(torch.stack([angle.cos(), angle.sin()], 1), 0.01, steps)


def grid(steps: int) -> Data:
    line = torch.arange(-4.0, 5, 2)
    return mixture(torch.cartesian_prod(line, line), 0.05, steps)


DATA = {"grid": grid(7_000), "ring": ring(7_000), "swiss-roll": swiss_roll(3_000)}
METHODS = {"GAN": ("non_saturating", False), "RpGAN+R1+R2": ("rpgan", True)}  # adversarial loss, penalties


@dataclass(frozen=True)
class Settings:
    """What all methods share. Both networks see their input x as (x, sin Bx, cos Bx), B normal (Tancik et al. 2020): the
    edges between modes are sharp, and perceptrons of coordinates alone learn those slowly. `coins` of the latents are +1 or
    -1, the rest is normal: a continuous map of normal latents alone cannot have separate modes, and laid 16% of its
    samples between them."""

    batch: int = 512
    width: int = 64
    hidden: int = 3
    latent: int = 8
    coins: int = 6
    features: int = 32
    frequencies: tuple[float, float] = (0.3, 4.0)  # deviation of B in the generator and in the discriminator
    lr: float = 1.5e-3
    betas: tuple[float, float] = (0.0, 0.95)
    ema: float = 0.995
    gamma: tuple[float, float] = (2e-2, 1e-4)  # of R1 and R2, from the first step to the last, geometrically


class MLPs(nn.Module):
    """A perceptron per seed, leaky ReLU between layers, on Fourier features: [S, B, inputs] -> [S, B, outputs]."""

    def __init__(
        self, inputs: int, outputs: int, frequency: float, settings: Settings, generators: list[torch.Generator]
    ):
        super().__init__()
        sizes = [inputs + 2 * settings.features, *[settings.width] * settings.hidden, outputs]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        draws = [torch.randn(inputs, settings.features, generator=g) for g in generators]
        self.register_buffer("frequencies", frequency * torch.stack(draws))
        for i, o in itertools.pairwise(sizes):
            draws = torch.stack([torch.randn(i, o, generator=g) for g in generators])
            self.weights.append(nn.Parameter(draws * (2 / i) ** 0.5))
            self.biases.append(nn.Parameter(torch.zeros(len(generators), 1, o)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angle = torch.bmm(x, self.frequencies)
        x = torch.cat([x, angle.sin(), angle.cos()], 2)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(b, F.leaky_relu(x, 0.2) if i else x, w)
        return x


class Run:
    """All seeds of one method on one data set."""

    def __init__(self, data: Data, loss: str, penalties: bool, seeds: int, settings: Settings):
        self.data, self.settings, self.penalties = data, settings, penalties
        self.loss = getattr(adversarial, loss)
        self.generators = [torch.Generator().manual_seed(derive_seed("toy2d", seed)) for seed in range(seeds)]
        self.generator = MLPs(settings.latent, 2, settings.frequencies[0], settings, self.generators)
        self.discriminator = MLPs(2, 1, settings.frequencies[1], settings, self.generators)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        networks = (self.generator, self.discriminator)
        self.optimizers = [torch.optim.Adam(n.parameters(), settings.lr, settings.betas) for n in networks]
        self.step, self.history, self.seconds = 0, [], 0.0

    def _each(self, draw: Callable[[torch.Generator], torch.Tensor]) -> torch.Tensor:
        return torch.stack([draw(g) for g in self.generators])

    def _latents(self, count: int, generators: list[torch.Generator]) -> torch.Tensor:
        z = torch.stack([torch.randn(count, self.settings.latent, generator=g) for g in generators])
        z[..., : self.settings.coins].sign_()
        return z

    def _fake(self) -> torch.Tensor:
        return self.generator(self._latents(self.settings.batch, self.generators)).flatten(0, 1)

    def _logits(self, points: torch.Tensor) -> torch.Tensor:
        """[S * B, 2] -> [S * B]"""
        return self.discriminator(points.unflatten(0, (len(self.generators), -1))).flatten()

    def train_step(self) -> None:
        s, progress = self.settings, self.step / self.data.steps
        for optimizer in self.optimizers:
            # Constant for the first half, then down to 0: what remains is the equilibrium, not the step size's noise.
            optimizer.param_groups[0]["lr"] = s.lr * min(1.0, 2 * (1 - progress))
        real = self._each(lambda g: self.data.draw(s.batch, g) / self.data.deviation).flatten(0, 1)
        with torch.no_grad():
            fake = self._fake()
        points = [x.requires_grad_(self.penalties) for x in (real, fake)]
        logits = [self._logits(x) for x in points]
        loss = self.loss.d_loss(*logits)
        if self.penalties:
            gamma = s.gamma[0] * (s.gamma[1] / s.gamma[0]) ** progress
            loss = loss + sum(penalty.r1_r2(logits[0], points[0], logits[1], points[1], gamma=gamma))
        self._apply(1, loss)
        self.discriminator.requires_grad_(False)
        real_logits = self._logits(real.detach()) if self.loss.relativistic else None
        self._apply(0, self.loss.g_loss(real_logits, self._logits(self._fake())))
        self.discriminator.requires_grad_(True)
        self.step += 1
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - s.ema)

    def _apply(self, which: int, loss: torch.Tensor) -> None:
        self.optimizers[which].zero_grad(set_to_none=True)
        # A mean over the batch for each seed, summed over the seeds: no seed's gradient sees another's loss.
        (loss.sum() / self.settings.batch).backward()
        self.optimizers[which].step()

    @torch.no_grad()
    def samples(self) -> torch.Tensor:
        """[S, SAMPLES, 2] of the averaged generators, from the same latents at every measurement."""
        draws = [torch.Generator().manual_seed(derive_seed("latents", i)) for i in range(len(self.generators))]
        return self.average(self._latents(SAMPLES, draws)) * self.data.deviation

    def train(self, path: Path) -> None:
        """To the end, from `path` if it exists; measured and saved there CHECKS times."""
        if path.exists():
            self.restore(path)
        every = self.data.steps // CHECKS
        while self.step < self.data.steps:
            began = time.process_time()
            for _ in range(every):
                self.train_step()
            self.seconds += time.process_time() - began
            found = [self.data.measure(samples) for samples in self.samples()]
            self.history.append((self.step, [(m.covered, m.high_quality, m.reverse_kl) for m in found]))
            modes, good = zip(*((m.covered, m.high_quality) for m in found), strict=True)
            line = f"modes {min(modes)} to {max(modes)} of {found[0].total}, high quality {min(good):.3f} to {max(good):.3f}"
            print(f"{path.stem} {self.step}/{self.data.steps}: {line}, {self.seconds:.0f} s", flush=True)
            partial = path.with_suffix(".partial")
            torch.save(self._state(), partial)
            os.replace(partial, path)

    def _parts(self) -> tuple:
        return (self.generator, self.discriminator, self.average, *self.optimizers)

    def _state(self) -> dict:
        parts, generators = [p.state_dict() for p in self._parts()], [g.get_state() for g in self.generators]
        counters = {"step": self.step, "history": self.history, "seconds": self.seconds}
        return {**counters, "parts": parts, "generators": generators}

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step, self.history, self.seconds = (state[name] for name in ("step", "history", "seconds"))
        for part, saved in zip(self._parts(), state["parts"], strict=True):
            part.load_state_dict(saved)
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/toy2d"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="", help="train only what begins with this, such as grid or ring/GAN")
    parser.add_argument("--report", action="store_true", help="write the report from what is measured, train nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the matrices are smaller than a thread team's start
    runs = {}
    for data, (method, (loss, penalties)) in itertools.product(DATA, METHODS.items()):
        run, path = Run(DATA[data], loss, penalties, args.seeds, Settings()), args.out / f"{data}-{method}.pt"
        if not args.report and f"{data}/{method}".startswith(args.only):
            run.train(path)
        elif path.exists():
            run.restore(path)
        if run.history:
            runs[data, method] = run
    write(runs, HERE / "results", Settings())


if __name__ == "__main__":
    main()
