"""Whole steps with gradients of gradients, compiled: the same numbers as eager."""

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from fastgan._torch_private import tracing_gradients
from fastgan.losses import adversarial, penalty
from fastgan.models import stylegan2
from fastgan.ops import bias_act
from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer, TrainingError, compiled_step
from fastgan.training.compiled import gradient_step
from fastgan.training.log import read_metrics


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(36, 1)

    def forward(self, x):
        h = nn.functional.conv2d(x, self.first.weight, stride=2)
        return self.last(bias_act(h, self.first.bias, act="swish").flatten(1)).squeeze(1)


@pytest.fixture(scope="module")
def critic():
    torch.manual_seed(0)
    return Critic()


def r1_r2(critic):
    def loss(real, fake):
        images = torch.cat([real, fake]).requires_grad_(True)
        logits = critic(images)
        slopes = penalty.r1(logits, images, gamma=2.0).mean()
        return {"loss": adversarial.rpgan.d_loss(*logits.chunk(2)).mean() + slopes, "slopes": slopes}

    return loss


def wgan_gp(critic):
    def loss(real, fake):
        slope = penalty.wgan_gp(critic, real, fake).mean()
        return {"loss": adversarial.wasserstein.d_loss(critic(real), critic(fake)).mean() + slope, "slope": slope}

    return loss


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 1, 8, 8, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("make", [r1_r2, wgan_gp])
def test_equals_eager(critic, make):
    """Values and gradients of a step with its penalty, for draws of the global generator too; traced once."""
    torch._dynamo.reset()
    parameters = [*critic.parameters(), nn.Parameter(torch.zeros(2))]
    eager, compiled = gradient_step(make(critic), parameters), compiled_step(make(critic), parameters)
    for seed in (0, 1):
        torch.manual_seed(seed)
        values, gradients = eager(*images(seed), weight=torch.tensor(0.5))
        torch.manual_seed(seed)
        with torch._dynamo.config.patch(error_on_recompile=True):
            ours, theirs = compiled(*images(seed), weight=torch.tensor(0.5))
        torch.testing.assert_close(ours, values)
        assert theirs[-1] is None and gradients[-1] is None
        torch.testing.assert_close(theirs[:-1], gradients[:-1], rtol=1e-4, atol=1e-6)
    plain = [p.grad for p in critic.parameters()]
    assert plain == [None] * len(plain)


def test_the_private_flag_is_still_there_and_still_needed(critic):
    """When this fails, torch has changed how it traces autograd: read its release notes, then compiled.py."""
    assert torch._dynamo.config.trace_autograd_ops is False
    torch._dynamo.reset()
    run = torch.compile(gradient_step(r1_r2(critic), list(critic.parameters())), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"autograd\.grad"):
        run(*images(0))


def test_without_the_flag_it_says_so(critic, monkeypatch):
    monkeypatch.setattr(torch._dynamo, "config", object())
    with pytest.raises(RuntimeError, match="cannot trace gradients of gradients"):
        compiled_step(r1_r2(critic), list(critic.parameters()))


CONFIG = GAN.Config(steps=3, batch_size=8, units=(16, 8), latent=4, stddev_group=0)


class Penalised(GAN):
    """The tiny recipe with R1 on both halves of a batch, of a discriminator that sees images one by one."""

    def d_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        images = torch.cat([batch.real, fake]).requires_grad_(True)
        logits = self.discriminator(images)
        slopes = penalty.r1(logits, images, gamma=1.0).mean()
        return {"loss": self.loss.d_loss(*logits.chunk(2)).mean() + slopes, "r1": slopes}


@pytest.mark.slow
def test_a_run_with_compiled_updates(tiny, tmp_path):
    """Same draws, same losses, same gradients as an eager run, in two pieces; every update compiled exactly once."""
    torch._dynamo.reset()
    rows = {}
    for compiled in (False, True):
        run = RunConfig(
            out=str(tmp_path / str(compiled)), device="cpu", samples=4, log_every=1, grad_accum=2, compile=compiled
        )
        with torch._dynamo.config.patch(error_on_recompile=True):
            rows[compiled] = read_metrics(Trainer(Penalised, CONFIG, run, dataset=tiny).train() / "metrics.jsonl")
    for eager, compiled in zip(*rows.values(), strict=True):
        for name in ("discriminator/loss", "discriminator/r1", "discriminator/gradient", "generator/gradient"):
            assert compiled[name] == pytest.approx(eager[name], rel=1e-4)
    assert len(rows[True]) == 3


class Unhurried(GAN):
    """A loss that looks at a number: no graph holds that."""

    def d_step(self, batch):
        values = super().d_step(batch)
        if float(values["loss"]) > 1e9:
            raise ValueError
        return values


def test_a_loss_that_cannot_be_compiled_says_so(tiny, tmp_path):
    torch._dynamo.reset()
    run = RunConfig(out=str(tmp_path / "run"), device="cpu", samples=4, compile=True)
    expected = r"(?s)--compile: a loss cannot be compiled as one graph \(.*resume=True, dataset=..., compile=False\)$"
    with pytest.raises(TrainingError, match=expected):
        Trainer(Unhurried, CONFIG, run, dataset=tiny).train()
    run.resume, run.compile = True, False
    assert Trainer(Unhurried, CONFIG, run, dataset=tiny).train() == tmp_path / "run"


def stylegan2_steps():
    """{name: (loss, parameters, its arguments)} of a G step and of a D step with R1, 8x8 pixels, both networks small."""
    torch.manual_seed(0)
    sizes = {"resolution": 8, "channel_base": 64, "channel_max": 8}
    g = stylegan2.Generator(stylegan2.Config(**sizes, z_dim=6, w_dim=6, mapping_layers=2))
    d = stylegan2.Discriminator(stylegan2.DiscriminatorConfig(**sizes))

    def g_loss(z):
        return {"loss": adversarial.logistic.g_loss(None, d(g(z, noise_mode="const"))).mean()}

    def d_loss(real, z):
        real = torch.cat([real]).requires_grad_(True)
        logits = d(real)
        slopes = penalty.r1(logits, real, gamma=5.0)
        return {"loss": (adversarial.logistic.d_loss(logits, d(g(z, noise_mode="const").detach())) + slopes).mean()}

    return {
        "generator": (g_loss, list(g.parameters()), [torch.randn(4, 6)]),
        "discriminator with R1": (d_loss, list(d.parameters()), [torch.randn(4, 3, 8, 8), torch.randn(4, 6)]),
    }


@pytest.mark.parametrize("name", ["generator", "discriminator with R1"])
def test_a_step_of_stylegan2_is_one_graph(name):
    """Its losses, penalty and gradients; fastgan's ops are nodes of it, forward and backward; the numbers are eager's."""
    loss, parameters, inputs = stylegan2_steps()[name]
    step, graphs = gradient_step(loss, parameters), []

    def keep(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    values, gradients = step(*inputs)
    torch._dynamo.reset()
    with tracing_gradients():
        run = torch.compile(step, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
        compiled, found = run(*inputs)
    torch.testing.assert_close(compiled, values)
    torch.testing.assert_close(found, gradients, rtol=1e-4, atol=1e-6)
    (nodes,) = graphs
    wanted = {"bias_act", "bias_act_backward", "upfirdn2d"} | ({"grad_penalty"} if "R1" in name else set())
    assert wanted <= {node.split(".")[1] for node in nodes if node.startswith("fastgan.")}
