"""The networks that `vocoder` trains, and the papers' settings."""

from __future__ import annotations

from typing import Any

from fastgan.models import hifigan
from fastgan.training.recipe import Preset

WIDE = {"width": 1536, "tanh": False, "bias": False}  # BigVGAN-v2
# name -> (network of `fastgan.models`, its options)
GENERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("source_filter", {"width": 256, "blocks": 6}),
    "vocos": ("vocos", {}),
    "hifigan-v1": ("hifigan", vars(hifigan.V1)),
    "hifigan-v2": ("hifigan", vars(hifigan.V2)),
    "hifigan-v3": ("hifigan", vars(hifigan.V3)),
    "bigvgan-base": ("bigvgan", {}),
    "bigvgan-v2": ("bigvgan", WIDE | {"rates": (4, 4, 2, 2, 2, 2), "up_kernels": (8, 8, 4, 4, 4, 4)}),
    "bigvgan-v2-512": ("bigvgan", WIDE | {"rates": (8, 4, 2, 2, 2, 2), "up_kernels": (16, 8, 4, 4, 4, 4)}),
}

PRESETS = {
    "hifigan-v1": Preset(
        "22.05 kHz, as Kong et al. (2020)",
        {
            "generator": "hifigan-v1",  # appendix A, as the next one
            "second": "scales",
            "rate": 22050,  # section 3, as all below
            "length": 8192,
            "judge": 1.0,
            "warmup": 0,
            "mel_loss": "single",
            "mel_weight": 45.0,
            "lr": 2e-4,
            "lr_decay": 0.9999988,  # 0.999 an epoch of 809 batches
            "batch_size": 16,
            "ema_halflife": 0.0,
            "steps": 2_500_000,
        },
    ),
    "bigvgan-base": Preset(
        "24 kHz, 100 bands, as Lee et al. (2023)",
        {
            "generator": "bigvgan-base",  # table 6 and appendix A, as all below
            "second": "resolutions",
            "bands": 100,
            "high": 12000.0,
            "rate": 24000,
            "length": 8192,
            "judge": 1.0,
            "warmup": 0,
            "mel_loss": "single",
            "mel_weight": 45.0,
            "lr": 1e-4,
            "lr_decay": 0.9999996,
            "clip": 1000.0,
            "batch_size": 32,
            "ema_halflife": 0.0,
            "steps": 1_000_000,
        },
    ),
}
PRESETS["bigvgan-v2-24khz"] = Preset(
    "24 kHz, 100 bands, 112 M parameters, as the published BigVGAN-v2",
    {
        "generator": "bigvgan-v2",  # the published config.json, as all but steps
        "second": "constant-q",
        "bands": 100,
        "high": None,
        "rate": 24000,
        "length": 65536,
        "judge": 1.0,
        "warmup": 0,
        "mel_loss": "multi",
        "mel_weight": 15.0,
        "lr": 1e-4,
        "lr_decay": 0.9999996,
        "clip": 500.0,
        "batch_size": 4,
        "ema_halflife": 0.0,
        "steps": 1_000_000,  # Lee et al.'s, appendix A
    },
)
PRESETS["bigvgan-v2-44khz"] = Preset(
    "44.1 kHz, 128 bands, a hop of 512, 122 M parameters",
    {
        **PRESETS["bigvgan-v2-24khz"].options,
        "generator": "bigvgan-v2-512",
        "bands": 128,
        "rate": 44100,
        "window": 2048,
    },
)
PRESETS["hifigan-v3"] = Preset(
    "22.05 kHz, the small one of Kong et al. (2020)",
    {**PRESETS["hifigan-v1"].options, "generator": "hifigan-v3"},
)
