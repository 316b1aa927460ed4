"""fastgan export."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastgan.cli.options import need_extra, parse, purpose


@dataclass(kw_only=True)
class Options:
    run: Path
    """Run folder, as `fastgan train` made it, or one of its checkpoints, or .safetensors, as `fastgan convert` made it, or
    fastgan:emoji, which comes with the package."""
    out: Path
    """The file to write: .onnx, .pt2 (torch.export), .aoti.pt2 (AOTInductor: machine code for this CPU), or .xml (OpenVINO)."""
    truncation: float | None = None
    """StyleGAN: fix it to this number. Default: it is an input."""
    class_label: int | None = None
    """Class-conditional networks: fix the class to this one. Default: classes are an input."""
    noise: Literal["const", "none", "input"] | None = None
    """StyleGAN2: a fixed pattern (const, the default), none, or as an input."""
    direction: Literal["AtoB", "BtoA"] | None = None
    """Translation: from the first set to the second, or back. Default: AtoB, or what the run has learnt."""
    recipe: str | None = None
    """The recipe that the run was trained with, where it is not one that is registered; as of `fastgan sample`."""


def export(argv: list[str]) -> int:
    """A generator for other runtimes, checked in them: fastgan export RUN|FILE.safetensors OUT.onnx|.pt2|.aoti.pt2|.xml"""
    need_extra()
    options = parse(Options, argv, "fastgan export", purpose(export))

    import fastgan.export
    from fastgan.files import check_writable
    from fastgan.sampling import load_generator

    given = {name: getattr(options, name) for name in ("truncation", "class_label", "noise", "direction")}
    fastgan.export.check_name(options.out)
    check_writable(options.out.parent)
    difference = fastgan.export.export(load_generator(options.run, "cpu", options.recipe), options.out, **given)
    print(f"{options.out}: largest difference from the network {difference:.1e}")
    if options.out.suffix == ".onnx":
        print(f"next: fastgan sample {shlex.quote(str(options.out))}")
    return 0
