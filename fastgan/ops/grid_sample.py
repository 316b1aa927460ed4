"""Bilinear sampling at given points, differentiable to any order in the image and in the points.

torch's own second derivative of `grid_sample` does not exist. With the four neighbours of a point p00, p10 (one step in x),
p01, p11 (0 outside the image) and its fractions u, v:

    y = p00 (1-u)(1-v) + p10 u (1-v) + p01 (1-u) v + p11 u v
    Dx = (p10 - p00)(1-v) + (p11 - p01) v,   Dy = (p01 - p00)(1-u) + (p11 - p10) u,   Dxy = p00 - p10 - p01 + p11

Forward and first derivative are torch's kernels; the second is written in Dx, Dy and Dxy with torch operations.
"""

import torch
import torch.nn.functional as F

from fastgan._torch_private import transforming
from fastgan.ops._autocast import is_autocast, outside_autocast
from fastgan.ops._checks import accumulation_dtype, check_floating, check_like, check_rank


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """`torch.nn.functional.grid_sample` with mode="bilinear", padding_mode="zeros", align_corners=False.

    Args:
        input: [N, C, H, W]; float16, bfloat16, float32 or float64 (16-bit types are computed in float32: in 16 bits a
            coordinate is worth less than a pixel).
        grid: [N, H', W', 2], points (x, y) of the dtype of input; -1 and 1 are the outer edges of the image.

    Returns: [N, C, H', W'] of the dtype of input, differentiable to any order in both arguments (almost everywhere: y is
    not differentiable in the grid where a point meets the centre lines of pixels).
    Raises: TypeError, ValueError for wrong arguments.
    Source: Jaderberg et al. 2015 ("Spatial Transformer Networks"), equations 5 to 7.
    """
    check_floating("grid_sample", "input", input)
    check_floating("grid_sample", "grid", grid)
    check_rank("grid_sample", "input", input, 4)
    check_rank("grid_sample", "grid", grid, 4)
    if is_autocast(input.device.type):  # the wider of the two, as autocast has it for torch's own
        wider = torch.promote_types(input.dtype, grid.dtype)
        input, grid = input.to(wider), grid.to(wider)
    check_like("grid_sample", "grid", grid, input)
    if grid.shape[0] != input.shape[0] or grid.shape[3] != 2:
        raise ValueError(
            f"grid_sample: grid has shape {tuple(grid.shape)}; expected ({input.shape[0]}, H', W', 2) for an input of shape"
            f" {tuple(input.shape)}"
        )
    if 0 in input.shape[2:]:
        raise ValueError(f"grid_sample: input has shape {tuple(input.shape)}; expected at least one pixel")
    return _sample(input, grid)


@outside_autocast
def _sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    if 0 in grid.shape or input.shape[1] == 0:
        return input.new_empty(*input.shape[:2], *grid.shape[1:3]) + 0 * (input.sum() + grid.sum())
    wide = accumulation_dtype(input.dtype)
    # A compiler and a transform cannot see a derivative they lack: they are given the formula itself.
    sample = _formula if torch.compiler.is_compiling() or transforming() else _GridSample.apply
    return sample(input.to(wide), grid.to(wide)).to(input.dtype)


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, grid):
        ctx.save_for_backward(input, grid)
        return F.grid_sample(input, grid, "bilinear", "zeros", align_corners=False)

    @staticmethod
    @outside_autocast
    def backward(ctx, dy):
        if transforming():  # a graph recorded before it, differentiated inside: vmap over autograd.grad
            return torch.func.vjp(_formula, *ctx.saved_tensors)[1](dy)
        by_input, by_grid = _GridSampleBackward.apply(dy, *ctx.saved_tensors, ctx.needs_input_grad)
        return by_input if ctx.needs_input_grad[0] else None, by_grid if ctx.needs_input_grad[1] else None


