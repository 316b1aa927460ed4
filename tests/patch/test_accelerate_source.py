"""accelerate: forwards of others, rewritten where the source shows that nothing else sees a layer's result."""

import copy
import pickle
import sys

import pytest
import torch
import torch.nn.functional as F
from accelerated import check, replaced
from dispatched import Called
from tolerances import assert_close
from torch import nn
from torch.nn.functional import leaky_relu

import fastgan
from fastgan.patch import layers, source


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    monkeypatch.setattr(layers, "has_kernel", lambda op, device: True)
    monkeypatch.setattr(layers, "pays", lambda *_: True)


class Loop(nn.Module):
    """HiFi-GAN's pattern: lists of layers, a functional activation between them."""

    def __init__(self):
        super().__init__()
        self.convs1 = nn.ModuleList([nn.Conv1d(6, 6, 3, padding=1) for _ in range(2)])
        self.convs2 = nn.ModuleList(
            [nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 6, 3, padding=1)) for _ in "12"]
        )
        self.up = nn.ConvTranspose1d(6, 5, 4, 2, 1)

    def forward(self, x, scale=None):
        for c1, c2 in zip(self.convs1, self.convs2, strict=True):
            xt = F.leaky_relu(x, 0.1)
            xt = c1(xt)
            xt = F.leaky_relu(xt, 0.1)
            xt = c2(xt)
            x = xt + x
        if scale is not None:
            x = x * scale
        return torch.tanh(self.up(x))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.act, self.norm = nn.LeakyReLU(0.2), nn.BatchNorm2d(6)
        self.layers = nn.ModuleList([nn.Conv2d(6, 6, 1), nn.ReLU()])

    def forward(self, x):
        x = leaky_relu(self.conv0(x), negative_slope=0.2)
        if x.shape[-1] > 2:
            x = self.conv1(x)
            x = self.norm(x)
            x = self.act(x)
        else:
            raise ValueError("too narrow")
        y = self.layers[0](x)
        z = F.relu(y)
        return super().__repr__()[:0] + "" or z.add(x)


def test_loops_lists_and_optional_arguments():
    net = Loop().double()
    twin, x = copy.deepcopy(net), torch.randn(2, 6, 7).double()
    report = fastgan.accelerate(net)
    assert "a layer + leaky_relu in place" in replaced(report)["c1"] and "tanh" in replaced(report)["up"]
    for scale in (None, 0.5):
        with torch.no_grad(), Called() as called:
            y = net(x, scale=scale)
        assert called.names.count("aten::leaky_relu_") == 2 and "aten::tanh_" in called.names
        assert_close(y, twin(x, scale))
    x.requires_grad_()
    for seen, wanted in zip(
        *(torch.autograd.grad(n(x).sin().sum(), x, create_graph=True) for n in (net, twin)), strict=True
    ):
        assert_close(seen, wanted)
        assert_close(*(torch.autograd.grad(g.square().sum(), x, retain_graph=True)[0] for g in (seen, wanted)))
    plain = copy.deepcopy(net)
    assert_close(plain(x), twin(x))
    fastgan.unpatch(report)
    assert torch.equal(net(x), twin(x))


class Lists(nn.Module):
    """Layer, norm and activation from lists; the object itself is not called self."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.convs = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1) for _ in range(2)])
        self.norms = nn.ModuleList([nn.InstanceNorm2d(6) for _ in range(2)])
        self.acts = nn.ModuleList([nn.LeakyReLU(0.2), nn.ReLU()])

    def forward(net, x):
        if net.how == "index":
            for i in range(2):
                x = net.convs[i](x)
                x = net.norms[i](x)
                x = net.acts[i](x)
            return x
        for conv, norm, act in zip(net.convs, net.norms, net.acts, strict=True):
            if net.how == "nested":
                x = act(norm(conv(x)))
            elif net.how == "function":
                x = F.leaky_relu(norm(conv(x)), 0.1)
            else:
                x = conv(x)
                x = norm(x)
                x = act(x)
        return net.acts[0](net.acts[1](net.convs[0](x)))


@pytest.mark.parametrize("how", ["index", "nested", "function", "statements"])
def test_of_a_loop_over_lists_the_norm_has_the_activation(how):
    net, x = Lists(how), torch.randn(2, 6, 5, 4)
    report = check(net, x)
    assert {"norm", "norms[i]", "convs[0]"} <= set(replaced(report))
    fastgan.accelerate(net.float())
    with torch.no_grad(), Called() as called:
        net(x)
    assert called.names.count("fastgan::norm_act") == 2
    assert called.names.count("aten::leaky_relu") + called.names.count("aten::relu") == (how != "index")


def test_branches_statements_and_super():
    net = Branches()
    report = check(net, torch.randn(2, 3, 5, 5))
    assert {"conv0", "norm", "layers[0]"} <= set(replaced(report))
    fastgan.accelerate(net)
    with pytest.raises(ValueError, match="too narrow") as error:
        net(torch.randn(1, 3, 2, 2).double())
    assert error.traceback[-1].path.name == "test_accelerate_source.py"
    assert "too narrow" in str(error.traceback[-1].statement)


class Seen(nn.Module):
    """Whatever else looks at the value between."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 6, 1), nn.ReLU()

    def forward(self, x):
        h = self.conv(x)
        y = self.act(h)
        return y + h


class Caught(Seen):
    def forward(self, x):
        h = None
        try:
            h = self.conv(x)
            h = self.act(h)
        finally:
            self.last = h
        return h


