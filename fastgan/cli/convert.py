"""fastgan convert."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import need_extra, parse, purpose


@dataclass(kw_only=True)
class Options:
    source: Path
    """network-snapshot-*.pkl (StyleGAN2-ADA, StyleGAN3, R3GAN), .pt in the rosinality layout or of pSp or e4e, .pth of
    Real-ESRGAN, GFP-GAN, CycleGAN or pix2pix, g_* of HiFi-GAN or BigVGAN with its config.json beside it, or a plain
    state_dict."""
    out: Path
    """The .safetensors to write; its configuration goes into the header, and into a .json beside it."""
    network: Literal["G_ema", "G", "D"] = "G_ema"
    """Which of the file's networks."""
    config: str | None = None
    """The original's constructor arguments as JSON, where the file does not tell them: '{"channel_base": 16384}'."""


def convert(argv: list[str]) -> int:
    """Other projects' checkpoints, read without running their code: fastgan convert IN.pkl|IN.pt OUT.safetensors"""
    need_extra()
    import fastgan.convert
    from fastgan.convert import vocoder
    from fastgan.convert.converted import IMAGE_TO_IMAGE
    from fastgan.untrusted import parse_json, read_json, shorten

    options = parse(Options, argv, "fastgan convert", purpose(convert))
    arguments = parse_json(options.config.encode(), "--config") if options.config else None
    out = fastgan.convert.convert(options.source, options.out, options.network, arguments)
    about = read_json(out.with_suffix(".json"))
    how = "--input FOLDER" if about["model"] in (*IMAGE_TO_IMAGE, *vocoder.MODELS) else "--seeds 0-15"
    print(f"{out}: {about['model']} {shorten(about['arguments'])}")
    print(f"next: fastgan sample {shlex.quote(str(out))} {how}")
    return 0
