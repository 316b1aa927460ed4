"""Capture and replay of CUDA graphs: what a function launches is recorded once and then launched again by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Cuda:
    """Capture and replay on a CUDA device. All graphs of one object share their memory, as one runs at a time."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    @staticmethod
    def why_not(device: torch.device) -> str:
        """Why there are no graphs on `device`; empty where there are."""
        return "" if device.type == "cuda" else f"graphs are made by CUDA, and this is on {device}"

    def aside(self, function: Callable[[], Any]) -> Any:
        """function(), on the stream that captures."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = function()
        here.wait_stream(self._stream)
        return result

    def capture(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """(replay, the result whose tensors each replay fills). Nothing is computed yet; the next replay of any graph may write
        over these tensors."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on with CUDA: checkpoints are written, batches are pinned.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = function()

        def replay() -> None:
            with torch.cuda.device(self._device):
                graph.replay()

        return replay, result
