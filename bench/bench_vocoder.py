"""Vocoders: speech from mel spectrograms, and a training step, against plain eager torch, ONNX Runtime and OpenVINO.

    pytest bench/bench_vocoder.py                                    an idle machine
    pytest bench/bench_vocoder.py --clock cpu --threads 1            where others compute too

`reference` is what users run today: torch's own convolutions, and BigVGAN's activation as padding, a transposed convolution, the
Snake function in five operations, padding and a convolution. All have their weights folded. "fastgan" is
`fastgan.accelerate(network, freeze=True)`. One row speaks 32 frames of 256 samples, 372 ms of speech at 22.05 kHz: less is
faster than speech.
"""

import copy
import io
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan.models import bigvgan, hifigan, vocos
from fastgan.nn import Activation1d, MelSpectrogram, fold_weight_norm

FRAMES = 32
SMALL = dict(width=16, rates=(8, 8), up_kernels=(16, 16), kernels=(3, 7), dilations=((1, 3), (1, 3)))


class PlainActivation(nn.Module):
    """The anti-aliased activation of twelve taps at twice the rate, in torch's operations."""

    def __init__(self, ours: Activation1d):
        super().__init__()
        self.alpha, self.beta, self.taps = ours.act.alpha, ours.act.beta, ours.upsample.filter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        taps = self.taps.expand(channels, -1, -1)
        x = 2 * F.conv_transpose1d(F.pad(x, (5, 5), "replicate"), taps, stride=2, groups=channels)[..., 15:-15]
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        x = x + (1.0 / (beta + 1e-9)) * torch.sin(x * alpha).pow(2)
        return F.conv1d(F.pad(x, (5, 6), "replicate"), taps, stride=2, groups=channels)


def plain(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Activation1d):
                setattr(module, name, PlainActivation(child))
    return network


def onnx(network: nn.Module, mel: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.onnx.export(network, (mel,), dynamo=True, verbose=False).save(file)
    return file.getvalue()


def runtime(model: bytes, threads: int):
    """ONNX Runtime, on the given number of threads."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda mel: torch.from_numpy(session.run(None, {name: mel.numpy()})[0])


def openvino(model: bytes, threads: int):
    """OpenVINO in float32, on the given number of threads."""
    ov = pytest.importorskip("openvino")
    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(model, b""), "CPU", options)
    return lambda mel: torch.from_numpy(np.array(compiled(mel.numpy())[0]))


def generators(small: bool) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    if small:
        return {
            "HiFi-GAN V1": hifigan.Generator(hifigan.GeneratorConfig(**SMALL)),
            "HiFi-GAN V3": hifigan.Generator(hifigan.GeneratorConfig(**SMALL | {"block": 2})),
            "BigVGAN-base": bigvgan.Generator(bigvgan.GeneratorConfig(**SMALL)),
            "Vocos, width 256": vocos.Generator(vocos.GeneratorConfig(width=16, blocks=2)),
        }
    return {
        "HiFi-GAN V1": hifigan.Generator(),
        "HiFi-GAN V3": hifigan.Generator(hifigan.V3),
        "BigVGAN-base": bigvgan.Generator(bigvgan.GeneratorConfig()),
        "Vocos, width 256": vocos.Generator(vocos.GeneratorConfig(width=256, blocks=6)),
    }


@pytest.mark.parametrize("name", ["HiFi-GAN V1", "HiFi-GAN V3", "BigVGAN-base", "Vocos, width 256"])
def bench_speech(name, compare, request, device):
    if device.type != "cpu":
        pytest.skip("ONNX Runtime and OpenVINO are compared on a CPU")
    network = fold_weight_norm(generators(request.config.getoption("--benchmark-disable"))[name].eval())
    for p in network.parameters():  # fresh weights are so small that a wrong layer would not show
        if p.dim() > 1:
            nn.init.normal_(p, 0.0, 0.5 / p[0].numel() ** 0.5)
    network.requires_grad_(False)
    eager, mel, threads = plain(network), torch.randn(1, 80, FRAMES), torch.get_num_threads()
    others = {}
    if not name.startswith("Vocos"):  # whose inverse transform ONNX has not
        model = onnx(eager, mel)
        others = {"ONNX Runtime": runtime(model, threads), "OpenVINO": openvino(model, threads)}
    ours = copy.deepcopy(network)
    fastgan.accelerate(ours, freeze=True)

    def step(f):
        with torch.no_grad():
            return f(mel)

    compare(
        f"{name}, {FRAMES} frames",
        step,
        reference=eager,
        fastgan=ours,
        others=others,
        compiled="FASTGAN_BENCH_COMPILE" in os.environ,
        tolerance=2e-4,
    )


def bench_training_step(compare, request, device):
    """BigVGAN of 64 channels on 4 segments of 8192 samples: the mel loss and the gradients of all weights."""
    torch.manual_seed(0)
    small = request.config.getoption("--benchmark-disable")
    options = SMALL if small else dict(width=64)
    network = bigvgan.Generator(bigvgan.GeneratorConfig(**options)).to(device)
    mel = MelSpectrogram(22050, hop=network.hop).to(device)
    real = 0.1 * torch.randn(1 if small else 4, 1, 8192, device=device)

    def step(f):
        loss = (mel(f(mel(real))) - mel(real)).abs().mean()
        return torch.autograd.grad(loss, [*f.parameters()])

    compare(
        "BigVGAN of 64 channels, batch 4, mel loss and gradients",
        step,
        reference=_parameters_of(network, plain(network)),
        fastgan=network,
        compiled=False,
        tolerance=1e-3,
    )


def _parameters_of(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """`theirs` with its parameters in the order of `ours`."""
    names = [name.replace(".act.", ".") for name, _ in ours.named_parameters()]
    theirs.parameters = lambda: [dict(theirs.named_parameters())[name] for name in names]
    return theirs
