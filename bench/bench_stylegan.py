"""StyleGAN generators at 256 px (channel_base 16384) and a StyleGAN2 training step at 64 px, against the same networks on the
references of all ops, with grouped modulated convolutions.

The floor of StyleGAN3 is the arithmetic of its convolutions and matrix products at the rate of torch.mm, measured here.
"""

from unittest.mock import patch

import pytest
import torch
from machine import gemm_rate
from torch.utils.flop_counter import FlopCounterMode

from fastgan.losses import adversarial, penalty
from fastgan.models import build
from fastgan.ops import conv_forms


def network(name: str, small: bool, resolution: int = 256):
    torch.manual_seed(0)
    sizes = (
        dict(resolution=32, channel_base=512, channel_max=16)
        if small
        else dict(resolution=resolution, channel_base=16384)
    )
    return build(name, **sizes).eval()


def inference(compare, by_references, benchmark, device, name, batch, floor=False):
    g = network(name, benchmark.disabled).to(device)
    z = torch.randn(batch, g.z_dim, device=device)

    def image():
        return g(z, noise_mode="const")

    with torch.no_grad():
        seconds = None
        if floor and device.type == "cpu" and not benchmark.disabled:
            # of torch's convolutions: the counter does not know ours
            with patch.object(conv_forms, "serving", lambda w, form: None), FlopCounterMode(display=False) as counter:
                image()
            seconds = counter.get_total_flops() / gemm_rate()
        what = f"{name} {g.img_resolution} px, batch {batch}, inference"
        compare(
            what,
            lambda f: f(),
            reference=by_references(image),
            fastgan=image,
            compiled=False,
            tolerance=1e-3,
            floor=seconds,
        )


@pytest.mark.parametrize("batch", [2, 8])
def bench_stylegan2(compare, by_references, benchmark, device, batch):
    inference(compare, by_references, benchmark, device, "stylegan2", batch)


@pytest.mark.parametrize("batch", [2, 8])
def bench_stylegan3(compare, by_references, benchmark, device, batch):
    """The reference takes 13 s for batch 2, 50 for 8: 2 and 5 minutes."""
    inference(compare, by_references, benchmark, device, "stylegan3", batch, floor=True)


def bench_stylegan2_step(compare, by_references, benchmark, device):
    """Gradients of the discriminator's loss with R1, and of the generator's with the path length."""
    small = benchmark.disabled
    g, d = (network(f"stylegan2.{part}", small, 64) for part in ("generator", "discriminator"))
    dtype = (
        torch.float64 if small else torch.float32
    )  # in float32 a kink decides by rounding, and moves a gradient by 1%
    g, d = g.to(device, dtype).train(), d.to(device, dtype).train()
    batch = 2 if small else 8
    z, real = (
        torch.randn(batch, *shape, dtype=dtype, device=device)
        for shape in ((g.z_dim,), (3, g.img_resolution, g.img_resolution))
    )

    def train():
        torch.manual_seed(1)
        with torch.no_grad():
            fake = g(z)
        images = real.clone().requires_grad_()
        real_logits, fake_logits = d(images), d(fake)
        loss = adversarial.non_saturating.d_loss(real_logits, fake_logits).mean()
        loss = loss + penalty.r1(real_logits, images, 1.0).mean()
        by_d = torch.autograd.grad(loss, list(d.parameters()))
        ws = g.mapping(z)
        fake = g.synthesis(ws)
        lengths, _ = penalty.path_length(fake, ws, torch.zeros((), dtype=dtype, device=device))
        loss = adversarial.non_saturating.g_loss(torch.zeros_like(real_logits), d(fake)).mean() + lengths.mean()
        by_g = torch.autograd.grad(loss, list(g.parameters()))
        return [gradient for gradient in (*by_d, *by_g) if gradient.dim() > 1]

    compare(
        f"stylegan2 step {g.img_resolution} px, batch {batch}: D with R1, G with path length", lambda f: f(),
        reference=by_references(train), fastgan=train, compiled=False, tolerance=1e-7 if small else 0.05,
    )  # fmt: skip
