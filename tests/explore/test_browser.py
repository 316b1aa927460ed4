"""The page in a browser: it opens, asks no other machine for anything, a slider changes the picture, a picture is projected and a
hostile one refused with a message."""

import pytest
import torch
from chromium import CHROMIUM, DRIVER, browser
from saved_runs import write_run
from uploads import bomb, encoded

pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and chromedriver are not installed"),
]

from fastgan.explore import Explored, serve  # noqa: E402

SHOWN = "return document.querySelector('#shown img')?.src"
OTHER = "const src = document.querySelector('#shown img')?.src; return src !== arguments[0] && src"
MOVE = """
const slider = document.querySelector(arguments[0] + " input[type=range]");
slider.value = arguments[1];
for (const kind of ["input", "change", "pointerup"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
"""
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
