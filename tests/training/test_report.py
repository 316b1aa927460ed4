"""report.html, read as a browser reads it: what is where, that names and texts stay text, that nothing is fetched, how much it
holds. `test_report_browser.py` runs its scripts."""

import functools
import itertools
import math
import re
import sys

import pytest
import torch
from report_pages import MEASURED, TRAINED, pictures, report_of

from fastgan.media import Image, Medium, Signal, Text, medium_of
from fastgan.metrics import suite
from fastgan.recipes import get
from fastgan.training import report
from fastgan.training.curves import POINTS, Line, charts
from fastgan.training.report import write_report
from fastgan.training.sinks import Report

HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert(1)">'&"""


@pytest.fixture
def run(tmp_path):
    return functools.partial(report_of, tmp_path)


def test_the_figures_and_settings_come_first(run):
    rows = [{"step": step, **some} for step in (10, 20) for some in (TRAINED, MEASURED)]
    page = run(rows, [(0, pictures()), (20, pictures())], widths=[64, 32], loss=None)
    places = [page.source.index(f'class="{part}"') for part in ("tiles", "settings", "samples", "figures", "curves")]
    assert places == sorted(places)
    tiles = dict(zip(page.text["h3"], re.findall(r'class="value">([^<]+)<', page.source), strict=True))
    assert tiles["fd_efflite0"] == "31.25" and next(iter(tiles)) == "fd_efflite0"
    assert tiles["speed"] == "800" and tiles["memory"] == "500.5" and tiles["training time"] == "0:00:03"
    settings = dict(zip(page.text["dt"], page.text["dd"], strict=True))
    assert settings == {
        "name": "bars",
        "resolution": "8",
        "steps": "100",
        "lr": "0.0002",
        "widths": "64, 32",
        "loss": "-",
        "log_every": "10",
        "flip": "true",
        "seed": "1",
    }
    assert page.text["title"] == ["gan on bars"] and "Step 20 of 100: stopped before the end" in page.source


def test_the_slider_has_every_step(run):
    page = run(samples=[(step, pictures()) for step in (0, 5, 10, 15)])
    assert [int(t["data-step"]) for t in page.named("template", **{"class": "earlier"})] == [0, 5, 10]
    assert page.named("input", type="range", min="0", max="3", value="3")
    assert len(page.named("div", **{"class": "pane", "data-step": "15"})) == 1
    assert len(page.named("img")) == 4
    held = [re.fullmatch(r"data:image/png;base64,[\w+/=]+", image["src"]) for image in page.named("img")]
    assert all(held)


def test_one_row_and_none(run):
    page = run([{"step": 10, **TRAINED}])
    assert [chart["title"] for chart in page.data][:2] == ["loss", "discriminator"]
    assert page.data[0]["series"][0] == {"name": "generator", "steps": [10], "values": [2.0], "lost": 0}
    assert "None yet." in page.source
    page = run()
    assert page.data is None and "the first row comes at step 10" in page.source
    page = run(samples=[(0, pictures())])
    assert page.data is None and len(page.named("img")) == 1 and not page.named("template")


def test_a_folder_without_a_log(run, tmp_path):
    run(samples=[(0, pictures())])
    (tmp_path / "metrics.jsonl").unlink()
    assert "Nothing has been logged yet" in write_report(tmp_path).read_text()


def test_names_and_texts_stay_text(run):
    rows = [
        {"step": 10, **TRAINED, f"{HOSTILE}/loss": 1.0},
        {"step": 10, f"{HOSTILE}/{HOSTILE}": 2.0, f"{HOSTILE}-2/value": 3.0},
    ]
    harmless = run([{"step": 10, **TRAINED}, {"step": 10, "a/b": 2.0}], [(0, ["a"]), (10, ["b"])], Text)
    page = run(rows, [(0, [HOSTILE]), (10, [HOSTILE, "b"])], Text, name=HOSTILE, **{HOSTILE: HOSTILE})
    for tag in ("script", "img", "style", "link", "iframe"):
        assert len(page.named(tag)) == len(harmless.named(tag)), tag
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in "".join(page.text["dd"]) and HOSTILE in "".join(page.text["h1"])
    assert "".join(page.text["li"]).count(HOSTILE) == 2
    assert HOSTILE in [line["name"] for chart in page.data for line in chart["series"]]


