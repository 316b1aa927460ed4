"""Frozen networks keep the memory of what lies between their operations: nobody may notice."""

import threading

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan.patch.frozen.convolutions import Convolution
from fastgan.patch.frozen.plan import compile
from fastgan.patch.frozen.tape import record


class Several(nn.Module):
    """Results of all kinds: an activation in the middle, a view, a value that was written over, one channel."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=2)
        self.up, self.last = nn.ConvTranspose2d(48, 16, 4, 2, 1), nn.Conv2d(16, 1, 1)

    def forward(self, x):
        y = F.leaky_relu(self.a(x), 0.2)
        z = self.b(y) + y
        up = torch.sigmoid(self.up(torch.cat([z, x], 1)))
        return y[:, :3], up, self.last(up), torch.tanh(F.relu(up) * 2 + 1).mean((2, 3))


def frozen(net):
    fastgan.accelerate(net, freeze=True)
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(2, 16, 6, 7))
    assert vars(net)["forward"].refused == ""
    return net


@pytest.fixture
def pair():
    torch.manual_seed(0)
    plain, net = Several().eval(), Several().eval()
    net.load_state_dict(plain.state_dict())
    return plain, frozen(net)


def test_results_outlive_later_calls(pair):
    plain, net = pair
    inputs = [torch.randn(2, 16, 6, 7) for _ in range(4)]
    with torch.no_grad():
        results = [net(x) for x in inputs]
        for x, result in zip(inputs, results, strict=True):
            for actual, expected in zip(result, plain(x), strict=True):
                assert_close(actual, expected)


def test_calls_at_once_do_not_share(pair):
    plain, net = pair
    inputs = [torch.randn(2, 16, 6, 7) for _ in range(4)]
    wrong = []

    def run(x):
        with torch.no_grad():
            expected = plain(x)
            for _ in range(50):
                if any((a - e).abs().max() > 1e-4 for a, e in zip(net(x), expected, strict=True)):
                    wrong.append(1)

    threads = [threading.Thread(target=run, args=(x,)) for x in inputs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_inside_and_outside_inference_mode(pair):
    plain, net = pair
    x = torch.randn(2, 16, 6, 7)
    with torch.inference_mode():
        inside = net(x)
    with torch.no_grad():
        outside = net(x)
    for a, b, expected in zip(inside, outside, plain(x), strict=True):
        assert torch.equal(a, b)
        assert_close(b, expected.detach())


def test_values_that_do_not_live_at_once_share_memory():
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU()) for _ in range(9)]).eval()
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        expected, tape = record(lambda: net(x), [x])
        run = compile(tape)
        assert_close(run(x), expected)
    if any(isinstance(f, Convolution) and f.told for f in run.__globals__.values()):
        room = run.__globals__["take"].__self__
        assert len(room._places) == 8 and len(room._sizes) == 2
