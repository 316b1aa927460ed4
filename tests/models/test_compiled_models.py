"""Every image network compiles in one graph, forward and backward, and every generator runs in onnxruntime."""

import copy

import pytest
import torch
from exported import check_export

from fastgan.models import build, list_models

pytestmark = pytest.mark.slow

SMALL = {
    "mlp": {"resolution": 8, "units": (8, 6), "latent": 6},
    "dcgan": {"width": 4, "max_width": 8, "latent": 6},
    "resnet": {"resolution": 16, "width": 4, "latent": 6, "spectral": True},
    "biggan": {"resolution": 16, "width": 8, "latent": 6, "num_classes": 3, "attention": 8},
    "fastgan": {"width": 4, "max_width": 8, "latent": 6},
    "r3gan": {"resolution": 8, "widths": (16, 8), "groups": 2, "latent": 6, "num_classes": 3},
    "cyclegan": {"width": 4},
    "pix2pix": {"width": 4},
}
OWN = {
    "cyclegan.generator": {"blocks": 1},
    "cyclegan.discriminator": {"layers": 2},
    "pix2pix.generator": {"downs": 5, "dropout": False},
}
NETWORKS = [name for name in list_models() if name.partition(".")[0] in SMALL]


def network_and_inputs(name):
    torch.manual_seed(0)
    family, _, side = name.partition(".")
    options = SMALL[family]
    network = build(name, **options, **OWN.get(name, {}))
    if side == "generator" and "latent" in options:
        inputs = [torch.randn(2, 6)]
    else:
        inputs = [
            torch.randn(2, options.get("channels", 1 if family == "mlp" else 3), *[options.get("resolution", 32)] * 2)
        ]
    return network, inputs + ([torch.tensor([2, 0])] if "num_classes" in options else [])


def gradients(network, outputs):
    outputs.square().mean().backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_in_one_graph(name):
    network, inputs = network_and_inputs(name)
    twin = copy.deepcopy(network)
    torch._dynamo.reset()
    torch.manual_seed(1)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    outputs = compiled(*inputs)
    torch.manual_seed(1)
    expected = network(*inputs)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients(twin, outputs), gradients(network, expected), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(dict(twin.named_buffers()), dict(network.named_buffers()))


def test_r3gan_compiles_to_machine_code():
    network, inputs = network_and_inputs("r3gan.generator")
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network, fullgraph=True)(*inputs), network(*inputs))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.endswith("generator")])
def test_generator_runs_without_fastgan(name):
    network, inputs = network_and_inputs(name)
    check_export(network, *inputs)
