"""Layers of `fastgan.nn.keras` against Keras' own, and a GAN as articles on Keras write it."""

import os
import sys

import pytest
import torch
from tolerances import assert_close

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

from fastgan import ops  # noqa: E402
from fastgan.nn import keras as ours  # noqa: E402

FORMATS = ("channels_last", "channels_first")


def pair(name, *args, **kwargs):
    """Keras' layer and ours with the same random weights, and an input."""
    shape = (2, 7, 9, 4) if kwargs.get("data_format") != "channels_first" else (2, 4, 7, 9)
    x = torch.randn(shape, requires_grad=True)
    theirs, own = (getattr(module, name)(*args, **kwargs) for module in (keras.layers, ours))
    theirs(x), own(x)
    for variable, other in zip(own.weights, theirs.weights, strict=True):
        value = torch.randn(tuple(variable.shape))
        variable.assign(value), other.assign(value)
    return theirs, own, x


def results(layer, x):
    """Output, first and second derivatives."""
    y = layer(x)
    parameters = [x, *(v.value for v in layer.trainable_variables)]
    first = torch.autograd.grad(y.square().sum(), parameters, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), parameters)
    return [y, *first, *second]


def check(theirs, own, x):
    for y, e in zip(results(own, x), results(theirs, x), strict=True):
        assert_close(y / e.abs().max(), e / e.abs().max(), 1e-5)
    assert tuple(own.compute_output_shape(x.shape)) == tuple(own(x).shape)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "strides"), [(3, 1), (4, 2), (5, 2), ((1, 2), 3), ((2, 3), (1, 2))])
def test_convolutions(kernel, strides, padding, data_format):
    options = dict(strides=strides, padding=padding, data_format=data_format, activation="leaky_relu")
    check(*pair("Conv2D", 6, kernel, **options))
    check(*pair("Conv2DTranspose", 6, kernel, **options))


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid", "elu", "selu", "softplus", "silu", "gelu"])
def test_activations(activation):
    check(*pair("Conv2D", 6, 3, groups=2, dilation_rate=2, activation=activation))
    check(*pair("Conv2DTranspose", 6, 3, use_bias=False, dilation_rate=2, activation=activation))


def test_another_slope_of_leaky_relu():
    check(*pair("Conv2D", 2, 3, activation=keras.layers.LeakyReLU(negative_slope=0.3)))


@pytest.mark.parametrize("axis", [-1, 1])
def test_bias_act(axis):
    layer, x = ours.BiasAct("lrelu", clamp=2.0, axis=axis), torch.randn(2, 3, 4)
    layer(x)
    layer.bias.assign(b := torch.randn(x.shape[axis]))
    assert torch.equal(layer(x), ops.bias_act(x, b, axis % 3, "lrelu", clamp=2.0))
    assert torch.equal(ours.BiasAct("relu", use_bias=False)(x), ops.bias_act(x, act="relu"))
    with pytest.raises(ValueError, match="act='leaky'; expected one of"):
        ours.BiasAct("leaky")
    with pytest.raises(ValueError, match=r"axis=2; expected an axis of the input, \[2, 3\]"):
        ours.BiasAct(axis=2)(torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"axis=-1, whose size the input \[None, 4, None\] leaves open"):
        ours.BiasAct()(keras.Input((4, None)))


def discriminator():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            ours.Conv2D(8, 4, strides=2, padding="same", activation="leaky_relu"),
            ours.Conv2D(8, 4, strides=2, padding="same"),
            ours.BiasAct("lrelu", gain=1),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )


def generator():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(2 * 2 * 8),
            ours.BiasAct("lrelu", gain=1),
            keras.layers.Reshape((2, 2, 8)),
            ours.Conv2DTranspose(8, 4, strides=2, padding="same", activation="leaky_relu"),
            ours.Conv2DTranspose(1, 4, strides=2, padding="same", activation="tanh"),
        ]
    )


class GAN(keras.Model):
    def __init__(self):
        super().__init__()
        self.discriminator, self.generator = discriminator(), generator()
        self.built = True

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def step(self, loss, model, optimizer):
        self.zero_grad()
        loss.backward()
        variables = model.trainable_variables
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)

    def train_step(self, data):
        real = data[0] if isinstance(data, tuple) else data
        fake = self.generator(torch.randn(len(real), 4)).detach()
        d_loss = self.discriminator(fake).mean() - self.discriminator(real).mean()
        gp = ours.gradient_penalty(self.discriminator, real, fake)
        self.step(d_loss + gp, self.discriminator, self.d_optimizer)
        g_loss = -self.discriminator(self.generator(torch.randn(len(real), 4))).mean()
        self.step(g_loss, self.generator, self.g_optimizer)
        return {"d_loss": d_loss.item(), "g_loss": g_loss.item(), "gp": gp.item()}


def test_a_gan_trains_and_is_saved(tmp_path):
    keras.utils.set_random_seed(0)
    gan = GAN()
    gan.compile(*(keras.optimizers.Adam(5e-3, beta_1=0.5) for _ in range(2)))
    # White above, black below: after a few steps the generator's images are too.
    real = torch.ones(256, 8, 8, 1)
    real[:, 4:] = -1
    history = gan.fit(real, batch_size=16, epochs=5, verbose=0).history
    images = gan.generator(torch.randn(64, 4)).detach()
    assert images[:, :4].mean() > 0.3 and images[:, 4:].mean() < -0.3
    assert history["gp"][-1] < 10 and set(history) == {"d_loss", "g_loss", "gp"}
    gan.generator.save(tmp_path / "generator.keras")
    again, z = keras.saving.load_model(tmp_path / "generator.keras"), torch.randn(2, 4)
    assert torch.equal(again(z), gan.generator(z))
    config = ours.BiasAct("swish", clamp=3.0, axis=1).get_config()
    assert ours.BiasAct.from_config(config).get_config() == config


def test_penalties():
    d, real, fake = discriminator(), torch.randn(3, 8, 8, 1), torch.randn(3, 8, 8, 1)
    points = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(d(points).sum(), points)
    assert_close(ours.gradient_penalty(d, real, kind="r1", weight=3.0), 1.5 * gradient.square().sum() / 3)
    ours.gradient_penalty(d, real, fake).backward()
    assert all(v.value.grad is not None for v in d.trainable_variables if v.name == "kernel")
    with pytest.raises(ValueError, match="fake=None; expected generated images"):
        ours.gradient_penalty(d, real)
    with pytest.raises(ValueError, match="kind='r3'; expected 'wgan-gp' or 'r1'"):
        ours.gradient_penalty(d, real, fake, kind="r3")


def test_another_backend_and_output_padding(monkeypatch):
    with pytest.raises(ValueError, match=r"output_padding=\(1, 1\); expected None"):
        ours.Conv2DTranspose(3, 3, strides=2, output_padding=1)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.delitem(sys.modules, "fastgan.nn.keras")
    with pytest.raises(ImportError, match="Keras runs on 'jax'; expected 'torch'"):
        __import__("fastgan.nn.keras")