class _GridSampleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, input, grid, needs):
        ctx.save_for_backward(dy, input, grid)
        bilinear = zeros = 0
        return torch.ops.aten.grid_sampler_2d_backward(dy, input, grid, bilinear, zeros, False, needs)

    @staticmethod
    @outside_autocast
    def backward(ctx, v_input, v_grid):
        """Of S = <v_input, dS/dinput> + <v_grid, dS/dgrid> = <dy, sample(v_input) + a Dx + b Dy>, (a, b) = v_grid in pixels."""
        dy, input, grid = ctx.saved_tensors
        if v_input is None:  # the gradient by the image was not made: it needs none
            v_input = torch.zeros_like(input)
        h, w = input.shape[2:]
        points = _Points(grid, h, w)
        a, b = (v_grid[:, None, ..., 0] * (w / 2), v_grid[:, None, ..., 1] * (h / 2))
        by_dy = by_input = by_grid = None
        p00, p10, p01, p11 = points.gather(input)
        if ctx.needs_input_grad[0]:
            by_dy = grid_sample(v_input, grid)
            by_dy = by_dy + a * points.along_x(p00, p10, p01, p11) + b * points.along_y(p00, p10, p01, p11)
        if ctx.needs_input_grad[1]:
            u, v = points.u, points.v
            shares = (-a * (1 - v) - b * (1 - u), a * (1 - v) - b * u, -a * v + b * (1 - u), a * v + b * u)
            by_input = points.scatter([dy * s for s in shares])
        if ctx.needs_input_grad[2]:
            q = points.gather(v_input)
            twist = p00 - p10 - p01 + p11
            by_x = (dy * (points.along_x(*q) + b * twist)).sum(1) * (w / 2)
            by_y = (dy * (points.along_y(*q) + a * twist)).sum(1) * (h / 2)
            by_grid = torch.stack((by_x, by_y), -1)
        return by_dy, by_input, by_grid, None


class _Points:
    """The four neighbours of every point of a grid: their fractions, positions and whether they lie inside the image."""

    def __init__(self, grid: torch.Tensor, h: int, w: int) -> None:
        x, y = ((grid[:, None, ..., 0] + 1) * w - 1) / 2, ((grid[:, None, ..., 1] + 1) * h - 1) / 2
        left, top = x.detach().floor(), y.detach().floor()
        self.u, self.v = x - left, y - top
        self.size = (h, w)
        # Bounded first: a float beyond the range of int64 has no integer.
        left, top = left.clamp(-2, w + 1).long(), top.clamp(-2, h + 1).long()
        self.index, self.inside = [], []
        for j, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = left + i, top + j
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            self.index.append((row * w + column).where(inside, 0).flatten(2))
            self.inside.append(inside)

    def gather(self, image: torch.Tensor) -> list[torch.Tensor]:
        n, c = image.shape[:2]
        flat = image.reshape(n, c, -1)
        found = [
            flat.gather(2, i.expand(-1, c, -1)).reshape(n, c, *k.shape[2:])
            for i, k in zip(self.index, self.inside, strict=True)
        ]
        return [p.where(k, 0) for p, k in zip(found, self.inside, strict=True)]

    def scatter(self, values: list[torch.Tensor]) -> torch.Tensor:
        n, c = values[0].shape[:2]
        h, w = self.size
        image = values[0].new_zeros(n, c, h * w)
        for p, i, k in zip(values, self.index, self.inside, strict=True):
            image = image.scatter_add(2, i.expand(-1, c, -1), p.where(k, 0).flatten(2))
        return image.reshape(n, c, h, w)

    def along_x(self, p00, p10, p01, p11):
        return (p10 - p00) * (1 - self.v) + (p11 - p01) * self.v

    def along_y(self, p00, p10, p01, p11):
        return (p01 - p00) * (1 - self.u) + (p11 - p10) * self.u


def _formula(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    points = _Points(grid, *input.shape[2:])
    p00, p10, p01, p11 = points.gather(input)
    u, v = points.u, points.v
    return p00 * ((1 - u) * (1 - v)) + p10 * (u * (1 - v)) + p01 * ((1 - u) * v) + p11 * (u * v)
