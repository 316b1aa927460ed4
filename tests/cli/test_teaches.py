"""What a newcomer sees: the first page, the first lines of a run, answers to slips, tables on a terminal and in a pipe."""

import os
import re
import subprocess
import sys

import pytest

from fastgan.cli import COMMANDS, HOME, main
from fastgan.cli.arguments import REQUIRED, Argument, arguments, choices, flags, read
from fastgan.cli.sample import Options


def test_the_first_page(capsys):
    assert main([]) == 0 and capsys.readouterr().out.strip() == HOME
    assert main(["--help"]) == 0 and capsys.readouterr().out.strip() == HOME
    shown = re.findall(r"^  fastgan (\w+)", HOME, re.M)
    assert shown[:5] == ["train", "sample", "eval", "data", "info"] and {*COMMANDS} <= {*shown, "COMMAND"}
    assert max(map(len, HOME.splitlines())) <= 120


def test_the_first_page_loads_nothing_heavy():
    code = (
        "import sys; from fastgan.cli import main; main([]); print({'torch', 'tyro', 'numpy', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train", "dcgan", "--setps=3"], "there is no option --setps; did you mean '--steps'?"),
        (["train", "dcgan", "--bathc_size", "3"], "there is no option --bathc_size; did you mean '--batch-size'?"),
        (["train", "mle", "--resolution", "3"], "there is no option --resolution"),
        (["train", "dcgan", "more"], "'more' is one word too many"),
        (["sample", "a", "--trucation", "1"], "there is no option --trucation; did you mean '--truncation'?"),
    ],
)
def test_a_slip_is_answered_with_the_option_that_was_meant(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(argv)
    program = " ".join(argv[: 1 + (argv[0] == "train")])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(f"fastgan {program}: {said}")
    assert list(tmp_path.iterdir()) == []


def test_options_that_mean_nothing_are_refused(tmp_path, capsys):
    out = ["--out", str(tmp_path / "r")]
    assert main(["train", "mle", "--channels-last", *out]) == 1
    assert "--channels-last is the order of images in memory, and mle trains on sentences" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_arguments_of_a_dataclass():
    known = {argument.name: argument for argument in arguments(Options)}
    assert known["run"].default is REQUIRED and flags(known["run"]) == []
    assert known["mix"].group == ("StyleGAN", "") and known["input"].group == ("translation", "")
    assert known["seeds"].group == ("", "") and flags(known["separate"]) == ["--separate", "--no-separate"]
    assert choices(known["direction"].hint) == ["AtoB", "BtoA"] and choices(known["seeds"].hint) == []
    names = [
        Argument("a", int, 1, "A."),
        Argument("b.c", bool, False, "B.", ("b", "")),
        Argument("d", str, REQUIRED, "D."),
    ]
    assert read(names, ["x", "--b.c", "--a", "1e2"], "p", "") == {"a": 100, "b.c": True, "d": "x"}
    assert read(names, ["--b.no-c", "x"], "p", "") == {"a": 1, "b.c": False, "d": "x"}


def test_the_first_lines_of_a_run(tiny, pictures, tmp_path, capsys):
    assert main([*tiny, "--out", str(tmp_path / "r")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("time: ")
    assert f"dcgan on {pictures}, 1 steps of 4 images, on cpu, into {tmp_path / 'r'}" in lines
    assert any(line.startswith("data: 12 images, 3 classes") for line in lines)


def on_terminal(code: str, width: int, **environment: str) -> str:
    main_end, end = pytest.importorskip("pty").openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(width), "LINES": "50", **environment},
    )
    os.close(end)
    said = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        said += part
    os.close(main_end)
    assert process.wait() == 0
    return said.decode().replace("\r\n", "\n")


TABLE = """from fastgan.cli.table import show
show(["name", ">number", "prose"], [["[red]", "1", "a b c d e f g h i j k l m n o p"], ["long-name", "22", "z"]])"""


def test_a_table_in_a_pipe_has_a_line_for_each_row():
    done = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "name       number  prose",
        "[red]           1  a b c d e f g h i j k l m n o p",
        "long-name      22  z",
    ]


def test_a_table_on_a_terminal_fits_its_width():
    said = on_terminal(TABLE, 32)
    assert "\x1b[1m" in said
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    lines = [line for line in plain.splitlines() if line.strip()]
    assert len(lines) > 3 and all(len(line) <= 32 for line in lines)
    assert any(line.startswith("[red]") for line in lines) and any(
        line.startswith("long-name      22  z") for line in lines
    )
    assert not re.search(r"\x1b\[(3\d|9\d)", on_terminal(TABLE, 32, NO_COLOR="1"))
