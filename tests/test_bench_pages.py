"""bench/report.py and gpu_report.py on made-up results: what a reader sees of each number."""

import importlib
import json
from pathlib import Path

import dropin_table
import gpu_report
import pytest
import report

MACHINE = {"machine": "CPU X", "threads": 2, "clock": "wall", "torch": "2.14", "commit": "abc", "load": [0.5, 2.0]}
MEDIAN = {"reference": 0.04, "torch.compile": 0.01, "clone": 0.001, "fastgan": 0.002}
DATA = {
    "datetime": "2026-11-28T10:00:00",
    "fastgan": MACHINE,
    "benchmarks": [
        {"fullname": "bench/bench_op.py::bench_a", "extra_info": dict(case="a", allocator="default", floor=0.001, median=MEDIAN)},
        {"fullname": "bench/bench_op.py::bench_b", "extra_info": dict(case="b", allocator="tuned", floor=None, median=MEDIAN)},
        {"fullname": "bench/bench_ngram.py::bench_c", "extra_info": {}},
    ],
}  # fmt: skip


def test_ratios_floor_and_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    for bench in report.condensed(DATA).values():
        report.keep(bench)
    (bench,) = report.kept()
    lines = report.section(bench)
    assert lines[2].startswith(
        "CPU X, torch 2.14, 2026-11-28, commit abc, load 0.5 before and 2.0 after: `pytest bench/bench_op.py"
    )
    assert lines[6] == "| a | default | 2 | 20 | 5 | clone 0.5 | 2 |"
    assert lines[7] == "| b | tuned | 2 | 20 | 5 | clone 0.5 |  |"


def test_serving_shows_every_peer_the_floor_and_first_images():
    first = dict(first={"reference": 0.5, "fastgan": 1.25}, memory={"reference": 2**28, "fastgan": 2**29})
    row = dict(
        case="a", allocator="default", floor=0.001, median={"reference": 0.04, "onnxruntime": 0.003, "fastgan": 0.002}
    )
    bare = dict(case="b", allocator="tuned", floor=None, median={"reference": 0.01, "fastgan": 0.02})
    lines = report.serving(
        [{"bench": "serving", "date": "2026-11-28", **MACHINE, "rows": [row | first, bare]}]
    ).splitlines()
    assert (
        lines[2] == "| network | allocator | fastgan | eager | onnxruntime | best other / fastgan | fastgan / floor |"
    )
    assert lines[4] == f"| a | default | **2** | 40 | 3 | {report.times(1.5)} | 2.00 |"
    assert lines[5] == f"| b | tuned | 20 | **10** |  | {report.times(0.5)} |  |"
    assert lines[7] == f"Best other / fastgan, geometric mean of the rows: {report.times(0.75**0.5)}."
    assert lines[11:] == [
        "| network | fastgan | eager | onnxruntime |",
        "|---|---|---|---|",
        "| a | 1.2 s, 512 | 0.5 s, 256 |  |",
    ]


def test_serving_has_a_table_for_each_machine():
    rows = [dict(case="a", allocator="default", floor=None, median={"reference": 0.04, "fastgan": 0.02})]
    bench = {"bench": "serving", "date": "2026-11-28", **MACHINE, "rows": rows}
    text = report.serving([bench, bench | {"machine": "CPU Y"}])
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("Milli")] == [
        "Milliseconds. CPU X",
        "Milliseconds. CPU Y",
    ]
    assert text.count("| a | default | **20** | 40 | 2 |  |") == 2


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(SystemExit, match="no place for ratios"):
        report.between("text", "ratios", "| a |")


def test_tables_of_experiments(tmp_path, monkeypatch):
    """Each script has a place in the page, which another result of it takes; a script without one is refused."""
    monkeypatch.syspath_prepend(Path(report.__file__).with_name("experiments"))
    page = importlib.import_module("page")
    scripts = [path for path in Path(page.__file__).parent.glob("*.py") if "put(__file__" in path.read_text("utf-8")]
    text = page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.PAGE.write_text(text, encoding="utf-8")
    assert len(scripts) == 5
    for script in scripts:
        for line in ("of before\n", "| a | \\1 |\n"):
            page.put(str(script), line)
        found = page.PAGE.read_text(encoding="utf-8")
        assert f"{script.name} -->\n| a | \\1 |\n<!-- end of {script.name} -->\n" in found and "of before" not in found
    with pytest.raises(SystemExit, match="no place for other"):
        page.put("other.py", "| a |")


