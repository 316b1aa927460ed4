"""accelerate() on networks that know nothing of fastgan: DCGAN (Radford et al., 2016) and CycleGAN's ResNet generator.

Plain torch modules as everybody writes them: in evaluation mode without gradients, and in training mode with gradients of all
weights. Of the discriminator `accelerate` changes nothing: it is 4x4 convolutions of stride 2 without bias, and its activations
work in place already.
"""

import copy

import pytest
import torch
from torch import nn

from fastgan import accelerate


def dcgan_generator(width: int = 64) -> nn.Module:
    layers = [nn.ConvTranspose2d(100, 8 * width, 4, bias=False), nn.BatchNorm2d(8 * width), nn.ReLU(True)]
    for inputs in (8 * width, 4 * width, 2 * width):
        outputs = inputs // 2
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_discriminator(width: int = 64) -> nn.Module:
    layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for inputs in (width, 2 * width, 4 * width):
        conv = nn.Conv2d(inputs, 2 * inputs, 4, 2, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(2 * inputs), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, bias=False), nn.Sigmoid())


class ResnetBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        first, second = (
            [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)] for _ in "12"
        )
        self.conv_block = nn.Sequential(*first, nn.ReLU(True), *second)

    def forward(self, x):
        return x + self.conv_block(x)


def cyclegan_generator(width: int = 64, blocks: int = 9) -> nn.Module:
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
    for inputs in (width, 2 * width):
        layers += [nn.Conv2d(inputs, 2 * inputs, 3, 2, 1), nn.InstanceNorm2d(2 * inputs), nn.ReLU(True)]
    layers += [ResnetBlock(4 * width) for _ in range(blocks)]
    for inputs in (4 * width, 2 * width):
        outputs = inputs // 2
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1),
            nn.InstanceNorm2d(outputs),
            nn.ReLU(True),
        ]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


NETWORKS = {
    "DCGAN generator 64 px": (dcgan_generator, (100, 1, 1), (1, 8, 64)),
    "DCGAN discriminator 64 px": (dcgan_discriminator, (3, 64, 64), (1, 8, 64)),
    "CycleGAN ResNet-9 generator 128 px": (cyclegan_generator, (3, 128, 128), (1, 4)),
}
CASES = [(name, batch) for name, (_, _, batches) in NETWORKS.items() for batch in batches]


def pair(
    name: str, batch: int, device: torch.device, training: bool = False
) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """The network, its accelerated copy, and an input."""
    torch.manual_seed(0)
    build, shape, _ = NETWORKS[name]
    network = build().to(device).train(training)
    twin = copy.deepcopy(network)
    accelerate(twin)
    return network, twin, torch.randn(batch, *shape, device=device)


@pytest.mark.parametrize(("name", "batch"), CASES)
def bench_inference(compare, device, name, batch):
    network, twin, x = pair(name, batch, device)
    with torch.no_grad():
        compare(f"{name}, batch {batch}", lambda f: f(x), reference=network, fastgan=twin, compiled=batch == 1)


@pytest.mark.parametrize(("name", "batch"), [(name, batches[0] * 2) for name, (_, _, batches) in NETWORKS.items()])
def bench_gradients(compare, benchmark, device, name, batch):
    network, twin, x = pair(name, batch, device, training=True)
    if benchmark.disabled:  # in float32 a ReLU within rounding of its kink moves a gradient of 20 layers by 1%
        network, twin, x = network.double(), twin.double(), x.double()

    def step(f):
        # Of weights: a bias before instance normalisation has gradient zero, and what is computed for it is rounding alone.
        return torch.autograd.grad(f(x).square().mean(), [p for p in f.parameters() if p.dim() > 1])

    compare(
        f"{name}, batch {batch}, gradients",
        step,
        reference=network,
        fastgan=twin,
        compiled=False,
        tolerance=1e-9 if benchmark.disabled else 0.05,
    )
