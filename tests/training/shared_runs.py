"""Runs whose results do not depend on how many processes share them. By itself this file is what torchrun starts:

torchrun --nproc-per-node N tests/training/shared_runs.py DATA OUT
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from fastgan import losses, recipes
from fastgan.data import PairDataset, load
from fastgan.losses.adversarial import Adversarial
from fastgan.models.cyclegan import BatchAct
from fastgan.training import RunConfig, Trainer
from fastgan.training.batch_norm import synchronise
from fastgan.training.distributed import World, join
from fastgan.training.log import read_metrics
from fastgan.training.state import pack

IMAGES = 8  # per step, over all processes
# The published names stand for what they need: nothing more; R1 and R2 with ada's running statistics; a penalty at random
# points and batch normalisation in G; a minibatch standard deviation and statistics of the whole batch in the loss; spectral
# norms, whose vectors move with each pass. "-averaging": a user's loss with means over the batch;
# of translators one step, as a ReLU within rounding of 0 would be open on one side in the next.
RUNS = {
    "dcgan": ({"width": 4, "max_width": 8, "steps": 11, "penalty_interval": 1}, {}),
    "dcgan-ada": ({"width": 4, "max_width": 8, "augment": "ada", "penalty_interval": 1}, {}),
    "dcgan-accumulated": ({"width": 4, "max_width": 8, "steps": 11, "penalty_interval": 1}, {"grad_accum": 2}),
    "wgan-gp": ({"width": 4, "critic_steps": 2}, {}),
    "gan": ({"units": (8, 6), "stddev_group": 2}, {}),
    "sngan": ({"width": 4, "d_steps": 1}, {}),
    "gan-averaging": ({"units": (8, 6)}, {}),
    "realesrgan-averaging": ({"width": 4, "blocks": 1, "disc_width": 4, "warmup": 0, "perceptual": 0.0}, {}),
    "cyclegan-averaging": ({"width": 4, "blocks": 1, "layers": 1, "pool": 0, "steps": 1}, {}),
    "pix2pix-averaging": ({"width": 4, "layers": 1, "norm": "instance", "steps": 1}, {}),
}

AVERAGING = Adversarial(
    "averaging",
    "D: (r - 2 E f - 1)^2 + (f - 3 E r + 1)^2; G: (f - 2 E f)^2",
    lambda r, f: (r - 2 * f.mean(0) - 1).square() + (f - 3 * r.mean(0) + 1).square(),
    lambda r, f: (f - 2 * f.mean(0)).square(),
    averaging=True,
)


def train(data: str, out: Path, name: str, world: int, **run) -> dict:
    """One run; returns what it ended with, the labels this process saw, and how often it reduced."""
    options, more = RUNS[name]
    recipe = recipes.get(name if name in recipes.RECIPES else name.partition("-")[0])
    if name.endswith("-averaging"):
        losses.register("averaging", AVERAGING)
        options = options | {"loss": "averaging"}
    reduced, seen, reduce = [], [], dist.all_reduce

    class Watched(recipe):
        def __init__(self, *given):
            super().__init__(*given)
            # Adam makes a whole step of a gradient that is 0 but for rounding, as that of a bias that cancels in the loss.
            self.optimizers = {
                key: torch.optim.SGD([p for g in optimizer.param_groups for p in g["params"]], lr=1e-3, momentum=0.5)
                for key, optimizer in self.optimizers.items()
            }
            for network in self.networks.values():
                for module in network.modules():
                    if isinstance(module, nn.Dropout):  # each process draws its own
                        module.p = 0.0

        def updates(self, step):
            reduced.append(0)
            return super().updates(step)

        def d_step(self, batch):
            seen.append(batch.labels)
            return super().d_step(batch)

    def count(tensor, *args, **named):
        reduced[-1] += 1
        return reduce(tensor, *args, **named)

    options = {"steps": 3, **({"latent": 6} if hasattr(recipe.Config, "latent") else {}), **options}
    config = recipe.Config(**options, batch_size=IMAGES // world)
    settings = RunConfig(out=str(out), device="cpu", samples=2, log_every=1, **more, **run)
    images = load(data)
    dataset = (
        PairDataset(images, images.subset(torch.arange(len(images)).flip(0)), paired=True) if recipe.pairs else images
    )
    trainer = Trainer(Watched, config, settings, dataset=dataset)
    dist.all_reduce = count
    try:
        trainer.train()
    finally:
        dist.all_reduce = reduce
    trainer.world.barrier()  # until rank 0 has written
    tensors = pack(trainer.recipe, trainer.ema, {})[0]
    first = read_metrics(out / "metrics.jsonl")[0]
    return {
        "tensors": tensors,
        "labels": torch.stack(seen),
        "reduced": reduced,
        "updates": trainer.update,
        "first": first,
    }


def normalise(world: World) -> dict:
    """Values, gradients and gradients of gradients of batch normalisation; rows in turn over processes."""
    torch.manual_seed(0)
    found = {}
    for norm in (nn.BatchNorm1d(3), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False), BatchAct(3)):
        x = torch.randn(8, 3, *[2] * (2 * ("1d" not in type(norm).__name__)), dtype=torch.float64) * 3 + 5
        network = nn.Sequential(norm.double(), nn.Tanh())
        if world.size > 1:
            synchronise(network, world)
        x = x[world.rank :: world.size].requires_grad_()
        y = network(x)
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        parameters = list(network.parameters())
        second = torch.autograd.grad((first.square() + y.square()).sum(), [x, *parameters])
        weights = list(second[1:])
        world.average(weights, [x.new_zeros(())])
        found[len(found)] = {
            "rows": torch.stack([y, first, second[0]]).detach(),
            "weights": [w * world.size for w in weights],
            "buffers": [b.clone() for b in network.buffers()],
            "eval": network.eval()(x).detach(),
            "names": list(network.state_dict()),
        }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, out = sys.argv[1], Path(sys.argv[2])
    world = join("cpu")
    chosen = sys.argv[3:] or RUNS
    found = {name: train(data, out / name, name, world.size) for name in chosen}
    found["normalise"] = normalise(world)
    torch.save(found, out / f"{world.rank}.pt")
    world.close()
