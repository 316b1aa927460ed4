import numpy as np
import pytest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """12 images of 32x32 in colour, of 3 classes."""
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=images, labels=np.arange(len(images)) % 3)
    return str(path)


@pytest.fixture(scope="session")
def tiny(pictures):
    """The command line of a run of one step."""
    sizes = ["--width", "4", "--max-width", "8", "--latent", "4", "--batch-size", "4", "--samples", "4", "--steps", "1"]
    return ["train", "dcgan", "--data", pictures, "--conditional", *sizes, "--device", "cpu", "--gamma", "0"]