def test_tables_of_a_gpu(tmp_path):
    about = {
        "machine": "GPU Y",
        "torch": "2.11",
        "triton": "3.6",
        "date": "2026-11-28",
        "commit": "abc",
        "command": ".ci/gpu 1",
    }
    rows = {"op fp32 forward": {"ps": 2.0, "share": 0.5, "predicted": 0.25}, "op fp32 + backward": {"ps": 9.0}}
    steps = {
        "parity": {"state": "exit 1", "seconds": 3.0, "tests": 7, "failed": {"t": "why"}},
        "times": {"state": "ok", "seconds": 1.0, "numbers": rows | {"bad bf16 forward": {"error": "no | not\nat all"}}},
    }
    call = {**about, "call": 1, "device": "cuda", "steps": steps}
    (tmp_path / "y.call1.json").write_text(json.dumps(call))
    (tmp_path / "z.call1.json").write_text(json.dumps({**call, "device": "cpu"}))  # a rehearsal
    made = gpu_report.tables(tmp_path)
    assert "| 1 | parity | exit 1 | 3.0 | 7 | 1 |  |" in made["steps"] and made["steps"].count("parity") == 1
    assert made["predicted against measured"].splitlines()[4:] == [
        "| op | fp32 | 2.00 | 0.50 | 0.25 |",
        "| bad | bf16 | no / not |  |  |",
    ]
    assert made["host cost"] == made["model"] == gpu_report.NONE
    row = {"instructions": 8.5, "bytes": 8.0, "ps": 2.1, "share": 0.97, "limit": "memory", "bound": 8.9}
    (tmp_path / "predicted.json").write_text(json.dumps({"rows": {"op fp32 sm_90": row, "op fp32 sm_80": row}}))
    lines = gpu_report.tables(tmp_path)["model"].splitlines()
    assert lines[4:] == ["| op fp32 | 8.5 | 8.9 | 8 | 2.1 | 0.97 | memory |  |  |"]


def test_the_table_of_other_networks(tmp_path, monkeypatch):
    """Rows as bench_dropin.py prints them, between pytest's dots: later ones in the place of older, means by size."""
    monkeypatch.setattr(dropin_table, "KEPT", tmp_path / "kept.txt")
    monkeypatch.setattr(dropin_table, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(dropin_table, "USUAL", {"A": 64, "B, two": 128, "C": 256})
    (tmp_path / "page.md").write_text(
        f"before\n{report.OPEN.format('networks', 'dropin_table.py')}\nold\n{report.CLOSE.format('networks')}\nafter\n"
    )
    (tmp_path / "old.txt").write_text("\n| A | 64 | eval | plain | 9.0 ms | 0.50 ± 0.01 | 1.00 ± 0.01 | slower | 3 |.")
    (tmp_path / "new.txt").write_text(
        ".\n| A | 64 | eval | plain | 9.0 ms | 4.00 ± 0.01 | 0.98 ± 0.01 |  | 3 |.\n"
        "| B, two | 64 x2 | eval | plain | untouched | | | | 0 |.s [100%]\n| B, two | 128 x2 | eval | plain | 9.0 ms"
        " | 2.00 ± 0.02 | 1.01 ± 0.01 | slower | 1 |\n3 passed in 1.0s\n"
    )
    for outputs in (["old.txt"], ["new.txt"], []):
        dropin_table.main([str(tmp_path / output) for output in outputs])
        text = (tmp_path / "page.md").read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| A | 64 | 4.00 ± 0.01 (0.98) |" in text and "0.50" not in text
    assert "| B, two | 64 x2 | as it was |" in text and "| B, two | 128 x2 | 2.00 ± 0.02 (1.01), slower |" in text
    assert "| geometric mean, 64 pixels | | **2.00** of 2 |" in text
    assert "| geometric mean, usual size | | **2.83** of 2 |" in text


def test_the_page_holds_the_table_that_is_kept():
    text = dropin_table.PAGE.read_text(encoding="utf-8")
    assert dropin_table.page(text, dropin_table.rows(dropin_table.KEPT.read_text(encoding="utf-8"))) == text
