"""What each process of tests/metrics/test_processes.py does, in a module that a spawned process finds, whatever other package
calls itself `tests`."""

import torch
import torch.distributed as dist
from torch import nn

from fastgan.metrics import images, processes
from fastgan.recipes import Recipe, RecipeConfig


class Pixels(nn.Module):
    """The pixels themselves as features."""

    name, dim, resolution = "pixels", 12, 2

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.flatten(1).float()

    def logits(self, features):
        return features[:, :4]


def pictures(n=101):
    return torch.randint(0, 256, (n, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Drawn(Recipe):
    """Draws grey pictures, or texts, whose shade is the seed."""

    texts = False

    def sample(self, networks, seeds):
        assert seeds
        return (
            [f"{seed}" for seed in seeds]
            if self.texts
            else torch.tensor(seeds).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 9
        )

    @classmethod
    def made(cls, count, texts=False):
        """(samples, rows of features or None) of `count` seeds."""
        recipe = cls(RecipeConfig(), {"name": "drawn"})
        recipe.texts = texts
        networks = {"generator": nn.Linear(1, 1)}
        facts = recipe.provided(networks, {}, count)
        images.load_extractor = lambda *given: Pixels()
        found = images.provided(recipe, networks, facts["data"], count, "efflite0", None)[0]
        return facts["samples"](), None if texts else found["fake"]().rows


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    flags = [processes.everywhere(True), processes.everywhere(rank == 0)]
    found = images.collect(Pixels(), processes.share(pictures()).split(7), keep=80)
    drawn = [Drawn.made(count, texts) for count in (1, 2, 5) for texts in (False, True)]
    torch.save(drawn, f"{folder}/drawn{rank}.pt")
    torch.save((flags, found.rows, found.statistics.mean, found.statistics.covariance), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
