"""Exported files in their runtimes: functions from inputs by name to one tensor, and what draws samples with such a function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from fastgan._torch_private import load_aotinductor
from fastgan.convert.converted import numpy_latents
from fastgan.export.plan import MEDIA, Facts
from fastgan.fields import shorten
from fastgan.training.recipe import latents_of
from fastgan.untrusted import BadFile, open_regular

Engine = Callable[[dict[str, torch.Tensor]], torch.Tensor]
EXTRAS = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export", "openvino": "openvino"}


def need(package: str) -> Any:
    """The module of an extra. Raises ImportError that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{package} is missing: pip install 'fastgan[{EXTRAS[package]}]'") from error


def onnxruntime(path: Path) -> tuple[Engine, str]:
    """The engine of an .onnx file on as many threads as torch uses, and its facts as JSON."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        (made,) = session.run(None, {name: t.numpy() for name, t in inputs.items()})
        return torch.from_numpy(made)

    return run, session.get_modelmeta().custom_metadata_map.get("fastgan", "")


def openvino(path: Path) -> tuple[Engine, str]:
    """The engine of an .onnx file or of OpenVINO's .xml, in float32, and the facts as JSON: of an .xml alone."""
    runtime = need("openvino")
    model = runtime.Core().read_model(str(path))
    about = model.get_rt_info("fastgan").astype(str) if model.has_rt_info("fastgan") else ""
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = runtime.Core().compile_model(model, "CPU", hints)

    def run(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        made = compiled({name: t.numpy() for name, t in inputs.items()})
        return torch.from_numpy(made[0].copy())  # the runtime's own memory, which its next call writes again

    return run, about


def pt2(path: Path) -> tuple[Engine, str]:
    """The engine of a torch.export file, and its facts as JSON."""
    extra = {"fastgan.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    return lambda inputs: module(**inputs), extra["fastgan.json"]


def aotinductor(path: Path) -> tuple[Engine, str]:
    """The engine of an AOTInductor package, machine code that runs as it is loaded, and its facts as JSON."""
    model = load_aotinductor(path)
    return lambda inputs: model(**inputs), model.get_metadata().get("fastgan", "")


class Exported:
    """An exported network in an engine; stands where a recipe does in `fastgan sample`."""

    sample_columns = ()

    def __init__(self, facts: Facts, engine: Engine):
        self.facts, self.engine = facts, engine
        self.name, self.medium = facts.recipe, MEDIA[facts.medium]
        self.data = facts.data | {"resolution": facts.resolution, "num_classes": facts.classes}
        self.sample_options: tuple[str, ...] = ("separate", "interpolate")
        self.sample_options += ("class_label",) * (facts.class_label == "input")
        self.sample_options += ("truncation",) * (facts.truncation == "input")
        if facts.kind == "translator":
            self.sample_options, self.generators = ("input",), {facts.direction: "generator"}
            self.translate = self._translate
        elif facts.kind == "upscaler":
            self.sample_options, self.scale, self.multiple = ("input", "tile", "overlap"), facts.scale, facts.multiple
            self.upscale = self._upscale

    def latents(self, seeds: list[int]) -> torch.Tensor:
        """Those that the exported recipe makes of seeds."""
        if self.facts.draws == "numpy":
            return numpy_latents(seeds, *self.facts.latent_shape)
        return latents_of(seeds, self.facts.latent_shape)

    def labels(self, seeds: list[int]) -> torch.Tensor | None:
        """A class per seed, in turn; None where the graph takes none."""
        if self.facts.class_label != "input":
            return None
        return torch.tensor([seed % self.facts.classes for seed in seeds])

    def generate(
        self, networks: dict, latents: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0
    ) -> torch.Tensor:
        """Samples of latents, with classes and a truncation where the graph takes them. Raises ValueError for a graph that takes
        noise too."""
        inputs = {"latents": latents.contiguous()}
        if "labels" in self.facts.inputs:
            inputs["labels"] = labels.expand(len(latents)).contiguous()
        if "truncation" in self.facts.inputs:
            inputs["truncation"] = torch.tensor(float(truncation))
        if "noise" in self.facts.inputs:
            raise ValueError(f"{self.name}: the noise of each layer is an input of this file, which seeds do not say")
        return self.engine(inputs)

    def sample(self, networks: dict, seeds: list[int]) -> torch.Tensor:
        """Samples of seeds, classes in turn. Raises ValueError for a network that translates."""
        if self.facts.kind != "generator":
            raise ValueError(f"{self.name} makes images of images: give --input FOLDER instead of seeds")
        return self.generate(networks, self.latents(seeds), self.labels(seeds))

    def _translate(self, networks: dict, images: torch.Tensor, direction: str) -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] -> images in [-1, 1]."""
        if direction != self.facts.direction:
            raise ValueError(f"{self.name}: this file translates {self.facts.direction}, not {direction}")
        return self.engine({"images": images.contiguous()})

    def _upscale(self, networks: dict, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] -> [N, C, scale H, scale W]."""
        return self.engine({"images": images.contiguous()})


def load(
    path: str | Path, engine: Literal["onnxruntime", "openvino"] = "onnxruntime"
) -> tuple[Exported, dict[str, Engine]]:
    """An exported .onnx file in a runtime, as `fastgan.recipes.load_run` gives a run: for `fastgan sample`.

    Raises BadFile for a file that no fastgan wrote; ImportError where the runtime is not installed.
    """
    path = Path(path)
    open_regular(path).close()
    try:
        run, about = onnxruntime(path)
        if engine == "openvino":  # which reads no metadata of ONNX
            run, _ = openvino(path)
    except (ImportError, OSError):
        raise
    except Exception as error:  # each runtime has errors of its own
        raise BadFile(f"{path} cannot be read by {engine}: {shorten(error)}") from error
    if not about:
        raise BadFile(f"{path} was not written by fastgan export: it does not say how seeds become samples")
    return Exported(Facts.from_json(about, path), run), {"generator": run}
