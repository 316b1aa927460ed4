"""Rectangles, alpha and 16 bits on the command line."""

import numpy as np
import pytest
from PIL import Image

from fastgan.cli import main
from fastgan.data import load


@pytest.fixture(scope="module")
def rgba(tmp_path_factory):
    """Eight pictures of 96x160, whose colour and alpha are noise."""
    folder, rng = tmp_path_factory.mktemp("rgba"), np.random.default_rng(3)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (96, 160, 4), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("words", "shape", "dtype"),
    [
        (["--resolution", "24", "40", "--channels", "4"], (4, 24, 40), np.uint8),
        (["--crop", "none", "--channels", "2", "--bits", "16"], (2, 96, 160), np.uint16),
        (["--resolution", "12"], (3, 12, 12), np.uint8),
    ],
)
def test_prepare(rgba, tmp_path, capsys, words, shape, dtype):
    out = tmp_path / "set.npz"
    assert main(["data", "prepare", str(rgba), str(out), *words]) == 0
    assert "x".join(map(str, shape)) in capsys.readouterr().out
    with np.load(out) as arrays:
        assert (
            arrays["images"].shape == (8, *shape) and arrays["images"].dtype == dtype and str(arrays["axes"]) == "NCHW"
        )
    assert load(out).images.shape == (8, *shape)


@pytest.mark.parametrize(
    "words",
    [
        ["--resolution", "1", "2", "3"],
        ["--resolution", "96", "0"],
        ["--channels", "0"],
        ["--bits", "12"],
        ["--crop", "some"],
        ["--channels", "5"],
        ["--crop", "none", "--resolution", "96"],
    ],
)
def test_refused(rgba, tmp_path, capsys, words):
    out = tmp_path / "set.npz"
    try:
        code = main(["data", "prepare", str(rgba), str(out), *words])
    except SystemExit as stop:
        code = stop.code
    assert code not in (0, None) and words[0] in capsys.readouterr().err.replace("'none'", "") and not out.exists()
