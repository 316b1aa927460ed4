"""Runs with the generator whole and split over processes. torchrun starts this file:

torchrun --nproc-per-node N tests/training/sharded_runs.py DATA OUT
"""

import shutil
import sys
from pathlib import Path

import torch

from fastgan import recipes
from fastgan.data import load
from fastgan.data.pairs import PairDataset
from fastgan.metrics.processes import gather, share
from fastgan.training import RunConfig, Trainer
from fastgan.training.distributed import World, join
from fastgan.training.shard import is_shard, local

# What each stands for: scalars that stay whole, mapping and synthesis called by themselves, buffers moved in passes;
# uneven parts, gradients in pieces; batch normalisation; autocast; two generators, each called twice before backward.
RUNS = {
    "stylegan2": ({"width": 4, "max_width": 8, "latent": 8, "path_weight": 0.0, "augment": "none"}, {}),
    "dcgan": ({"width": 3, "max_width": 7, "latent": 6}, {"grad_accum": 2}),
    "wgan-gp": ({"width": 4, "critic_steps": 2, "latent": 6}, {"metrics_every": 4, "metrics_samples": 5}),
    "r3gan": ({"width": 4, "max_width": 8, "group_width": 4, "latent": 6}, {"precision": "bf16"}),
    "cyclegan": ({"width": 2, "blocks": 2}, {}),
}
RESUMED = ("stylegan2", "dcgan")


def train(data: str, out: Path, name: str, **run) -> Trainer:
    options, more = RUNS[name]
    recipe, images = recipes.get(name), load(data)

    class Rounded(recipe):
        """Adam makes a whole step of a gradient that is 0 but for rounding, and pieces are summed in another order."""

        def __init__(self, *given):
            super().__init__(*given)
            for key, optimizer in self.optimizers.items():
                self.optimizers[key] = torch.optim.SGD(optimizer.param_groups[0]["params"], lr=1e-3, momentum=0.5)

    class Measured(recipe):
        def evaluate(self, networks, run, count):
            """A figure of samples that are made one by one, by one process more than by the other."""
            mine = [self.sample(networks, [seed]) for seed in share(torch.arange(count)).tolist()]
            return {self.name: {"energy": float(gather(torch.cat(mine)).square().mean())}}

    recipe = Rounded if "grad_accum" in more else Measured
    config = recipe.Config(steps=4, batch_size=4, **options)
    settings = RunConfig(
        data=data, out=str(out), device="cpu", samples=3, log_every=1, checkpoint_every=2, **more, **run
    )
    dataset = PairDataset(images, images, paired=False) if name == "cyclegan" else images
    trainer = Trainer(recipe, config, settings, dataset=dataset)
    trainer.train()
    return trainer


def held(tensors: list[torch.Tensor]) -> tuple[int, int]:
    """(bytes this process keeps for `tensors`, bytes of them whole)."""
    storages = {s.data_ptr(): s.nbytes() for s in (local(t).untyped_storage() for t in tensors)}
    return sum(storages.values()), sum(t.numel() * t.element_size() for t in tensors)


def measure(trainer: Trainer) -> dict:
    generator, average = trainer.recipe.generator, trainer.ema.networks["generator"]
    parameters = list(generator.parameters())
    states = trainer.recipe.optimizers["generator"].state.values()
    return {
        "whole": [name for name, p in generator.named_parameters() if not is_shard(p)],
        "parameters": held(parameters),
        "average": held(list(average.parameters())),
        "gradients": held([p.grad for p in parameters if p.grad is not None]),
        "optimizer": held([value for state in states for value in state.values() if value.dim()]),
    }


def resume(world: World, data: str, start: Path, out: Path, name: str, split: bool) -> None:
    """From the middle of run `start` to the end."""
    if world.main:
        shutil.copytree(start, out)
        shutil.rmtree(out / "checkpoints/step-00000004")
    world.barrier()
    train(data, out, name, shard_generator=split, resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, out = sys.argv[1], Path(sys.argv[2])
    world, found = join("cpu"), {}
    for name in RUNS:
        train(data, out / "plain" / name, name)
        trainer = train(data, out / "split" / name, name, shard_generator=True)
        found[name] = measure(trainer) if name != "cyclegan" else {}
        if name in RESUMED:
            resume(world, data, out / "plain" / name, out / "plain-split" / name, name, split=True)
            resume(world, data, out / "split" / name, out / "split-plain" / name, name, split=False)
    torch.save(found, out / f"{world.rank}.pt")
    world.close()
