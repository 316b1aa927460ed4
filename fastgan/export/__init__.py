"""Networks for other runtimes: ONNX, torch.export, AOTInductor, OpenVINO. The ops of fastgan become PyTorch's, and those the
standard operators of the format, so that a file needs no fastgan where it runs. A file is compared with the network, in its
runtime, before it gets its name."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from fastgan._torch_private import compile_aotinductor
from fastgan.export import engines
from fastgan.export.engines import Exported, load
from fastgan.export.plan import ExportError, Facts, Plan, plan
from fastgan.fields import shorten
from fastgan.files import check_beside
from fastgan.ops._library import as_torch

__all__ = ["ExportError", "Exported", "Facts", "export", "load", "to_aotinductor", "to_onnx", "to_openvino", "to_pt2"]

TOLERANCE = 1e-4  # of the largest output, which for images is about 1


def to_onnx(source: Any, out: str | Path, **options: Any) -> float:
    """Writes the generator of `source` as ONNX, for ONNX Runtime and OpenVINO; returns the largest difference found.

        fastgan.export.to_onnx("runs/faces", "faces.onnx", truncation=0.7)

    Args:
        source: a run's folder or a checkpoint in it, a `fastgan.Run`, a .safetensors file of `fastgan convert`, what
            `fastgan.recipes.load_run` or `fastgan.convert.load` returned, or a generator of `fastgan.models`. Networks run in
            eval mode and in float32.
        out: a name that ends in .onnx; a file of that name is replaced.
        truncation: a number, fixed in the graph. Default: where the generator has it, it is the input `truncation`, float32 [].
        class_label: a number, fixed likewise. Default: of conditional networks, the input `labels`, int64 [batch].
        noise: StyleGAN2's. "const" (the default): a fixed pattern; "none"; "input": the input `noise`, float32 [batch, pixels of
            all layers], standard normal numbers for fresh noise.
        direction: of a recipe that translates, "AtoB" or "BtoA"; default: the first that it has learnt.
        recipe: the recipe of a run's folder that is not registered, as in `fastgan.recipes.load_run`.

    Generators take `latents` [batch, ...]; networks that translate or upscale take `images` [batch, C, height, width] in [-1, 1].
    batch, height and width are free (height and width in steps, see the metadata). The metadata "fastgan" is JSON: `Facts`.

    Raises: ExportError for a network that the format cannot express, naming the operation, or whose exported form differs from
    it by more than 1e-4 of the largest output; then no file is left behind. ValueError for an option that the network does not
    have, ImportError for a package that is missing.
    """
    return _write(source, out, ".onnx", _onnx, engines.onnxruntime, options)


def to_pt2(source: Any, out: str | Path, **options: Any) -> float:
    """As `to_onnx`, by torch.export: `torch.export.load(out).module()`, which needs torch alone. A name that ends in .pt2."""
    return _write(source, out, ".pt2", _pt2, engines.pt2, options)


def to_aotinductor(source: Any, out: str | Path, **options: Any) -> float:
    """As `to_onnx`, compiled for this machine's CPU by AOTInductor: `torch._inductor.aoti_load_package(out)`, or in C++. A name
    that ends in .pt2; `fastgan export` tells it by .aoti.pt2. Needs a C++ compiler."""
    return _write(source, out, ".pt2", _aotinductor, engines.aotinductor, options)


def to_openvino(source: Any, out: str | Path, **options: Any) -> float:
    """As `to_onnx`, as OpenVINO's IR: `out` ends in .xml, and the weights, in float32, lie beside it in a .bin. Extra
    `openvino`."""
    return _write(source, out, ".xml", _openvino, engines.openvino, options)


# By the end of a file's name; the first that fits.
FORMATS: dict[str, Callable[..., float]] = {
    ".aoti.pt2": to_aotinductor,
    ".pt2": to_pt2,
    ".onnx": to_onnx,
    ".xml": to_openvino,
}


def export(source: Any, out: str | Path, **options: Any) -> float:
    """As `to_onnx`, in the format that the end of `out` names: .onnx, .pt2 (torch.export), .aoti.pt2 (AOTInductor), .xml
    (OpenVINO). Raises ValueError for another."""
    return check_name(out)(source, out, **options)


def check_name(out: str | Path) -> Callable[..., float]:
    """The function that writes the format of `out`; errors as of `export`."""
    for suffix, to in FORMATS.items():
        if Path(out).name.endswith(suffix):
            return to
    raise ValueError(f"{out}: expected a name that ends with {', '.join(FORMATS)}")


def _write(source, out, suffix: str, write: Callable, engine: Callable, options: dict[str, Any]) -> float:
    out = Path(out)
    if out.suffix != suffix:
        raise ValueError(f"{out}: expected a name that ends with {suffix}")
    planned = plan(source, **options)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), tempfile.TemporaryDirectory(prefix=".fastgan-", dir=out.parent) as folder:
        made = Path(folder) / out.name
        write(planned, _program(planned), made)
        difference = _compare(planned, engine(made)[0])
        files = sorted(Path(folder).iterdir())  # with what lies beside it
        check_beside(out, *(out.with_name(file.name) for file in files))
        for file in files:
            os.replace(file, out.with_name(file.name))
    return difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own reports, which speak of torch's graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _program(planned: Plan) -> torch.export.ExportedProgram:
    """The graph of torch's operations."""
    name = planned.facts.recipe
    try:
        with torch.no_grad(), as_torch():
            program = torch.export.export(
                planned.module, (), planned.examples, dynamic_shapes=planned.free, strict=False
            )
    except Exception as error:  # torch has many for code that no graph can express
        raise ExportError(f"{name} cannot be exported: {_culprit(error)}") from error
    foreign = {
        str(node.target)
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace not in ("aten", "prims")
    }
    if foreign:
        raise ExportError(f"{name} cannot be exported: no other runtime has the operation {', '.join(sorted(foreign))}")
    return program


