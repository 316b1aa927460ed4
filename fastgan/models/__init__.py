"""Model families, one file each: `Config`, then the modules, readable top to bottom.

`build("dcgan.generator", resolution=64)` makes a network by name. To add a family, write `fastgan/models/<family>.py`
with classes that take one config dataclass and name it as their attribute `Config`, and add a row per class to
`OURS`; outside fastgan, `MODELS.register("mine.generator", Generator)` or a package's entry point `fastgan.models`.
A family is imported when it is first asked for.
"""

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from torch import nn

from fastgan.registry import Registry

if TYPE_CHECKING:  # what is loaded when it is first asked for, as a type checker sees it
    from fastgan.models import biggan as biggan
    from fastgan.models import bigvgan as bigvgan
    from fastgan.models import cyclegan as cyclegan
    from fastgan.models import dcgan as dcgan
    from fastgan.models import esrgan as esrgan
    from fastgan.models import fewshot as fewshot
    from fastgan.models import gfpgan as gfpgan
    from fastgan.models import gfpgan_original as gfpgan_original
    from fastgan.models import hifigan as hifigan
    from fastgan.models import mlp as mlp
    from fastgan.models import pix2pix as pix2pix
    from fastgan.models import r3gan as r3gan
    from fastgan.models import resnet as resnet
    from fastgan.models import source_filter as source_filter
    from fastgan.models import stylegan2 as stylegan2
    from fastgan.models import stylegan3 as stylegan3
    from fastgan.models import text as text
    from fastgan.models import vocoder_constant_q as vocoder_constant_q
    from fastgan.models import vocoder_discriminator as vocoder_discriminator
    from fastgan.models import vocos as vocos

# name -> "module:class"
OURS = {
    "mlp.generator": "fastgan.models.mlp:Generator",
    "mlp.discriminator": "fastgan.models.mlp:Discriminator",
    "dcgan.generator": "fastgan.models.dcgan:Generator",
    "dcgan.discriminator": "fastgan.models.dcgan:Discriminator",
    "resnet.generator": "fastgan.models.resnet:Generator",
    "resnet.discriminator": "fastgan.models.resnet:Discriminator",
    "biggan.generator": "fastgan.models.biggan:Generator",
    "biggan.discriminator": "fastgan.models.biggan:Discriminator",
    "fastgan.generator": "fastgan.models.fewshot:Generator",
    "fastgan.discriminator": "fastgan.models.fewshot:Discriminator",
    "r3gan.generator": "fastgan.models.r3gan:Generator",
    "r3gan.discriminator": "fastgan.models.r3gan:Discriminator",
    "cyclegan.generator": "fastgan.models.cyclegan:Generator",
    "cyclegan.discriminator": "fastgan.models.cyclegan:Discriminator",
    "pix2pix.generator": "fastgan.models.pix2pix:Generator",
    "esrgan.generator": "fastgan.models.esrgan:Generator",
    "esrgan.compact": "fastgan.models.esrgan:Compact",
    "esrgan.discriminator": "fastgan.models.esrgan:Discriminator",
    "gfpgan.clean": "fastgan.models.gfpgan:Clean",
    "gfpgan.original": "fastgan.models.gfpgan_original:Original",
    "stylegan2.generator": "fastgan.models.stylegan2:Generator",
    "stylegan2.discriminator": "fastgan.models.stylegan2:Discriminator",
    "stylegan3.generator": "fastgan.models.stylegan3:Generator",
    "hifigan.generator": "fastgan.models.hifigan:Generator",
    "bigvgan.generator": "fastgan.models.bigvgan:Generator",
    "source_filter.generator": "fastgan.models.source_filter:Generator",
    "vocos.generator": "fastgan.models.vocos:Generator",
    "vocoder.periods": "fastgan.models.vocoder_discriminator:Periods",
    "vocoder.scales": "fastgan.models.vocoder_discriminator:Scales",
    "vocoder.resolutions": "fastgan.models.vocoder_discriminator:Resolutions",
    "vocoder.bands": "fastgan.models.vocoder_discriminator:Bands",
    "vocoder.constant_q": "fastgan.models.vocoder_constant_q:ConstantQs",
    "vocoder.spectra": "fastgan.models.vocoder_discriminator:Spectra",
    "text.lstm": "fastgan.models.text:LSTMGenerator",
    "text.relational": "fastgan.models.text_memory:RelationalGenerator",
    "text.transformer": "fastgan.models.text_transformer:TransformerGenerator",
    "text.seqgan_discriminator": "fastgan.models.text_discriminator:SeqGANDiscriminator",
    "text.relgan_discriminator": "fastgan.models.text_discriminator:RelGANDiscriminator",
    "text.recurrent_discriminator": "fastgan.models.text_discriminator:RecurrentDiscriminator",
}
MODELS = Registry("model", "fastgan.models").own(OURS)


def list_models() -> list[str]:
    """The names `build` knows, sorted."""
    return sorted(MODELS)


def network_class(name: str, code: bool = False) -> type[nn.Module]:
    """The class called `name`; a family's name alone means its generator. code: as in `Registry.resolve`. Raises ValueError
    that lists the known names."""
    if name not in MODELS and f"{name}.generator" in MODELS:
        name = f"{name}.generator"
    return MODELS.resolve(name, code)


def build(name: str, **config: Any) -> nn.Module:
    """The network called `name`, initialised from torch's global generator.

    Args:
        name: one of `list_models()`, or a family's name for its generator, or `module:Class`, `path/file.py:Class`.
        config: fields of the family's `Config`; the others keep their defaults.

    Raises:
        ValueError: unknown name or field (the message lists the known ones), or a value the family refuses.

    Examples:
        >>> generator = fastgan.models.build("dcgan.generator", resolution=32, latent=16)
        >>> generator(torch.randn(4, 16)).shape
        torch.Size([4, 3, 32, 32])
    """
    network = network_class(name, code=True)
    fields = [f.name for f in dataclasses.fields(network.Config) if f.init]
    unknown = sorted(set(config) - set(fields))
    if unknown:
        raise ValueError(f"build: {name} has no option {', '.join(unknown)}; it takes {', '.join(fields)}")
    return network(network.Config(**config))


_FAMILIES = {target.partition(":")[0].rpartition(".")[2] for target in OURS.values()}


def __dir__() -> list[str]:
    return sorted({*globals(), *_FAMILIES})


def __getattr__(name: str):
    if name in _FAMILIES:
        return importlib.import_module(f"fastgan.models.{name}")
    raise AttributeError(f"module 'fastgan.models' has no attribute {name!r}")
