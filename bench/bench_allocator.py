"""tune_cpu_allocator() on a network that knows nothing of fastgan, each setting in processes of its own.

The network is a float32 convolutional generator with the layer list of a 256-pixel StyleGAN2 (channel_base 16384): two
3x3 convolutions, bias, leaky ReLU and clamp per resolution, bilinear upsampling, batch 4.
"""

import subprocess
import sys
import time

import torch
import torch.nn.functional as F

import fastgan

BATCH, ROUNDS, IMAGES = 4, 3, 4


class Generator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        channels = [512, 512, 512, 512, 256, 128, 64]
        widths = list(zip([512, *channels[:-1]], channels, strict=True))
        self.first = torch.nn.ModuleList(torch.nn.Conv2d(i, o, 3, padding=1) for i, o in widths)
        self.second = torch.nn.ModuleList(torch.nn.Conv2d(o, o, 3, padding=1) for _, o in widths)
        self.rgb = torch.nn.Conv2d(channels[-1], 3, 1)

    def forward(self, x):
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            if i:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            for convolution in (first, second):
                x = (F.leaky_relu(convolution(x), 0.2) * 2**0.5).clamp(-256, 256)
        return self.rgb(x)


def images(tuned: bool) -> tuple[list[float], torch.Tensor]:
    """Seconds of each batch after the first, and the last batch; what one process measures."""
    if tuned:
        fastgan.tune_cpu_allocator()
    torch.manual_seed(0)
    network, latent = Generator().eval(), torch.randn(BATCH, 512, 4, 4)
    seconds = []
    with torch.no_grad():
        for _ in range(IMAGES + 1):
            start = time.perf_counter()
            out = network(latent)
            seconds.append(time.perf_counter() - start)
    return seconds[1:], out


def process(tuned: bool, threads: int) -> tuple[list[float], float]:
    done = subprocess.run(
        [sys.executable, __file__, "tuned" if tuned else "default", str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    *seconds, checksum = map(float, done.stdout.split())
    return seconds, checksum


def bench_unmodified_generator(record, benchmark, request):
    threads = request.config.getoption("--threads")
    times: dict[str, list[float]] = {"reference": [], "fastgan": []}
    checksums = set()

    def run(name: str):
        seconds, checksum = process(name == "fastgan", threads)
        times[name] += seconds
        checksums.add(checksum)

    benchmark.pedantic(lambda: run("fastgan"), setup=lambda: run("reference"), rounds=ROUNDS)
    assert len(checksums) == 1, "the allocator must not change a result"
    record("unmodified generator 256 px, batch 4, a process each", times)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    times, out = images(sys.argv[1] == "tuned")
    print(*times, out.double().abs().sum().item())
