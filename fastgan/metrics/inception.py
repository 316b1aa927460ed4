"""The official Inception features, through the torch-fidelity package (extra `inception`): what FID, KID and IS are named for.

The weights are downloaded by torch-fidelity on first use, or read from a local file (its `weights-inception-2015-12-05` .pth).
Not run with the official weights in this project's tests, which have no network: only the path from file to features is.
"""

from pathlib import Path

import torch
from torch import nn


class Inception(nn.Module):
    """images uint8 [N, 1 or 3, H, W] -> features float32 [N, 2048], with TensorFlow 1's resize, as in the FID's original.

    Raises ImportError if torch-fidelity is missing, FileNotFoundError if `weights` is.
    """

    name, dim = "inception", 2048

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        if weights is not None and not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: no such Inception weights file")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError("official Inception features need: pip install 'fastgan[inception]'") from error
        path = None if weights is None else str(weights)
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.expand(-1, 3, -1, -1))[0].float()

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Class logits [N, 1008] without the bias, which the Inception score is computed from."""
        return features @ self.network.fc.weight.mT
