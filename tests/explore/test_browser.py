"""The page in a browser: it opens, asks no other machine for anything, a slider changes the picture, a picture is projected and a
hostile one refused with a message."""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import CHROMIUM, DRIVER, browser
from PIL import Image
from saved_runs import write_run
from uploads import bomb, encoded

pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and chromedriver are not installed"),
]

import fastgan.data  # noqa: E402
from fastgan.explore import Explored, serve  # noqa: E402

SHOWN = "return document.querySelector('#shown img')?.src"
OTHER = "const src = document.querySelector('#shown img')?.src; return src !== arguments[0] && src"
MOVE = """
const slider = document.querySelector(arguments[0] + " input[type=range]");
slider.value = arguments[1];
for (const kind of ["input", "change", "pointerup"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
"""
FASTGAN, NAME, STEPS = (sys.executable, "-m", "fastgan"), "fastgan:emoji", 60
HELD_OUT = "1F600"  # Twitter's: fastgan:emoji has seen Google's alone
FILES = (("picture", "png"), ("latent", "safetensors"))
ELSEWHERE = """return performance.getEntriesByType("resource").map((entry) => entry.name)
  .filter((name) => !name.startsWith(location.origin) && !/^(data|blob):/.test(name))"""


def test_a_generator_in_the_browser(tmp_path):
    torch.manual_seed(1)
    run = write_run(tmp_path / "tiny", "stylegan2")
    (run / "samples").mkdir()
    (run / "samples/step-00000001.png").write_bytes(encoded())
    (tmp_path / "picture.png").write_bytes(encoded())
    (tmp_path / "bomb.png").write_bytes(bomb(60_000, 60_000))
    with serve(Explored.load(run), steps=4) as url, browser() as page:
        page.open(url)
        first = page.wait(SHOWN)
        page.run(MOVE, "#direction-0", 3)
        moved = page.wait(OTHER, first)
        page.give("#upload input[type=file]", tmp_path / "picture.png")
        page.wait("return document.querySelector('#shown')?.innerText.includes('step 4 of 4')")
        assert page.run(SHOWN) not in (first, moved)
        page.run("[...document.querySelectorAll('button')].find((b) => b.innerText === 'Back to the seed').click()")
        page.wait("return document.querySelector('#shown img')?.src === arguments[0]", moved)
        page.give("#upload input[type=file]", tmp_path / "bomb.png")
        page.wait("return document.body.innerText.includes('the picture has too many pixels')")
        page.run("[...document.querySelectorAll('button')].find((b) => b.innerText.includes('Samples of')).click()")
        page.wait("return document.querySelector('#live')?.innerText.includes('step 00000001')")
        (run / "samples/step-00000002.png").write_bytes(encoded(30, 30))
        page.wait("return document.querySelector('#live')?.innerText.includes('step 00000002')")
        assert page.run(ELSEWHERE) == [] and page.messages() == []


@contextlib.contextmanager
def command(folder, *words):
    """`fastgan WORDS` as a process; the address that it prints."""
    with subprocess.Popen(
        [*FASTGAN, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            printed = []
            for line in process.stdout:
                printed.append(line)
                if line.startswith("http"):
                    break
            assert printed and printed[-1].startswith("http"), "".join(printed)
            yield printed[-1].split()[0]
        finally:
            process.terminate()


def psnr(page):
    return float(re.search(r"([\d.]+) dB", page.run("return document.querySelector('#shown').innerText"))[1])


def save(page, text, path):
    """Click the link that says so, and wait for the file."""
    page.click(text)
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, [*path.parent.iterdir()]
        time.sleep(0.1)
    return path


def test_a_newcomers_five_minutes(tmp_path):
    """With the commands of the documentation: open the page of a generator, move a slider, project an emoji that no training has
    seen, change it, save it, and draw the saved latent again. FASTGAN_SCREENSHOT=docs/images/explore.png keeps the page."""
    emoji = fastgan.data.load("emoji:twitter:base")
    given = emoji.images[emoji.files.index(HELD_OUT)]
    Image.fromarray(given.permute(1, 2, 0).numpy()).save(tmp_path / "emoji.png")
    saved = tmp_path / "saved"
    saved.mkdir()
    with command(tmp_path, "explore", NAME, "--steps", str(STEPS)) as url, browser(saved) as page:
        page.open(url)
        first = page.wait(SHOWN)
        page.run(MOVE, "#direction-0", 2)
        assert page.wait(OTHER, first)
        page.run(MOVE, "#direction-0", 0)
        page.wait("return document.querySelector('#shown img')?.src === arguments[0]", first)
        page.give("#upload input[type=file]", tmp_path / "emoji.png")
        page.wait("return / dB/.test(document.querySelector('#shown')?.innerText)")
        before = psnr(page)
        page.wait(
            f"return document.querySelector('#shown')?.innerText.includes('step {STEPS} of {STEPS}')", seconds=120
        )
        assert psnr(page) > before
        if picture := os.environ.get("FASTGAN_SCREENSHOT"):
            Path(picture).write_bytes(page.screenshot())
        projected = page.run(SHOWN)
        page.run(MOVE, "#direction-1", 1.5)
        page.wait(OTHER, projected)
        drawn, latent = (save(page, f"save {what}", saved / f"projected.{kind}") for what, kind in FILES)
        assert page.messages() == []
    words = ["sample", NAME, "--latents", str(latent), "--out", str(tmp_path / "again.png")]
    done = subprocess.run([*FASTGAN, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown, again = (np.asarray(Image.open(path).convert("RGB")) for path in (drawn, tmp_path / "again.png"))
    assert np.array_equal(shown, again[4:68:2, 4:68:2])  # which is enlarged, in a border
