"""accelerate(freeze=True) where a network's own tensors, hooks, results and threads meet what was recorded."""

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan.ops import conv_forms
from fastgan.patch.frozen import module


def frozen(net, *inputs, calls=3):
    fastgan.accelerate(net.eval(), freeze=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(calls):
            net(*inputs)
    assert vars(net)["forward"].refused == ""
    return net


class Around(nn.Module):
    """A convolution of a value plus that value."""

    def __init__(self, channels, kernel):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x):
        y = torch.relu(x) * 1.5
        return self.conv(y) + y


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (16, 5), (8, 3)])
def test_a_sum_is_not_written_over_what_the_convolution_reads(channels, kernel):
    net = Around(channels, kernel)
    x = torch.randn(2, channels, 40, 40).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = net(x)
        assert_close(frozen(net, x)(x), expected, 1e-5)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("held", torch.randn(2, 4))
        self.several = [torch.randn(2, 4)]

    def forward(self, x):
        return x * self.held + self.several[0], self.held * 2, self.held


@pytest.mark.parametrize("own", [lambda net: net.held, lambda net: net.several[0]])
def test_a_call_with_one_of_its_own_tensors(own):
    net = Scaled()
    fastgan.accelerate(net.eval(), freeze=True)
    x = torch.randn(2, 4)
    for value in (*[own(net)] * 4, *[x] * 4, own(net)):
        assert torch.allclose(net(value)[0], value * net.held + net.several[0])


def test_results_that_depend_on_no_input_are_the_callers():
    net, x = Scaled(), torch.randn(2, 4)
    frozen(net, x)
    kept = net(x)[1]
    net(x)[1].zero_()
    assert torch.equal(kept, net.held * 2) and torch.equal(net(x)[1], net.held * 2)
    net(x)[2].zero_()  # its own buffer, as without
    assert not net.held.any() and not net(x)[1].any()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_and_hooks_that_come_later():
    inner = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU())
    x = torch.randn(1, 3, 8, 8)
    frozen(inner, x)
    seen = []
    hook = inner[0].register_forward_pre_hook(lambda m, a: seen.append(1))
    with torch.no_grad():
        expected = inner(x)
        assert seen
        hook.remove()
        for _ in range(3):
            assert_close(inner(x), expected, 1e-5)
    outermost = nn.utils.weight_norm(nn.Conv2d(3, 4, 3)).eval()
    fastgan.accelerate(outermost, freeze=True)
    with torch.no_grad():
        before = [outermost(x) for _ in range(3)][-1]
        outermost.weight_g.mul_(2)
        bias = outermost.bias[:, None, None]
        assert_close(outermost(x) - bias, 2 * (before - bias), 1e-5)


def test_memory_that_comes_back_with_other_numbers():
    net = nn.Sequential(*[nn.Conv2d(c, c, 3, padding=1) for c in (16, 16, 16, 16)])
    x = torch.randn(1, 16, 8, 8)
    frozen(net, x)
    with torch.no_grad():
        net.bfloat16().float()
        assert_close(net(x), copy.deepcopy(net)(x), 1e-6)
        addresses = {m.weight.data_ptr() for m in net}
        for _ in range(20):
            for m in net:
                m.weight.data = m.weight.data.clone()
            assert not addresses & {m.weight.data_ptr() for m in net}, "the recorded memory was given away"


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = [0]

    def forward(self, x):
        self.calls[0] += 1
        return [x + i for i in range(self.calls[0])]


