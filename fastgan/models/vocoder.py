"""What vocoders have in common, and their streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from fastgan.models.network import Network


class Vocoder(Network):
    """A generator of signals [N, 1, hop frames] from log mel spectrograms [N, bands, frames].

    Attributes: `config`, with `bands` and `hop`, samples of a frame; `context`: how many frames to each side of one its samples
    depend on at most; `exact`: whether a signal has hop samples for each frame.
    """

    config: Any
    context: int
    exact: bool = True

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.config.hop

    def check(self, mel: torch.Tensor) -> None:
        if mel.dim() != 3 or mel.shape[1] != self.config.bands or not mel.shape[2]:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(
                f"{name}: the mel spectrogram has shape {tuple(mel.shape)}, expected [N, {self.config.bands}, frames], one "
                "frame at least"
            )

    def part(self, mel: torch.Tensor, first: int, last: int, state: Any = None) -> tuple[torch.Tensor, Any]:
        """The signal of the frames from `first` to before `last`, and what is to be known of `last` where it goes on. `state`: of
        `first`, None at the beginning."""
        return self(mel)[..., first * self.hop : last * self.hop], None


def stream(generator: Vocoder, mels: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The signal of a mel spectrogram that comes in pieces [N, bands, frames], in pieces [N, 1, hop frames], each as early as it
    can be known: `generator.context` frames later. Memory is that of a piece and twice the context.

    Together they equal the signal of the whole (to rounding, as convolutions of other lengths may sum in another order).

    Raises ValueError for a generator whose length is not hop times the frames.

    Examples:
        >>> mel = torch.randn(1, 80, 200)
        >>> generator = fastgan.models.build("hifigan", width=32)
        >>> pieces = fastgan.models.vocoder.stream(generator, mel.split(50, dim=2))
        >>> torch.cat(list(pieces), 2).shape
        torch.Size([1, 1, 51200])
    """
    if not generator.exact:
        raise ValueError("stream: up_kernels minus rates must be even, so that each frame has as many samples")
    held, done, state = None, 0, None  # frames in hand; how many of them have been heard
    for mel in mels:
        held = mel if held is None else torch.cat([held, mel], 2)
        until = held.shape[2] - generator.context
        if until > done:
            piece, state = generator.part(held, done, until, state)
            yield piece
            drop = max(0, until - generator.context)
            held, done = held[..., drop:], until - drop
    if held is not None and held.shape[2] > done:
        yield generator.part(held, done, held.shape[2], state)[0]
