"""Distance of two pictures as a network sees them (Zhang et al., "The Unreasonable Effectiveness of Deep Features", 2018, eq. 1):

    d(x, y) = sum over layers l of mean over pixels of sum over channels of w_l (f_l(x) - f_l(y))^2,

f_l the features of a layer, of unit length at each pixel. With EfficientNet-Lite0, which works offline, every w_l is 1, and the
figure is called so (`efflite0`). With VGG-16 the weights are those of a local file, in torchvision's layout; w_l are LPIPS' own
where its package or its file is there, and then the figure is LPIPS.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.data.pixels import viewable
from fastgan.metrics.efflite0 import EfficientNetLite0
from fastgan.metrics.weights import read_weights

# Channels of VGG-16's convolutions (Simonyan and Zisserman, 2015, configuration D), a group for each size.
_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# ImageNet's mean and deviation, of images in [0, 1], as torchvision's weights expect them.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Perceptual(nn.Module):
    """Images x, y float [N, 1 or 3, H, W] in [-1, 1] -> distances float32 [N], differentiable.

    Args:
        layers: images [N, 3, H, W] -> feature maps [N, C_l, h_l, w_l].
        weights: for each of these a weight per channel, [C_l]; None: 1.
        name: what figures are named for.
    """

    def __init__(
        self,
        layers: Callable[[torch.Tensor], Sequence[torch.Tensor]],
        weights: Sequence[torch.Tensor] | None = None,
        name: str = "perceptual",
    ):
        super().__init__()
        self.layers, self.name = layers, name
        self.count = None if weights is None else len(weights)
        for i, weight in enumerate(weights or ()):
            self.register_buffer(f"weight{i}", weight.float())

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What `distance` compares: of a fixed picture to be computed once."""
        images = viewable(images).float()
        maps = self.layers(images.expand(-1, 3, -1, -1))
        return [f * (f.square().sum(1, keepdim=True) + 1e-10).rsqrt() for f in maps]

    def distance(self, x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]) -> torch.Tensor:
        """[N] of the features of N pictures each."""
        total = torch.zeros(len(x[0]), device=x[0].device)
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            squares = (a - b).square()
            if self.count is not None:
                squares = squares * getattr(self, f"weight{i}")[:, None, None]
            total = total + squares.sum(1).mean((1, 2))
        return total

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.distance(self.features(x), self.features(y))


@in_float32
def load_perceptual(
    name: str | Path = "efflite0", device: str | torch.device = "cpu", lpips: str | Path | None = None
) -> Perceptual:
    """The distance by name: efflite0, or the file of VGG-16's weights in torchvision's layout (vgg16-*.pth). lpips: the file of
    LPIPS' own weights of its layers (vgg.pth); default: that of the package lpips where it is installed, else 1.

    Raises ValueError for another name or content, FileNotFoundError, and ImportError where efflite0's weights are missing.
    """
    if str(name) == "efflite0":
        if lpips is not None:
            raise ValueError(f"lpips={lpips} belongs to the weights of VGG-16, and {name} brings its own")
        return Perceptual(EfficientNetLite0.pretrained().to(device).maps, name="efflite0").to(device)
    if not str(name).endswith((".pth", ".pt")):
        raise ValueError(f"perceptual is {str(name)!r}, expected efflite0 or a file of VGG-16's weights, .pth")
    network = VGG16().eval().requires_grad_(False)
    network.load(name)
    package = importlib.util.find_spec("lpips")
    if lpips is None and package is not None and package.origin:
        lpips = Path(package.origin).parent / "weights" / "v0.1" / "vgg.pth"
    weights = None if lpips is None else _lpips(lpips)
    return Perceptual(network.to(device), weights, "vgg16" if weights is None else "lpips").to(device)


def _lpips(path: str | Path) -> list[torch.Tensor]:
    state = read_weights(path)
    names = [f"lin{i}.model.1.weight" for i in range(len(_VGG))]
    expected = [(1, widths[-1], 1, 1) for widths in _VGG]
    found = [tuple(state[name].shape) if name in state else None for name in names]
    if found != expected:
        raise ValueError(f"{path}: {', '.join(names)} have shapes {found}, expected {expected}")
    return [state[name].flatten() for name in names]


class VGG16(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> the five feature maps before VGG-16's poolings."""

    def __init__(self):
        super().__init__()
        inputs, groups = 3, []
        for widths in _VGG:
            group = []
            for width in widths:
                group.append(nn.Conv2d(inputs, width, 3, padding=1))
                inputs = width
            groups.append(nn.ModuleList(group))
        self.groups = nn.ModuleList(groups)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None])

    def load(self, path: str | Path) -> None:
        """Weights of torchvision's layout, `features.N.weight`: N counts convolutions, activations and poolings. ValueError where
        one is missing or has another shape."""
        state, number = read_weights(path), 0
        for group in self.groups:
            for conv in group:
                for part in ("weight", "bias"):
                    name, own = f"features.{number}.{part}", getattr(conv, part)
                    if name not in state or state[name].shape != own.shape:
                        found = list(state[name].shape) if name in state else "absent"
                        raise ValueError(f"{path}: {name} is {found}, expected {list(own.shape)}, as of VGG-16")
                    own.data.copy_(state[name])
                number += 2
            number += 1

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x, maps = ((images + 1) / 2 - self.mean) / self.deviation, []
        for i, group in enumerate(self.groups):
            if i:
                x = nn.functional.max_pool2d(x, 2)
            for conv in group:
                x = torch.relu(conv(x))
            maps.append(x)
        return maps