# What torch's messages say of the operation or the line that no graph can hold, and what to make of it.
CULPRITS = {
    r"No ONNX function found for <OpOverload\(op='([\w.:]+)'": "ONNX has no form of the operation {}",
    r"Error when translating node [^\n]*target=torch\.ops\.([\w.]+)": "ONNX has no form of the operation {}",
    r"data-dependent[\s\S]*following call raised this error:\s+(File [^\n]+\n[^\n]+)": "it decides by numbers of a tensor: {}",
}


def _culprit(error: BaseException) -> str:
    """What is in the way, by an exporter's error or one that it came from; else the beginning of its message."""
    seen: BaseException | None = error
    while seen is not None:
        for pattern, meaning in CULPRITS.items():
            if found := re.search(pattern, str(seen)):
                return shorten(meaning.format(" ".join(found[1].split())))
        seen = seen.__cause__ or seen.__context__
    return shorten(error)


def _compare(planned: Plan, engine: engines.Engine) -> float:
    """The largest difference from the module over all checks, as a share of the largest output where that is above 1."""
    worst = 0.0
    for inputs in planned.checks():
        with torch.no_grad():
            expected = planned.module(**inputs)
            found = engine(inputs)
        if found.shape != expected.shape:
            raise ExportError(
                f"{planned.facts.recipe}: the exported form makes {list(found.shape)}, the network {list(expected.shape)}"
            )
        difference = (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        if not difference <= TOLERANCE:  # NaN too
            raise ExportError(
                f"{planned.facts.recipe}: the exported form differs by {difference:.2g}, of which {TOLERANCE} is allowed;"
                " nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _onnx(planned: Plan, program: torch.export.ExportedProgram, path: Path) -> None:
    engines.need("onnx"), engines.need("onnxscript")
    facts = planned.facts
    try:
        made = torch.onnx.export(
            program,
            input_names=list(planned.examples),
            output_names=["samples" if facts.kind == "generator" else "translated"],
            dynamic_shapes=planned.free,
            verbose=False,
        )
    except Exception as error:
        raise ExportError(f"{facts.recipe} cannot be exported: {_culprit(error)}") from error
    made.model.metadata_props["fastgan"] = facts.to_json()
    made.save(path)


def _pt2(planned: Plan, program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path, extra_files={"fastgan.json": planned.facts.to_json()})


def _aotinductor(planned: Plan, program: torch.export.ExportedProgram, path: Path) -> None:
    try:
        compile_aotinductor(program, path, {"fastgan": planned.facts.to_json()})
    except Exception as error:
        raise ExportError(f"{planned.facts.recipe} cannot be compiled: {shorten(error)}") from error


def _openvino(planned: Plan, program: torch.export.ExportedProgram, path: Path) -> None:
    runtime = engines.need("openvino")
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "network.onnx"
        _onnx(planned, program, onnx)
        model = runtime.convert_model(str(onnx))
        model.set_rt_info(planned.facts.to_json(), "fastgan")
        runtime.save_model(model, str(path), compress_to_fp16=False)
