"""fastgan explore."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastgan.cli.options import UsageError, need_extra, parse, purpose
from fastgan.options import Count, Range


@dataclass(kw_only=True)
class Explore:
    run: Path
    """Run folder, one of its checkpoints, or .safetensors, as `fastgan convert` made it, or a folder of `fastgan pull`, or
    fastgan:emoji, which comes with the package. Of a run that is in training the newest samples are shown too."""
    directions: Path | None = None
    """The file of the sliders' directions. Default: where fastgan directions has put it, or else some that are found now."""
    steps: Count = 100
    """Steps of a projection."""
    host: str = "127.0.0.1"
    """The address to listen on. Another than this machine's own lets others use the page, which asks for no password."""
    port: Annotated[int, Range(1, 65535)] | None = None
    """Default: the first that is free from 7860 on."""
    recipe: str | None = None
    """As of fastgan sample."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def explore(argv: list[str]) -> int:
    """Explore a generator in the browser: fastgan explore RUN|FILE [--port 7860] [--host 127.0.0.1] [...]"""
    need_extra()
    options = parse(Explore, argv, "fastgan explore", purpose(explore))
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("gradio missing: pip install 'fastgan[ui]'")
    from fastgan.explore import Explored, serve
    from fastgan.explore.server import LOCAL
    from fastgan.training.distributed import find_device

    explored = Explored.load(options.run, find_device(options.device), options.recipe, options.directions)
    with serve(explored, options.host, options.port, options.steps) as url:
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        if options.host not in LOCAL:
            print("everyone who reaches this address can use the page", flush=True)
        threading.Event().wait()
    return 0