def test_nothing_is_fetched(run):
    page = run([{"step": 10, **TRAINED}, {"step": 10, **MEASURED}], [(0, pictures()), (10, pictures())])
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg\b)|@import|url\(|//cdn", page.source)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    (policy,) = page.named("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'self' file: data:") and "http" not in policy["content"]


def test_texts_are_side_by_side(run):
    page = run(samples=[(0, ["one", "two"]), (10, ["three", "four"])], medium=Text)
    assert "checked" in page.named("input", id="compare")[0]
    assert page.text["li"] == ["three", "four", "one", "two"]
    page = run(samples=[(0, pictures()), (10, pictures())])
    assert "checked" not in page.named("input", id="compare")[0]


def test_sound_has_a_player(run):
    page = run(samples=[(0, torch.zeros(2, 1, 64)), (5, torch.zeros(2, 1, 64))], medium=Signal, facts={"rate": 8000})
    assert [audio["src"][:22] for audio in page.named("audio")] == ["data:audio/wav;base64,"] * 2


def test_columns_are_labelled(run):
    names = ("A", "A→B", HOSTILE)
    page = run(samples=[(0, torch.rand(9, 3, 8, 24))], facts={"sample_columns": names})
    heads = page.named("b")
    # Nine strips of 8x24 in lines of two.
    assert [head["title"] for head in heads] == list(names) * 2
    assert [head["style"] for head in heads] == [f"grid-column:{i}" for i in (2, 3, 4, 6, 7, 8)]
    (strips,) = page.named("div", **{"class": "strips"})
    assert strips["style"].endswith("2fr repeat(3, minmax(0, 8fr)) 2fr repeat(3, minmax(0, 8fr)) 2fr")


def test_labels_of_another_program(tmp_path):
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    for text in ("no json", "[]", "{}", '{"across": "3", "cell": 1, "pad": 1, "labels": ["a"]}', '{"labels": []}'):
        kept = PngInfo()
        kept.add_text("fastgan:columns", text)
        Pillow.new("RGB", (8, 8)).save(tmp_path / "step-1.png", pnginfo=kept)
        assert Image.html(tmp_path / "step-1.png").startswith("<figure><img src=")


@pytest.mark.parametrize(
    "recipe, options, names",
    [
        ("cyclegan", {"blocks": 1}, ("A", "A→B", "A→B→A", "A→A", "B", "B→A", "B→A→B", "B→B")),
        ("pix2pix", {}, ("input A", "A→B", "true B")),
        ("pix2pix", {"direction": "BtoA"}, ("input B", "B→A", "true A")),
    ],
)
def test_translations_name_their_columns(recipe, options, names):
    kind = get(recipe)
    data = {"name": "pairs", "resolution": 32, "channels": 3, "num_classes": 0}
    made = kind(kind.Config(width=2, layers=1, **options), data)
    examples = made.networks["examples"]
    examples.a.fill_(-0.25)
    examples.b.fill_(0.75)
    for network in made.networks.values():
        network.eval()
    with torch.no_grad():
        strip = made.sample(made.networks, [0])
    assert made.sample_columns == names and strip.shape[3] == 32 * len(names)
    known = {"A": -0.25, "B": 0.75}
    for name, part in zip(names, strip.chunk(len(names), 3), strict=True):
        if "→" not in name:  # shown as it is
            assert part.unique().tolist() == [known[name[-1]]], name


def test_a_medium_without_html(run, tmp_path):
    class Scores(Medium):
        name, unit = "score", "scores"

        @classmethod
        def save(cls, samples, path, facts=None):
            path = path.with_suffix(".ly")
            path.write_text(samples)
            return path

    page = run(samples=[(0, "c d e"), (5, "f g a")], medium=Scores)
    assert [link["href"] for link in page.named("a")] == ["samples/step-00000005.ly", "samples/step-00000000.ly"]
    assert medium_of(tmp_path / "samples/step-00000005.ly") is Medium


def test_a_metric_of_a_users_own(run):
    page = run(
        [{"step": step, **TRAINED, "roughness/gan": step} for step in (5, 10)] + [{"step": 10, "edges/gan": 1.5}]
    )
    titles = {chart["title"]: chart for chart in page.data}
    assert titles["roughness"]["kind"] == "training" and titles["edges"]["kind"] == "figures"
    assert "edges" in page.text["h3"] and titles["edges"]["series"][0]["name"] == "gan"


def test_the_best_and_what_figures_mean(run, monkeypatch):
    monkeypatch.setattr(suite.METRICS, "_given", {})
    suite.register("edges", better="higher", about="mean <b>step</b>")(lambda samples: samples.diff().abs().mean())
    values = [(5, 40.0, 1.0), (10, 31.25, 3.0), (15, math.nan, 2.0), (20, 33.5, 2.0)]
    page = run(
        [{"step": step, "fd_efflite0/gan": fd, "edges/gan": edges, "mystery/gan": fd} for step, fd, edges in values]
    )
    notes = [note for note in page.text["p"] if note.startswith("step ")]
    assert notes == ["step 20, best 31.25 at 10", "step 20, best 3 at 10", "step 20"]
    about = {chart["title"]: chart["about"] for chart in page.data}
    assert about["fd_efflite0"].startswith("Lower is better: distance of Gaussians")
    assert about["edges"] == "Higher is better: mean <b>step</b>" and about["mystery"] == ""
    titles = [tile["title"] for tile in page.named("div", **{"class": "tile"})]
    assert titles == [about["fd_efflite0"], about["edges"], ""]


def test_what_shares_a_chart():
    rows = [
        {"step": 1, **TRAINED, "generator/gradient": 1.0, "data/skipped": 2},
        {"step": 1, "bleu-2/value": 0.5, "bleu-3/value": 0.25, "l1/AtoB": 0.5, "l1/BtoA": 0.75},
    ]
    found = {(c.kind, c.title, c.unit): {name: line.values for name, line in c.lines.items()} for c in charts(rows)}
    assert found == {
        ("figures", "bleu", "bleu"): {"bleu-2": [0.5], "bleu-3": [0.25]},
        ("figures", "l1", "l1"): {"AtoB": [0.5], "BtoA": [0.75]},
        ("training", "loss", "loss"): {"generator": [2.0], "discriminator": [0.5]},
        ("training", "discriminator", "discriminator"): {"real": [1.5]},
        ("training", "gradient", "norm"): {"generator": [1.0]},
        ("machine", "speed", "images/s"): {"images": [800.0]},
        ("machine", "waiting for data", "% of the time"): {"waiting": [1.0]},
        ("machine", "memory", "MiB"): {"peak": [500.5]},
        ("machine", "unreadable items", "items"): {"left out": [2.0]},
    }
    assert [chart.kind for chart in charts(rows)] == ["figures"] * 2 + ["training"] * 3 + ["machine"] * 4


def test_long_lines_are_thinned_and_spikes_kept():
    values = [float(i % 10) for i in range(100_000)]
    values[77_777], values[123], values[124] = 1e9, math.nan, math.inf
    line = Line(list(range(100_000)), values).thin()
    assert len(line["steps"]) == len(line["values"]) == len(line["low"]) == len(line["high"]) <= POINTS
    assert line["steps"] == sorted(line["steps"]) and line["lost"] == 2
    assert set(line["values"]) <= {4.0, 4.5, 5.0}
    assert max(line["high"]) == 1e9 and sorted(line["high"])[-2] == 9 and set(line["low"]) == {0.0}
    short = Line([1, 2, 3], [1.0, math.nan, 3.0]).thin()
    assert short == {"steps": [1, 3], "values": [1.0, 3.0], "lost": 1}


def test_the_table_has_columns_and_families(run):
    page = run([{"step": 10, "ls/lsgan": 1.5, "ls/lsgan nearest": 2.0, "bleu-2/value": 0.5, "bleu-3/value": 0.25}])
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page.source)
    head, *body = [cells[i : i + 4] for i in range(0, len(cells), 4)]
    assert head == ["", "lsgan", "lsgan nearest", "value"]
    assert body == [["ls", "1.5", "2", ""], ["bleu-2", "", "", "0.5"], ["bleu-3", "", "", "0.25"]]


