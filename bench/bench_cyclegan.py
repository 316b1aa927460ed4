"""CycleGAN: the ResNet-9 generator at 256 px, and a whole training step at 128 px against a plain one in torch alone.

The plain step is written from the paper's equations (Zhu et al., 2017, section 3): each term calls its generator, and each
discriminator's loss its discriminator, on the same networks with torch's own operations.

Floor of the generator: 99 GFLOP of convolutions, 438 ms at the 226 GFLOP/s of oneDNN's direct kernels on two AVX-512 cores (the
peak of their FMA units is 232). The 18 of 3x3, 87 GFLOP, take 2.25 times fewer products by `conv3x3`: together 220 ms. Measured
there: 589 ms in eager mode, 505 by torch.compile, 317 here; the step 2126 and 1456 ms, its memory 1418 and 1336 MiB.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models import cyclegan
from fastgan.models.cycle import CycleGAN, Pool

LAMBDA, IDENTITY, SIZE = 10.0, 0.5, 128


class Normalised(nn.Module):
    """Instance normalisation where there is one, the activation, the sum: three operations."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.normalises, self.act = isinstance(layer, cyclegan.InstanceAct), layer.act

    def forward(self, x, residual=None):
        x = F.instance_norm(x) if self.normalises else x
        x = {"relu": F.relu, "lrelu": lambda t: F.leaky_relu(t, 0.2), "linear": lambda t: t}[self.act](x)
        return x if residual is None else residual + x


def plain(network: nn.Module) -> nn.Module:
    """A copy of the network with torch's own operations."""
    made = copy.deepcopy(network)
    for parent in list(made.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, cyclegan.InstanceAct | cyclegan.Act):
                setattr(parent, name, Normalised(child))
            elif isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
                child.__class__ = nn.Conv2d if isinstance(child, nn.Conv2d) else nn.ConvTranspose2d
            elif isinstance(child, nn.ReflectionPad2d):
                child.__class__ = nn.ReflectionPad2d
    return made


def generator(width: int, blocks: int) -> nn.Module:
    torch.manual_seed(0)
    return cyclegan.Generator(cyclegan.GeneratorConfig(width=width, blocks=blocks))


def networks(width: int, blocks: int = 6) -> list[nn.Module]:
    judge = cyclegan.DiscriminatorConfig(width=width)
    first = generator(width, blocks)
    return [first, cyclegan.Generator(cyclegan.GeneratorConfig(width=width, blocks=blocks))] + [
        cyclegan.Discriminator(judge) for _ in range(2)
    ]


class Step:
    """One training step, batch 1: generators, then discriminators from the pool; returns both losses."""

    def __init__(self, ab, ba, a, b, size: int):
        self.ab, self.ba, self.a, self.b = ab, ba, a, b
        adam = dict(lr=2e-4, betas=(0.5, 0.999))
        self.g_optimizer = torch.optim.Adam([*ab.parameters(), *ba.parameters()], **adam)
        self.d_optimizer = torch.optim.Adam([*a.parameters(), *b.parameters()], **adam)
        self.pools = [Pool(50, (3, size, size)) for _ in range(2)]
        random = torch.Generator().manual_seed(1)
        self.images = [torch.rand(1, 3, size, size, generator=random) * 2 - 1 for _ in range(2)]
        self.choice = torch.rand(2, 1, 2, generator=random)

    def pooled(self, fakes):
        return [pool(fake, choice) for pool, fake, choice in zip(self.pools, fakes, self.choice, strict=True)]

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.g_optimizer.zero_grad()
        g_loss, fakes = self.generators()
        g_loss.backward()
        self.g_optimizer.step()
        self.d_optimizer.zero_grad()
        d_loss = self.discriminators(*self.pooled(fakes))
        d_loss.backward()
        self.d_optimizer.step()
        return g_loss.detach(), d_loss.detach()


class Plain(Step):
    def generators(self):
        a, b = self.images
        fake_b, fake_a = self.ab(a), self.ba(b)
        loss = ((self.b(fake_b) - 1) ** 2).mean() + ((self.a(fake_a) - 1) ** 2).mean()
        loss = loss + LAMBDA * (F.l1_loss(self.ba(fake_b), a) + F.l1_loss(self.ab(fake_a), b))
        loss = loss + IDENTITY * LAMBDA * (F.l1_loss(self.ab(b), b) + F.l1_loss(self.ba(a), a))
        return loss, (fake_a.detach(), fake_b.detach())

    def discriminators(self, fake_a, fake_b):
        loss = 0.0
        for judge, real, fake in ((self.a, self.images[0], fake_a), (self.b, self.images[1], fake_b)):
            loss = loss + 0.5 * (((judge(real) - 1) ** 2).mean() + (judge(fake) ** 2).mean())
        return loss


class Fast(Step):
    def __init__(self, *networks_and_size):
        super().__init__(*networks_and_size)
        self.cycle = CycleGAN(self.ab, self.ba, self.a, self.b)

    def generators(self):
        for parameter in self.cycle.a.parameters():
            parameter.requires_grad_(False)
        for parameter in self.cycle.b.parameters():
            parameter.requires_grad_(False)
        a, b = self.images
        out = self.cycle(a, b)
        return self.cycle.generator_loss(a, b, out)["loss"], (out.fake_a.detach(), out.fake_b.detach())

    def discriminators(self, fake_a, fake_b):
        for parameter in [*self.cycle.a.parameters(), *self.cycle.b.parameters()]:
            parameter.requires_grad_(True)
        return self.cycle.discriminator_loss(*self.images, fake_a, fake_b)["loss"]


def make(kind: str, width: int = 64, size: int = SIZE) -> Step:
    made = networks(width)
    return Fast(*made, size) if kind == "fastgan" else Plain(*map(plain, made), size)


def bench_generator(compare, benchmark):
    width, blocks, size = (8, 2, 64) if benchmark.disabled else (64, 9, 256)
    ours = generator(width, blocks).eval()
    x = torch.rand(1, 3, size, size) * 2 - 1

    def step(f):
        with torch.no_grad():
            return f(x)

    compare(f"ResNet-{blocks} generator {size} px, batch 1, inference", step, reference=plain(ours), fastgan=ours)


def bench_step(compare, benchmark):
    width, size = (8, 64) if benchmark.disabled else (64, SIZE)
    compare(
        f"CycleGAN step {size} px, batch 1: two G, two D, pool, identity",
        lambda f: f(),
        reference=make("reference", width, size),
        fastgan=make("fastgan", width, size),
        compiled=False,
        tolerance=1e-5,
    )


def peak(kind: str) -> float:
    """Most memory, in MiB, of a process of its own that makes three steps.

    Every buffer of 256 KiB or more is mapped by itself, so that this is memory in use: the holes in glibc's heap make the
    plain process 1540 to 1570 MiB, and this one 1510 to 1610, from run to run.
    """
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def bench_step_memory(benchmark, request):
    if benchmark.disabled:
        pytest.skip("memory is measured in processes of their own, at full size")
    found = {}
    benchmark.pedantic(lambda: found.update({kind: peak(kind) for kind in ("reference", "fastgan")}), rounds=1)
    benchmark.extra_info["peak_mib"] = found
    print(f"\nCycleGAN step {SIZE} px, peak memory of the process: {found} MiB")
    assert found["fastgan"] <= found["reference"], found


if __name__ == "__main__":
    torch.set_num_threads(2)
    step = make(sys.argv[1])
    for _ in range(3):
        step()
    # Not getrusage's, which a new process inherits from the one that started it.
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
