"""R3GAN's generator at 64 px, widths of the recipe, against the same network on the references of its ops."""

import pytest
import torch

from fastgan.recipes.r3gan import R3GAN, R3GANConfig


@pytest.mark.parametrize("batch", [2, 8])
def bench_generator(compare, by_references, benchmark, device, batch):
    torch.manual_seed(0)
    small = benchmark.disabled
    config = R3GANConfig(width=16, max_width=32) if small else R3GANConfig()
    data = dict(name="", resolution=16 if small else 64, channels=3, num_classes=0, class_names=[])
    g = R3GAN(config, data).generator.eval().to(device)
    z = torch.randn(batch, config.latent, device=device)
    with torch.no_grad():
        compare(
            f"generator {data['resolution']} px, batch {batch}, inference", lambda f: f(),
            reference=by_references(lambda: g(z)), fastgan=lambda: g(z), compiled=False, tolerance=1e-4,
        )  # fmt: skip