def test_values_that_are_no_numbers(run):
    page = run([{"step": 10, "generator/loss": math.nan, "seconds": math.nan}, {"step": 10, "fd/gan": math.inf}])
    assert [chart["series"][0]["lost"] for chart in page.data] == [1, 1]
    huge = run([{"step": 10, "generator/loss": sys.float_info.max, "seconds": 1.0}, {"step": 10, "fd/gan": None}])
    assert [chart["series"][0]["lost"] for chart in huge.data] == [1, 1]
    assert "inf" in page.source


def test_many_grids_fit_a_budget(run, monkeypatch):
    monkeypatch.setattr(report, "MOST_BYTES", 500_000)
    page = run(samples=[(step, pictures(64)) for step in range(50)])
    steps = [int(t["data-step"]) for t in page.named("template", **{"class": "earlier"})] + [49]
    assert 3 < len(steps) < 40 and steps[0] == 0 and len(page.source) < 550_000
    apart = [b - a for a, b in itertools.pairwise(steps)]
    assert max(apart) - min(apart) <= 1
    assert f"{len(steps)} of 50 steps are here" in page.source


def test_a_report_takes_its_share_of_the_time(tmp_path, monkeypatch):
    written, now = [], [0.0]

    def slow(folder, medium):
        written.append(now[0])
        now[0] += 3.0

    monkeypatch.setattr("fastgan.training.sinks.write_report", slow)
    monkeypatch.setattr("fastgan.training.sinks.time.perf_counter", lambda: now[0])
    sink = Report(tmp_path, Image)
    while now[0] < 600:
        sink.show(0, tmp_path)
        now[0] += 1.0
    assert 3.0 * len(written) <= 0.05 * 600 + 3.0 and len(written) >= 9
    sink.close()
    assert len(written) >= 10 and written[-1] >= 600
