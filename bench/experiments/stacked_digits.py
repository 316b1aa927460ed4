"""Stacked digits, R3GAN's ablation of the loss: `python bench/experiments/stacked_digits.py` (one CPU thread, minutes).

Three handwritten digits, one per colour channel, make 1,000 modes (Metz et al., 2017; Lin et al., 2018). The digits are the
1,797 of 8x8 pixels that scikit-learn ships (extra `bench`), since MNIST is in no package; the networks are a few convolutions.
So published figures (28x28 MNIST, Huang et al., 2024, table 1) stand beside ours for their order, not their height. 26,000
samples are judged; a channel is the digit of its nearest neighbour among the data (98.8% right, each left out in turn).
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from torch import nn

from fastgan.losses import adversarial, penalty
from fastgan.metrics.modes import Modes, histogram_modes
from fastgan.training.batch import derive_seed

RESULTS = Path(__file__).resolve().parent / "results"
# adversarial loss, gamma of R1, gamma of R2, published modes and KL
METHODS = {
    "RpGAN+R1+R2": ("rpgan", 1.0, 1.0, "1000, 0.078"),
    "GAN+R1+R2": ("non_saturating", 1.0, 1.0, "693, 0.927"),
    "RpGAN+R1": ("rpgan", 1.0, 0.0, "fails"),
    "GAN": ("non_saturating", 0.0, 0.0, ""),
}
BATCH, LATENT, WIDTH, LR, BETAS, EMA = 64, 64, 16, 1e-3, (0.0, 0.99), 0.999
SAMPLES = 26_000
HEAD = """# Stacked digits

`python bench/experiments/stacked_digits.py`: three 8x8 digits of scikit-learn's in three channels, 1,000 modes; {steps} steps of
{batch}, {seeds} seeds; mean, in brackets the worst; {samples} samples. Published: Huang et al. 2024, table 1, on 28x28 MNIST with
larger networks. The settings are one guess, the same for every row, tuned for none.

| loss | modes of 1,000 | reverse KL | published modes, KL |
|---|---|---|---|
"""


def load() -> tuple[torch.Tensor, torch.Tensor]:
    """The digits, float32 [1797, 64] in [-1, 1], and what they are, int64 [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("stacked_digits.py needs scikit-learn for its data: pip install 'fastgan[bench]'") from None
    digits = load_digits()
    return torch.tensor(digits.data / 8 - 1, dtype=torch.float32), torch.tensor(digits.target)


def classify(channels: torch.Tensor, digits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.cat([labels[torch.cdist(part, digits).argmin(1)] for part in channels.split(4096)])


def generator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 4 * WIDTH * 16),
        nn.Unflatten(1, (4 * WIDTH, 4, 4)),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * WIDTH, 4 * WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4 * WIDTH, 2 * WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * WIDTH, 3, 3, padding=1),
    )


def discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 2 * WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * WIDTH, 4 * WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * WIDTH, 4 * WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(4 * WIDTH * 16, 1),
        nn.Flatten(0),
    )


def train(method: str, seed: int, steps: int, digits: torch.Tensor, labels: torch.Tensor) -> Modes:
    loss, r1, r2, _ = METHODS[method]
    loss = getattr(adversarial, loss)
    torch.manual_seed(derive_seed("stacked", seed))
    g, d = generator(), discriminator()
    average = copy.deepcopy(g).requires_grad_(False)
    g_adam, d_adam = (torch.optim.Adam(network.parameters(), LR, BETAS) for network in (g, d))
    for step in range(steps):
        for adam in (g_adam, d_adam):
            adam.param_groups[0]["lr"] = LR * min(1.0, 2 * (1 - step / steps))
        real = digits[torch.randint(len(digits), (BATCH, 3))].view(BATCH, 3, 8, 8)
        with torch.no_grad():
            fake = g(torch.randn(BATCH, LATENT))
        real.requires_grad_(r1 > 0), fake.requires_grad_(r2 > 0)
        real_logits, fake_logits = d(real), d(fake)
        total = loss.d_loss(real_logits, fake_logits).mean()
        if r1:
            total = total + penalty.r1(real_logits, real, gamma=r1).mean()
        if r2:
            total = total + penalty.r1(fake_logits, fake, gamma=r2).mean()
        d_adam.zero_grad()
        total.backward()
        d_adam.step()
        d.requires_grad_(False)
        real_logits = d(real.detach()) if loss.relativistic else None
        g_adam.zero_grad()
        loss.g_loss(real_logits, d(g(torch.randn(BATCH, LATENT)))).mean().backward()
        g_adam.step()
        d.requires_grad_(True)
        torch._foreach_lerp_(list(average.parameters()), list(g.parameters()), 1 - min(EMA, step / (step + 10)))
    with torch.no_grad():
        channels = torch.cat([average(torch.randn(1000, LATENT)) for _ in range(SAMPLES // 1000)]).reshape(-1, 64)
    a, b, c = classify(channels, digits, labels).view(-1, 3).mT
    return histogram_modes(torch.bincount(100 * a + 10 * b + c, minlength=1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("runs/stacked-digits.jsonl"), help="finished runs, a line each"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    digits, labels = load()
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(row["method"], row["seed"], row["steps"]): row for row in rows}
    for method in METHODS:
        for seed in range(args.seeds):
            key = (method, seed, args.steps)
            if key not in done:
                began = time.process_time()
                found = train(*key, digits, labels)
                done[key] = dict(zip(("method", "seed", "steps"), key, strict=True))
                done[key] |= {"modes": found.covered, "kl": found.reverse_kl, "seconds": time.process_time() - began}
                with args.out.open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
                print(done[key], flush=True)
    page = HEAD.format(steps=args.steps, batch=BATCH, seeds=args.seeds, samples=f"{SAMPLES:,}")
    for method, (*_, published) in METHODS.items():
        found = [done[method, seed, args.steps] for seed in range(args.seeds)]
        modes, kls = [row["modes"] for row in found], [row["kl"] for row in found]
        mean = sum(modes) / len(modes), sum(kls) / len(kls)
        page += f"| {method} | {mean[0]:.0f} ({min(modes)}) | {mean[1]:.3f} ({max(kls):.3f}) | {published} |\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "stacked_digits.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