class Kept(Seen):
    def forward(self, x):
        look = lambda: h  # noqa: E731
        h = self.conv(x)
        h2 = self.act(h)
        return h2 + look()


class Twice(Seen):
    def forward(self, x):
        return F.threshold(self.conv(x), 0.1, 0) + self.act(torch.abs(self.conv(x)))


class Outside(Seen):
    def forward(self, x):
        global h
        h = self.conv(x)
        h = self.act(h)
        return h


class Asked(Seen):
    def forward(self, x):
        h = self.conv(x)
        z = self.act(h)
        return z + locals()["h"]


@pytest.mark.parametrize("kind", [Seen, Caught, Kept, Twice, Outside, Asked])
def test_what_is_seen_elsewhere_stays(kind):
    net, x = kind(), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        expected = net(x)
        report = fastgan.accelerate(net)
        assert not report.replaced and type(net) is kind
        assert torch.equal(net(x), expected)


class Joined(Seen):
    def forward(self, x):
        return self.act(self.conv(x))


def test_hooks_see_what_they_saw_and_children_may_change():
    net, x = Joined(), torch.randn(2, 3, 4, 4)
    fastgan.accelerate(net)
    with torch.no_grad():
        seen = []
        handle = net.conv.register_forward_hook(lambda m, args, y: seen.append(y))
        y = net(x)
        assert (seen[0] < 0).any() and torch.equal(y, seen[0].relu())
        handle.remove()
        net.act = nn.Tanh()
        assert_close(net(x), net.conv(x).tanh())
        net.conv = nn.Identity()
        kept = x.clone()
        net(x)
        assert torch.equal(x, kept), "what is no layer's own result was written to"
    net.conv, net.act = nn.Conv2d(3, 6, 1), nn.ReLU()
    gradients = []
    net.conv.register_full_backward_hook(lambda m, given, taken: gradients.append(taken))
    net(x).sum().backward()
    assert len(gradients) == 1


def test_pickles_and_copies():
    net, x = Joined(), torch.randn(2, 3, 4, 4)
    fastgan.accelerate(net)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(twin) is type(net)
        with torch.no_grad(), Called() as called:
            assert_close(twin(x), net(x))
        assert called.names.count("aten::relu_") == 2


def test_spectral_norm_by_hooks_is_copied():
    """deepcopy before a training forward, as torch itself allows, and pickle: the weight is computed anew."""
    net = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)), nn.LeakyReLU(0.2))
    fastgan.accelerate(net)
    twin, x = copy.deepcopy(net), torch.randn(1, 3, 5, 5)
    assert_close(twin(x), net(x))
    assert_close(twin(x), net(x))
    with torch.no_grad():
        assert_close(pickle.loads(pickle.dumps(net.state_dict()))["0.weight_orig"], net[0].weight_orig)


class Decorated(Seen):
    @torch.no_grad()
    def forward(self, x):
        return self.act(self.conv(x))


def test_sources_that_cannot_be_trusted(monkeypatch):
    assert "decorated" in str(fastgan.accelerate(Decorated()))
    scope = {"nn": nn}
    exec("class Made(nn.Module):\n    def forward(self, x): return self.act(self.conv(x))", scope)
    assert "not at hand" in source.rewritten(scope["Made"].forward, frozenset(["act"]))
    lines = ["    def forward(self, x):\n", "        return self.act(self.conv(x) + 1)\n"]
    monkeypatch.setattr(source.inspect, "getsourcelines", lambda f: (lines, 1))
    source.rewritten.cache_clear()
    assert "not what its source says" in source.rewritten(Joined.forward, frozenset(["act"]))
    source.rewritten.cache_clear()


def test_parents_that_are_compiled():
    """Refused with a reason; their neighbours are not."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.compile(nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU()), backend="eager")
            self.b = torch.jit.script(nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU()))
            self.c = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    net, x = Net(), torch.randn(1, 3, 4, 4)
    report = fastgan.accelerate(net)
    assert [where for where, _ in report.replaced] == ["c.0 + c.1"]
    reasons = dict(report.refused)
    assert "torch.compile" in reasons["a"] and "torch.jit" in reasons["b"]
    assert_close(net(x), net.c(net.b(net.a(x))))


def test_inside_data_parallel():
    net = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 6, 1), nn.InstanceNorm2d(6), nn.ReLU()))
    x = torch.randn(2, 3, 4, 4)
    expected = net(x)
    report = fastgan.accelerate(net)
    assert "module.1 + module.2" in replaced(report)
    assert_close(net(x), expected)
    replica = net.module[1]._replicate_for_data_parallel()  # as on several GPUs: what was decided is shared
    replica._parameters |= {"weight": None, "bias": None}
    assert_close(replica(x[:, :1].expand(2, 6, 4, 4)), F.instance_norm(x[:, :1].expand(2, 6, 4, 4)))


def test_code_of_stylegan_is_told_its_way(project):
    project(
        {
            "ours/ops/upfirdn2d.py": "def upfirdn2d(x): return x",
            "ours/net.py": """
                import torch
                from ours.ops import upfirdn2d

                class Net(torch.nn.Module):
                    def __init__(self):
                        super().__init__()
                        self.conv = torch.nn.Conv2d(3, 3, 1)

                    def forward(self, x):
                        return upfirdn2d.upfirdn2d(self.conv(x))
            """,
        }
    )
    from ours.net import Net

    report = fastgan.accelerate(Net())
    assert any("fastgan.patch_ops('ours.ops') is their way" in why for _, why in report.refused), str(report)
    assert "ours" in sys.modules
