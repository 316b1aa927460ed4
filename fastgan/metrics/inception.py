"""The official Inception features, through the torch-fidelity package (extra `inception`): what FID, KID and IS are named for.

The weights are downloaded on first use, or read from a local file. Either way they are read here: the package itself would
run code from the file, and does not look at its hash.

Not run with the official weights in this project's tests, which have no network: only the path from file to features is.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from fastgan.metrics.weights import read_weights, sha256

SHA256 = "6726825d"  # first digits, which the published file carries in its name


def title(weights: str | Path | None) -> str:
    """What features made with the file `weights` are named: "inception", with the file's hash if it is not the published one."""
    found = SHA256 if weights is None else sha256(weights)
    return "inception" if found.startswith(SHA256) else f"inception_{found[:8]}"


class Inception(nn.Module):
    """images uint8 [N, 1 or 3, H, W] -> features float32 [N, 2048], with TensorFlow 1's resize, as in the FID's original.

    `name` is "inception" with the published weights only; with others a warning says so.

    Raises ImportError if torch-fidelity is missing, FileNotFoundError if `weights` is, ValueError where it is no file of
    these weights, OSError where they cannot be downloaded.
    """

    dim, resize, precision = 2048, "bilinear as in TensorFlow 1, to 299x299", "float32"

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        self.name = title(weights)
        try:
            import torch_fidelity
            from torch_fidelity import feature_extractor_inceptionv3 as library
        except ImportError as error:
            raise ImportError("official Inception features need: pip install 'fastgan[inception]'") from error
        self.release = torch_fidelity.__version__
        if weights is None:
            weights = _published(library.URL_INCEPTION_V3)
            state = read_weights(weights, SHA256)
        else:
            state = read_weights(weights)
        if self.name != "inception":
            warnings.warn(
                f"{weights}: not the published Inception weights, whose SHA-256 begins with {SHA256}: what is computed "
                f"with them is no FID, and is named _{self.name}",
                stacklevel=2,
            )
        copy = io.BytesIO()  # the package unpickles what it is given, so it is given what was written here
        torch.save(state, copy)
        copy.seek(0)
        try:
            self.network = library.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=copy
            )
        except RuntimeError as error:  # of load_state_dict
            raise ValueError(f"{weights}: not weights of the Inception network ({str(error)[:300]})") from error
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.network.fc.weight.device).expand(-1, 3, -1, -1)
        return self.network(images)[0].float()

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Class logits [N, 1008] without the bias, which the Inception score is computed from."""
        return features @ self.network.fc.weight.mT


def _published(url: str) -> Path:
    """The file at `url`, downloaded unless it lies in torch.hub's folder already."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=SHA256)
        except (OSError, RuntimeError) as error:  # RuntimeError: another hash
            raise OSError(f"{url}: {error}; fetch it by other means and give weights=FILE") from error
    return path
