"""Sinks that speak to other packages, each imported when its sink is made."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import Any

from fastgan.data.wav import decode
from fastgan.files import complete
from fastgan.media import Text
from fastgan.training.sinks import Sink

PROJECT = "fastgan"  # what loggers file runs under


class TensorBoard(Sink):
    """Event files in the run folder's tensorboard/. A resumed run tells TensorBoard to forget later steps."""

    package, pip = "tensorboard", "fastgan[train]"

    def __init__(self, folder: Path, step: int, config: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._hook, threading.excepthook = threading.excepthook, self._failed
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)

    def _failed(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's own thread could not write: its traceback is not shown, as the next call raises the error again."""
        if not issubclass(failure.exc_type, OSError):
            self._hook(failure)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def show(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        for name, file in _files(path).items():
            if file.suffix == ".txt":
                self._board.add_text(name, _markdown(file), step)
            elif file.suffix == ".wav":
                sound, rate = decode(file.read_bytes(), file.suffix)
                self._board.add_audio(name, sound.mean(0), step, rate)
            else:
                self._board.add_image(name, np.asarray(Image.open(file).convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        try:
            self._board.close()
        finally:
            threading.excepthook = self._hook


def _files(path: Path) -> dict[str, Path]:
    """What there is to show, by name: the samples, and what their medium has put beside them."""
    others = {"spectrogram": path.with_suffix(".spectrogram.png"), "sound": path.with_suffix(".wav")}
    return {"samples": path} | {name: file for name, file in others.items() if file.is_file()}


def _markdown(path: Path) -> str:
    """Its lines, as lines."""
    return path.read_text(encoding="utf-8").replace("\n", "  \n")


def _identity(path: Path) -> str:
    """What a logger knows the run by, kept in the run's folder: resumed, it goes on under the same."""
    if not path.exists():
        with complete(path) as temporary:
            temporary.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


class WandB(Sink):
    """Weights & Biases: project "fastgan" or that of WANDB_PROJECT; with WANDB_MODE=offline in the run folder's wandb/. A run
    that ends before its last step counts as failed there, until it is resumed. Curves are drawn over "step", so that the steps
    which a resumed run repeats lie on those it had told before."""

    package, pip = "wandb", "fastgan[loggers]"

    def __init__(self, folder: Path, step: int, config: dict[str, Any]):
        import wandb

        self._wandb, self._step, self._steps = wandb, step, config["config"]["steps"]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.resolve().name,
            id=_identity(folder / "wandb.id"),
            resume="allow",
            dir=str(folder),
            config=config,
            allow_val_change=True,
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: dict[str, float]) -> None:
        self._step = step
        self._run.log({"step": step, **values})

    def show(self, step: int, path: Path) -> None:
        self._run.log({"step": step, **{name: self._media(file) for name, file in _files(path).items()}})

    def _media(self, file: Path):
        if file.suffix == ".txt":
            return self._wandb.Table(columns=["text"], data=[[line] for line in Text.read(file)])
        return self._wandb.Audio(str(file)) if file.suffix == ".wav" else self._wandb.Image(str(file))

    def close(self) -> None:
        self._run.finish(exit_code=int(self._step < self._steps))


class Trackio(Sink):
    """Trackio, in its local store (TRACKIO_DIR) or where TRACKIO_SPACE_ID says: project "fastgan", the run called as its folder,
    with letters that tell it from others of that name."""

    package, pip = "trackio", "fastgan[loggers]"

    def __init__(self, folder: Path, step: int, config: dict[str, Any]):
        import trackio

        name = f"{folder.resolve().name}-{_identity(folder / 'trackio.id')}"
        self._trackio = trackio
        self._run = trackio.init(project=PROJECT, name=name, config=config, resume="allow", embed=False)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def show(self, step: int, path: Path) -> None:
        self._run.log({name: self._media(file) for name, file in _files(path).items()}, step=step)

    def _media(self, file: Path):
        if file.suffix == ".txt":
            return self._trackio.Markdown(_markdown(file))
        return self._trackio.Audio(str(file)) if file.suffix == ".wav" else self._trackio.Image(str(file))

    def close(self) -> None:
        self._run.finish()
