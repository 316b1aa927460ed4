"""The scripts of report.html in a browser: Chromium draws the page, a few lines act as a reader does, and what then stands there
is compared."""

import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest
import torch
from report_pages import TRAINED, pictures, report_of

from fastgan.media import Text

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
ACT = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => errors.push(event.blockedURI));
</script>
"""
TELL = """
<script>
addEventListener("load", () => setTimeout(() => {
  const $ = (selector) => document.querySelector(selector), all = (selector) => [...document.querySelectorAll(selector)];
  const set = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
  const tick = (input) => input.click();
  const point = (chart, share, kind) => {
    const box = chart.getBoundingClientRect(), plot = [66, chart.viewBox.baseVal.width - 22];
    const x = box.left + (plot[0] + share * (plot[1] - plot[0])) / chart.viewBox.baseVal.width * box.width;
    chart.dispatchEvent(new PointerEvent(kind, { clientX: x, clientY: box.top + 50, bubbles: true }));
  };
  const said = {};
  try { %s } catch (error) { errors.push(String(error)); }
  const out = document.createElement("pre");
  out.id = "said";
  out.textContent = encodeURIComponent(JSON.stringify({ ...said, errors }));
  document.body.append(out);
}, 200));
</script>
"""


@pytest.fixture
def browse(tmp_path):
    def act(source: str, script: str, *options: str) -> dict:
        page = tmp_path / "page.html"
        page.write_text(source.replace("<head>", "<head>" + ACT).replace("</body>", TELL % script + "</body>"))
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--virtual-time-budget=4000", "--window-size=1280,900", *options, "--dump-dom", page.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search(r'<pre id="said">([^<]*)</pre>', shown.stdout)
        assert found, shown.stderr[-2000:]
        return json.loads(unquote(found[1]))

    return act


def rows(count, **more):
    return [{"step": 10 * (i + 1), **TRAINED, "generator/loss": 2 + (i % 2) / 10, **more} for i in range(count)]


def test_the_slider_the_second_pane_and_the_curves(tmp_path, browse):
    page = report_of(tmp_path, rows(50), [(step, pictures()) for step in (0, 250, 500)])
    said = browse(
        page.source,
        """
        const look = (pane) => [pane.querySelector("output").textContent, pane.querySelector("img").src.length];
        const shown = () => all(".pane").map(look);
        said.start = shown();
        set($(".pane input"), 1);
        said.moved = shown();
        tick($("#compare"));
        said.two = shown();
        said.wide = $("main").className;
        tick($("#compare"));
        said.one = shown();
        said.charts = all(".chart h4").map((title) => title.textContent.trim());
        said.axes = [...all(".chart svg")[0].querySelectorAll("text")].map((text) => text.textContent);
        said.last = all(".chart .legend")[0].innerText.replace(/\\s+/g, " ").trim();
        point(all(".chart svg")[0], 0.49, "pointermove");
        said.half = all(".chart h4")[0].textContent.trim();
        said.others = all(".chart h4")[1].textContent.trim();
        point(all(".chart svg")[0], 0.98, "click");
        said.picked = shown();
        """,
    )
    assert said["errors"] == []
    assert [step for step, _ in said["start"]] == ["500"] and [step for step, _ in said["moved"]] == ["250"]
    assert [step for step, _ in said["two"]] == ["0", "250"] and said["wide"] == "wide"
    assert [step for step, _ in said["one"]] == ["250"] and [step for step, _ in said["picked"]] == ["500"]
    assert all(length > 100 for _, length in said["start"] + said["two"])
    assert said["charts"] == ["loss", "discriminator", "speed", "waiting for data", "memory"]
    assert {"step", "loss", "100", "500", "2"} <= set(said["axes"])
    assert said["last"] == "generator 2.1 discriminator 0.5"
    assert said["half"] == "loss step 250" and said["others"] == "discriminator step 250"


def test_a_spike_flattens_nothing(tmp_path, browse):
    table = rows(200)
    table[70]["generator/loss"] = 1e6
    for row in table:
        row["discriminator/real"] = float("nan")
    page = report_of(tmp_path, table)
    said = browse(
        page.source,
        """
        const line = () => all(".chart")[0].querySelector(".smooth").getAttribute("d").split(/[ML ]/).filter(Boolean).map(Number);
        const heights = () => line().filter((_, i) => i % 2);
        set($("#smoothing"), 0);
        const cut = heights();
        said.spread = Math.max(...cut.filter((_, i) => i !== 70)) - Math.min(...cut.filter((_, i) => i !== 70));
        said.note = all(".chart .about")[0].textContent;
        said.marks = all(".chart")[0].querySelectorAll(".spike").length;
        set($("#smoothing"), 2);
        said.calm = new Set(heights().slice(100, 150).map((y) => y.toFixed(0))).size;
        set($("#smoothing"), 0);
        tick($("#spikes"));
        const whole = heights();
        said.flat = Math.max(...whole.filter((_, i) => i !== 70)) - Math.min(...whole.filter((_, i) => i !== 70));
        said.lost = all(".chart .about")[1].textContent;
        tick($("#log"));
        said.log = [...all(".chart svg")[0].querySelectorAll("text")].map((text) => text.textContent);
        """,
    )
    assert said["errors"] == []
    assert said["note"] == "1 beyond the range" and said["marks"] == 1 and said["lost"] == "200 not finite"
    # Of 182 pixels: the losses lie between 2 and 2.1, discriminator's at 0.5.
    assert said["spread"] > 8 and said["flat"] < 1 and said["calm"] <= 2
    assert {"1", "100", "10,000"} <= set(said["log"])


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_and_samples(tmp_path, browse, count):
    page = report_of(tmp_path, rows(count), [(0, pictures())] * count)
    said = browse(
        page.source,
        """
        said.dots = all(".chart .dot").length;
        said.places = all(".chart [d], .chart [cx]").some((part) => /NaN|Infinity/.test(part.outerHTML));
        said.sliders = all(".pane input").filter((input) => input.offsetParent).length;
        """,
    )
    assert said == {"errors": [], "dots": 6 * count, "places": False, "sliders": 0}


def test_texts_and_narrow_windows(tmp_path, browse):
    page = report_of(
        tmp_path, rows(3), [(step, [f"{word} {step}" for word in ("one", "two")]) for step in (0, 10, 20)], Text
    )
    look = """
        said.texts = all(".pane li").map((item) => item.textContent);
        all(".pane li")[1].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
        said.same = all("li.same").map((item) => item.textContent);
        said.wider = document.documentElement.scrollWidth - innerWidth;
    """
    said = browse(page.source, look)
    assert said["texts"] == ["one 0", "two 0", "one 20", "two 20"] and said["same"] == ["two 0", "two 20"]
    narrow = browse(page.source, look, "--window-size=400,800")
    assert narrow["texts"] == said["texts"] and narrow["wider"] <= 0 and said["errors"] == narrow["errors"] == []


def test_what_a_medium_of_a_users_own_fetches_is_refused(tmp_path, browse):
    page = report_of(tmp_path, samples=[(0, torch.zeros(1, 3, 8, 8))])
    source = page.source.replace('<div class="shown">', '<div class="shown"><img src="https://example.invalid/x.png">')
    assert set(browse(source, "")["errors"]) == {"https://example.invalid/x.png"}
