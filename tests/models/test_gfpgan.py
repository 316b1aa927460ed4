"""GFP-GAN: recorded numbers and gradients, both layouts; channels on either side of `half`; noise; what is refused."""

import pytest
import torch
from golden import golden_model
from stylegan_golden import check_gradient_norms, close

from fastgan import models
from fastgan.models.gfpgan import Clean
from fastgan.models.gfpgan_original import Original

SMALL = dict(resolution=16, style=8, mapping=2, narrow=1 / 64)


@pytest.mark.golden
@pytest.mark.parametrize(("file", "kind"), [("gfpganv1_clean", Clean), ("gfpganv1_original", Original)])
def test_golden(file, kind):
    meta, arrays = golden_model(file)
    network = kind.from_reference(**meta["constructor_kwargs"]).eval()
    network.load_state_dict({n.removeprefix("sd/"): t for n, t in arrays.items() if n.startswith("sd/")}, strict=True)
    x = arrays["in/x"].requires_grad_()
    y, rgbs = network(x, noise_mode="const", return_rgb=True)
    for i, image in enumerate([y, *rgbs]):
        close(image, arrays["out/y" + (str(i) if i else "")])
    s = (y * arrays["in/gy"]).sum()
    (gx,) = torch.autograd.grad(s, x, retain_graph=True)
    close(gx, arrays["out/gx"], 1e-4)
    check_gradient_norms(network, s, meta)


@pytest.mark.parametrize("name", ["gfpgan.clean", "gfpgan.original"])
@pytest.mark.parametrize(
    "options", [{}, dict(half=False), dict(per_layer=False), dict(per_layer=False, latent_input=False)]
)
def test_every_option_runs_and_reaches_its_parameters(name, options):
    network = models.build(name, **SMALL, **options)
    image, rgbs = network(torch.randn(2, 3, 16, 16), return_rgb=True)
    assert image.shape == (2, 3, 16, 16) and [r.shape[-1] for r in rgbs] == [8, 16]
    (image.sum() + sum(r.sum() for r in rgbs)).backward()
    unused = {n for n, p in network.named_parameters() if p.grad is None}
    mapping = {n for n, _ in network.named_parameters() if "style_mlp" in n}
    assert unused == (set() if options.get("latent_input") is False else mapping)


def test_noise_is_drawn_anew_or_that_of_the_file():
    network = models.build("gfpgan.clean", **SMALL).eval()
    for layer in network.stylegan_decoder.style_convs:
        torch.nn.init.ones_(layer.weight)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(network(x, "const"), network(x, "const"))
    assert not torch.equal(network(x), network(x))


def test_published_size():
    with torch.device("meta"):
        network = Clean.from_reference(512, 512, 2, None, True, 8, True, True, 1, True)
        assert network.config == models.build("gfpgan.clean").config
    trained = {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}
    assert "stylegan_decoder" not in trained and "conv_body_up" in trained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(resolution=48), "resolution is 48, expected a power of 2"),
        (dict(style=0), "must be positive"),
        (dict(latent_input=False), "does not pass the mapping network"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("gfpgan.clean", **options)


def test_errors_of_calls():
    network = models.build("gfpgan.clean", **SMALL)
    with pytest.raises(ValueError, match=r"expected \[N, 3, 16, 16\]"):
        network(torch.randn(1, 3, 16, 8))
    with pytest.raises(ValueError, match="noise_mode is 'none'"):
        network(torch.randn(1, 3, 16, 16), "none")
    with pytest.raises(ValueError, match="decoder_load_path"):
        Clean.from_reference(16, decoder_load_path="x.pth")