class ByStrides(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        n, c, h, w = (y := self.conv(x)).shape
        return [y.as_strided((n, c, h, w), (c * h * w, h * w, w, 1))]


@pytest.mark.parametrize("cls", [Growing, ByStrides])
@pytest.mark.filterwarnings("ignore:(Growing|ByStrides) runs as ever")
def test_what_no_recording_holds_runs_as_ever(cls):
    net = cls().eval()
    twin = copy.deepcopy(net)
    fastgan.accelerate(twin, freeze=True)
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        for _ in range(4):
            expected, actual = net(x), twin(x)
            assert len(actual) == len(expected) and all(map(torch.equal, actual, expected))
    assert vars(twin)["forward"].refused


class Tabled(nn.Module):
    def forward(self, x):
        return x * torch.tensor(2.0)


def test_what_is_watched_goes_with_its_kind():
    net = Tabled()
    for size in range(1, 12):
        frozen(net, torch.ones(size))
    assert len(vars(net)["forward"]._seen._tensors) == module.MOST


def test_weights_that_change_while_another_thread_compiles(monkeypatch):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = torch.randn(1, 3, 8, 8)
    frozen(net, x, calls=1)
    original = module.compile

    def slow(tape):
        run = original(tape)
        run(x)
        with torch.no_grad():
            net[0].weight.mul_(3)
            other = threading.Thread(target=lambda: net(x.clone()))
            other.start()
            other.join()
        monkeypatch.setattr(module, "compile", original)
        return run

    monkeypatch.setattr(module, "compile", slow)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net(x)
        for _ in range(4):
            assert_close(net(x), F.relu(F.conv2d(x, net[0].weight, net[0].bias)), 1e-5)


def test_recording_in_two_threads_leaves_the_algorithms_on():
    first, second = threading.Event(), threading.Event()

    def outer():
        with conv_forms.plainly():
            first.set()
            second.wait(10)

    thread = threading.Thread(target=outer)
    thread.start()
    first.wait(10)
    assert not conv_forms.plain(), "another thread's recording"
    with conv_forms.plainly():
        second.set()
        thread.join()
        assert conv_forms.plain()
    assert not conv_forms.plain()


def test_transposed_convolutions_that_onednn_cannot_pack():
    net = nn.Sequential(nn.ConvTranspose2d(4, 3, 3, dilation=(3, 2), output_padding=(2, 1)), nn.ReLU())
    x = torch.randn(2, 4, 6, 5)
    with torch.no_grad():
        expected = net(x)
        assert_close(frozen(net, x)(x), expected, 1e-5)


@pytest.mark.parametrize(
    ("change", "default", "before"),
    [(torch.set_default_dtype, torch.float64, torch.float32), (torch.set_default_device, "meta", None)],
)
def test_defaults_changed_after_recording(change, default, before):
    """The memory that a recorded call makes is the recording's kind, whatever torch.set_default_* says by then."""
    net = nn.Sequential(
        nn.ConvTranspose2d(64, 32, 4),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(32, 3, 4, 2, 1),
        nn.Tanh(),
    )
    x = torch.randn(2, 64, 1, 1)
    with torch.no_grad():
        expected = net(x)
        frozen(net, x)
        change(default)
        try:
            y = net(x)
        finally:
            change(before)
        assert_close(y, expected, 1e-5)


class Times(nn.Module):
    def __init__(self, conv, shape):
        super().__init__()
        self.conv, self.factor = conv, nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return self.conv(x) * self.factor + self.factor


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv2d, (1, 8, 1)),
        (nn.Conv2d, (8, 1, 1)),
        (nn.Conv2d, (8, 1)),
        (nn.Conv1d, (8, 1)),
        (nn.Conv1d, (8, 1, 1)),
        (nn.Conv1d, (1, 1, 1, 1)),
    ],
)
def test_factors_along_other_axes_than_the_channels(conv, shape):
    net = Times(conv(8, 8, 3, padding=1), shape)
    x = torch.randn(8, 8, *[8] * (2 if conv is nn.Conv2d else 1))
    with torch.no_grad():
        expected = net(x)
        assert_close(frozen(net, x)(x), expected, 1e-5)


@pytest.mark.parametrize("kinds", [10**6, 10])
def test_recordings_in_vain_become_rare(kinds, monkeypatch):
    """Of inputs that never come again, or only after the others; what does come again is recorded then, and stays."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    fastgan.accelerate(net, freeze=True)
    form, made = vars(net)["forward"], []
    monkeypatch.setattr(module, "record", lambda *given, record=module.record: made.append(1) or record(*given))
    with torch.no_grad():
        for i in range(400):
            net(torch.randn(1, 3, 8, 8 + i % kinds))
        assert len(made) <= (2 if kinds > 400 else 7) * module.MOST
        x = torch.randn(1, 3, 12, 12)
        for _ in range(module.PATIENCE + 2):
            net(x)
        assert callable(list(form._kinds.values())[-1])
        before = len(made)
        for i in range(3 * module.MOST):
            net(torch.randn(1, 3, 9, 500 + i))
            net(x)
        assert len(made) == before and form.refused == ""
        assert_close(net(x), type(net).forward(net, x), 1e-5)


def test_a_network_that_changes_at_each_call_is_rarely_recorded(monkeypatch):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    fastgan.accelerate(net, freeze=True)
    made, x = [], torch.randn(1, 3, 8, 8)
    monkeypatch.setattr(module, "record", lambda *given, record=module.record: made.append(1) or record(*given))
    with torch.no_grad():
        for _ in range(300):
            net[0].weight.mul_(0.99)
            assert_close(net(x), type(net).forward(net, x), 1e-5)
    assert len(made) <= 8 * module.MOST
