"""An anti-aliased activation on a signal that arrives piece by piece."""

import math

import torch

from fastgan.nn.snake import Activation1d
from fastgan.ops.filtered_snake import reach


class Activation1dStream:
    """Pushes pieces of a signal through an `Activation1d`; what comes out, put together, is what the module makes of the whole.

    Of each piece it keeps the samples that later outputs need: memory does not grow. An output comes as soon as
    no later sample changes it: 5 samples late with the filters of BigVGAN.

    Args: module: the activation.

    Examples:
        >>> stream = Activation1dStream(fastgan.nn.Activation1d(fastgan.nn.Snake(3)))
        >>> [stream.push(torch.zeros(1, 3, n)).shape[2] for n in (4, 4, 20)], stream.finish().shape[2]
        ([0, 3, 20], 5)
    """

    def __init__(self, module: Activation1d) -> None:
        self.module = module
        up, down = module.upsample.ratio, module.downsample.lowpass.stride
        self._up, self._down, self._step = up, down, down // math.gcd(up, down)
        self._reach = reach(module.upsample.filter.numel(), module.downsample.lowpass.filter.numel(), up)
        self._reset()

    def _reset(self) -> None:
        self._kept, self._first, self._given = None, 0, 0  # samples from `first` on; outputs that were given

    def push(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, T], T >= 0, the next samples -> [N, C, T'], the outputs that are ready."""
        if self._kept is not None and (x.dim() != 3 or x.shape[:2] != self._kept.shape[:2]):
            raise ValueError(
                f"Activation1dStream: x has shape {tuple(x.shape)}; expected {[*self._kept.shape[:2]]} first"
            )
        x = x if self._kept is None else torch.cat([self._kept, x], -1)
        least, most = self._reach
        size = self._first + x.shape[2]
        # Output o reads from (o down + least) / up, rounded up, to (o down + most) / up, rounded down.
        ready = max(self._given, ((size - 1) * self._up + self._up - 1 - most) // self._down + 1)
        y = self._outputs(x, ready)
        needed = max(self._first, -(-(ready * self._down + least) // self._up))
        first = min(needed, size) // self._step * self._step
        self._kept, self._first, self._given = x[..., first - self._first :].clone(), first, ready
        return y

    def finish(self) -> torch.Tensor:
        """The outputs that are left, as the signal ends here; the stream is then as new."""
        if self._kept is None:
            raise ValueError("Activation1dStream: finish() before push(); expected a signal")
        size = self._first + self._kept.shape[2]
        y = self._outputs(self._kept, -(-size * self._up // self._down))
        self._reset()
        return y

    def _outputs(self, x: torch.Tensor, until: int) -> torch.Tensor:
        if until == self._given:
            return x[..., :0]
        before = self._first * self._up // self._down
        return self.module(x)[..., self._given - before : until - before]
