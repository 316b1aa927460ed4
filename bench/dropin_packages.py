"""Networks of packages from the registry, where these are installed, with random weights: what bench_dropin.py accelerates too.

    pip install --no-deps gfpgan realesrgan facexlib mmcv-lite spandrel
    pip install --no-deps --no-build-isolation basicsr
    pip install opencv-python-headless lmdb addict yapf mmengine scikit-image      what these import

None of their files is edited: `fastgan.patch_ops` makes them import on today's torchvision and without their compiled parts.
"""

import importlib
import itertools
import warnings
from collections.abc import Callable

import torch
from torch import nn

import fastgan


def found(path: str) -> Callable:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def made(path: str, *arguments, **options) -> Callable[[int], nn.Module]:
    def build(size: int) -> nn.Module:
        given = (size if a is SIDE else a for a in arguments)
        return found(path)(*given, **{name: size if a is SIDE else a for name, a in options.items()})

    return build


def conv_modules(size: int) -> nn.Module:
    """Layers of MMCV as its GANs stack them: convolution, norm and activation in one module."""
    layer = found("mmcv.cnn:ConvModule")
    norm, act = {"type": "IN"}, {"type": "LeakyReLU", "negative_slope": 0.2}
    widths = (64, 128, 256, 512)
    down = [layer(a, b, 4, 2, 1, norm_cfg=norm, act_cfg=act) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(
        layer(3, 64, 4, 2, 1, act_cfg=act), *down, layer(512, 1, 3, padding=1, norm_cfg=None, act_cfg=None)
    )


SIDE = object()  # the side of the image among arguments
NARROW = {"narrow": 0.25, "channel_multiplier": 1}


def image(side):
    return (3, side, side)


def latent(side):
    return (512,)


def styles(path: str) -> Callable[[int], nn.Module]:
    """A generator that takes a list of latents."""

    class OfOne(nn.Module):
        def __init__(self, generator):
            super().__init__()
            self.generator = generator

        def forward(self, z):
            return self.generator([z])

    return lambda size: OfOne(found(path)(size, **NARROW))


def masked(path: str, **options) -> Callable[[int], nn.Module]:
    """A network that fills what a mask covers."""

    class LeftHalf(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            mask = torch.zeros_like(x[:, :1])
            mask[..., : x.shape[3] // 2] = 1
            return self.network(x, mask)

    return lambda size: LeftHalf(found(path)(**options))


# package: what makes it importable, and its networks as in dropin_networks.NETWORKS
ROWS = {
    "basicsr": ("basicsr", {
        "BasicSR RRDBNet": (made("basicsr.archs.rrdbnet_arch:RRDBNet", 3, 3, num_block=2), image, 64),
        "BasicSR MSRResNet": (made("basicsr.archs.srresnet_arch:MSRResNet", num_block=4), image, 64),
        "BasicSR StyleGAN2 generator": (styles("basicsr.archs.stylegan2_arch:StyleGAN2Generator"), latent, 256),
        "BasicSR StyleGAN2 discriminator": (
            made("basicsr.archs.stylegan2_arch:StyleGAN2Discriminator", SIDE, **NARROW), image, 256,
        ),
    }),
    "gfpgan": ("basicsr", {
        "GFPGANv1Clean": (made("gfpgan.archs.gfpganv1_clean_arch:GFPGANv1Clean", SIDE, **NARROW), image, 256),
        "GFPGAN's StyleGAN2": (styles("gfpgan.archs.stylegan2_clean_arch:StyleGAN2GeneratorClean"), latent, 256),
    }),
    "realesrgan": ("basicsr", {
        "Real-ESRGAN discriminator": (made("realesrgan.archs.discriminator_arch:UNetDiscriminatorSN", 3), image, 128),
        "Real-ESRGAN compact": (made("realesrgan.archs.srvgg_arch:SRVGGNetCompact", num_conv=8), image, 128),
    }),
    "spandrel": ("", {
        "spandrel ESRGAN": (made("spandrel.architectures.ESRGAN:ESRGAN", num_blocks=2), image, 64),
        "spandrel ESRGAN x2": (
            made("spandrel.architectures.ESRGAN:ESRGAN", in_nc=12, num_blocks=2, scale=4, shuffle_factor=2), image, 128,
        ),
        "spandrel Compact": (made("spandrel.architectures.Compact:Compact", num_conv=8), image, 128),
        "spandrel GFPGAN": (made("spandrel.architectures.GFPGAN:GFPGAN", out_size=SIDE, **NARROW), image, 256),
        "spandrel SPAN": (made("spandrel.architectures.SPAN:SPAN", num_in_ch=3, num_out_ch=3), image, 128),
        "spandrel MM-RealSR": (
            made(
                "spandrel.architectures.MMRealSR:MMRealSR",
                num_in_ch=3, num_out_ch=3, num_block=2, num_feats=[64] * 4, num_blocks=[1] * 4,
            ), image, 64,
        ),
        "spandrel LaMa": (masked("spandrel.architectures.LaMa:LaMa", in_nc=4), image, 128),
        "spandrel SwiftSRGAN": (made("spandrel.architectures.SwiftSRGAN:SwiftSRGAN", num_blocks=4), image, 128),
        "spandrel Real-CUGAN": (made("spandrel.architectures.RealCUGAN:UpCunet2x"), image, 128),
        "spandrel RestoreFormer": (
            made(
                "spandrel.architectures.RestoreFormer:RestoreFormer",
                n_embed=64, embed_dim=64, ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, resolution=64, z_channels=64,
            ), image, 128,
        ),
    }),
    "mmcv": ("mmcv.ops", {"MMCV layers": (conv_modules, image, 256)}),
}  # fmt: skip

PACKAGES: dict[str, tuple] = {}
ABSENT: dict[str, str] = {}  # package: why nothing of it is timed
for package, (patched, networks) in ROWS.items():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(package) if not patched else fastgan.patch_ops(patched)
            importlib.import_module(package)
    except ImportError as error:
        ABSENT[package] = f"not here ({error})"
    else:
        PACKAGES |= networks
