"""`.ci/gpu`, the two calls on a machine with a GPU, as far as it runs without one: each minute there is to be spent well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))
import gpu_report  # noqa: E402


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_steps_fit_their_call_and_name_what_exists(gpu, call, device, tmp_path):
    steps = gpu.steps(call, device, tmp_path)
    assert sum(step.limit for step in steps) <= gpu.LIMITS[call]
    assert len({step.name for step in steps}) == len(steps)
    for path in [part for step in steps for part in step.command if part.startswith(("tests/", "bench/"))]:
        assert (ROOT / path.split("::")[0]).exists(), path
    ignored = [part.split("=")[1] for part in gpu.PARITY if part.startswith("--ignore=")]
    assert ignored and all((ROOT / path).exists() for path in ignored)


def test_a_step_that_hangs_is_ended_and_one_whose_program_is_missing_is_skipped(gpu, tmp_path):
    hanging = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"
    )
    result = gpu.run(gpu.Step("hangs", 2, [sys.executable, "-c", hanging]), tmp_path / "log", gpu.environment())
    assert result["state"] == "ended after its 2 s" and result["seconds"] < 20
    assert (tmp_path / "log").read_text() == "begun\n"
    result = gpu.run(gpu.Step("checks", 2, ["no-such-program"], "no-such-program"), tmp_path / "log", {})
    assert result["state"] == "skipped: no-such-program is not here"


def test_failed_tests_are_named_so_that_pytest_finds_them_again(gpu, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_n(n):\n    assert n == 1, 'two'\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        "--junitxml=parity.xml",
    ]
    subprocess.run([*command, "tests"], cwd=tmp_path, capture_output=True)
    step = gpu.Step("parity", 1, [])
    found = gpu.numbers(step, tmp_path, tmp_path / "log")
    assert found["tests"] == 2 and list(found["failed"]) == ["tests/test_it.py::test_n[2]"]
    again = subprocess.run([*command, *found["failed"]], cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed" in again.stdout
    lines = gpu.shown(step, {"state": "exit 1", "seconds": 1.0, **found}, tmp_path / "log")
    assert "2 tests, 1 failed" in lines and "two" in "".join(lines)


def test_only_tests_that_are_there_are_run_again(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "CARRIED", tmp_path)
    assert gpu.failed_before() == []
    failed = {
        "tests/ops/test_fma.py::test_it[1]": "",
        ".py::tests.ops.test_gone": "",
        "tests/ops/test_gone.py::test_it": "",
    }
    (tmp_path / "call1.json").write_text(json.dumps({"steps": {"parity": {"failed": failed}}}))
    assert gpu.failed_before() == ["tests/ops/test_fma.py::test_it[1]"]
    (tmp_path / "call1.json").write_text(
        json.dumps({"steps": {"info": {}, "parity": {"state": "ended after its 110 s"}}})
    )
    assert gpu.failed_before() == []


def test_half_a_file_stops_no_other_step(gpu, tmp_path, monkeypatch):
    steps = [gpu.Step(name, 60, [sys.executable, "-c", "pass"]) for name in ("parity", "times")]

    def written(call, device, scratch):
        (scratch / "parity.xml").write_text("<testsuite><testcase")
        (scratch / "times.json").write_text('{"bias_act": 1}')
        return steps

    monkeypatch.setattr(gpu, "steps", written)
    gpu.perform(1, "cpu", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "call1.json").read_text())["steps"]
    assert "ParseError" in report["parity"]["unreadable"] and report["times"]["numbers"] == {"bias_act": 1}


def test_what_a_call_writes_is_strict_json_that_the_report_reads(gpu, tmp_path, monkeypatch):
    def written(call, device, scratch):
        (scratch / "graphs.json").write_text('{"equal dcgan": {"most": NaN}}')
        (scratch / "times.json").write_text('{"op fp32 forward": {"ps": 2.0, "share": 0.5, "predicted": null}}')
        return [gpu.Step(name, 60, [sys.executable, "-c", "pass"]) for name in ("graphs", "times")]

    monkeypatch.setattr(gpu, "steps", written)
    gpu.perform(1, "cpu", tmp_path / "out")
    text = (tmp_path / "out" / "call1.json").read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["steps"]["graphs"]["numbers"] == {"equal dcgan": {"most": "nan"}}
    (tmp_path / "x.call1.json").write_text(json.dumps({**report, "device": "cuda"}))
    tables = gpu_report.tables(tmp_path)
    assert f"CPU cores, {report['date']}, .ci/gpu 1 FOLDER, torch {report['torch']}" in tables["steps"]
    assert tables["predicted against measured"].endswith("| op | fp32 | 2.00 | 0.50 |  |")


def test_the_commit_travels_with_what_is_prepared(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "CARRIED", tmp_path)
    (tmp_path / "commit").write_text("abc1234\n")
    assert gpu.commit() == "abc1234"


def test_a_run_is_judged_by_its_numbers(gpu):
    lines = [{"step": s, "g/loss": 1.0, "speed/images_per_second": 10.0 * s} for s in (1, 2, 3, 4)]
    assert gpu.training(lines) == {"steps": 4, "not finite": [], "images/s": 35.0}
    lines[2]["g/loss"] = float("nan")
    assert gpu.training(lines)["not finite"] == [(3, "g/loss")]


def test_counters_are_read_from_ncus_table(gpu):
    lines = ["==PROF== Connected", '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"']
    lines += [
        '"0","tile_kernel","gpu__time_duration.sum","ns","1,234"',
        '"0","tile_kernel","smsp__inst_executed.sum","inst","5"',
    ]
    expected = {"gpu__time_duration.sum": "1,234 ns", "smsp__inst_executed.sum": "5 inst"}
    assert gpu.counted(lines) == {"0 tile_kernel": expected}


@pytest.mark.slow
def test_rehearsal(gpu, tmp_path):
    """Every step of both calls runs, on the CPU; only what needs a device's programs is skipped, by name."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "gpu"), "rehearse", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert len(list(tmp_path.iterdir())) <= 8
    for call in gpu.LIMITS:
        report = json.loads((tmp_path / f"call{call}.json").read_text())
        assert list(report["steps"]) == [step.name for step in gpu.steps(call, "cpu", tmp_path)]
        for name, result in report["steps"].items():
            assert result["state"] in ("ok", "skipped: compute-sanitizer is not here"), (name, result)
