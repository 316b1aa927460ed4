"""A refused command changes nothing, and the corrected one then works in the same place."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fastgan.cli import main
from fastgan.training import load_checkpoint


def tree(folder):
    """Every name under `folder`, with content and time of the last change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def refused(argv, capsys):
    try:
        code = main(argv)
    except SystemExit as stop:  # a command line that cannot be read at all
        code = stop.code
    said = capsys.readouterr().err
    assert code in (1, 2) and said and "Traceback" not in said, (argv, said)
    return said


WRONG = [
    ["--seed", "-1"],
    ["--seed", str(2**70)],
    ["--steps", "0"],
    ["--steps", "1.5"],
    ["--lr", "nan"],
    ["--beta1", "2"],
    ["--gamma", "-1"],
    ["--grad-accum", "3"],
    ["--workers", "0"],
    ["--timeout", "inf"],
    ["--metrics-samples", "0"],
    ["--device", "gpu"],
    ["--data", "no-such-set"],
    ["--data", "kjv"],
    ["--resolution", "24"],
    ["--crop", "middle"],
    ["--data", ""],
    ["--latent", "1e15"],
    ["--no-such-option"],
]


@pytest.mark.parametrize("wrong", WRONG, ids=" ".join)
def test_a_new_run(tiny, wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    for out in (["--out", "r"], []):
        refused([*tiny, *out, *wrong], capsys)
        assert tree(tmp_path) == before


def test_the_corrected_command_works_in_the_same_place(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = refused([*tiny, "--out", "r", "--seed", "-1"], capsys)
    assert said == "fastgan train: --seed is -1, expected at least 0 and at most 9,223,372,036,854,775,807\n"
    assert main([*tiny, "--out", "r", "--seed", str(2**63 - 1)]) == 0
    assert load_checkpoint(tmp_path / "r").step == 1


def test_a_resumed_run(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros((8, 1, 32, 32), np.uint8), labels=np.arange(8) % 2)
    (tmp_path / "file").write_text("a file")
    assert main([*tiny, "--out", "r"]) == 0
    (tmp_path / "copy").mkdir()  # a run from before there were locks
    for name in ("config.json", "checkpoints"):
        os.rename(tmp_path / "r" / name, tmp_path / "copy" / name)
    before = tree(tmp_path)
    resume = ["train", "dcgan", "--out", "copy", "--resume"]
    does_not_fit = [
        ["--width", "8"],
        ["--latent", "8"],
        ["--no-conditional"],
        ["--data", str(other)],
        ["--resolution", "64"],
    ]
    for wrong in [*does_not_fit, *WRONG]:
        refused([*resume, *wrong], capsys)
        assert tree(tmp_path) == before, wrong
    for argv in (
        ["train", "gan", "--out", "copy", "--resume"],
        [*tiny, "--out", "copy"],
        [*tiny, "--out", "file"],
        [*tiny, "--out", "file/r"],
        [*tiny, "--out", "none", "--resume"],
        [*tiny, "--out", "/proc/self/r"],
        ["train", "dcgan", "--resume"],
        ["sample", "copy", "--device", "gpu"],
        ["sample", "copy", "--seeds", "x"],
        ["sample", "copy", "--out", "file/x.png"],
        ["sample", "copy", "--seeds", "0-99999", "--out", "file/y/x.png"],
        ["sample", "copy", "--out", "x.gif"],
        ["sample", "none"],
        ["eval", "none"],
        ["convert", "file", "file/x.safetensors"],
        ["convert", "none.pt", "x.safetensors"],
        ["data", "prepare", "file", "x.npz"],
    ):
        refused(argv, capsys)
        assert tree(tmp_path) == before, argv
    assert main(["sample", "copy", "--seeds", "0-1", "--out", "picture"]) == 0 and (tmp_path / "picture.png").exists()
    assert main([*resume, "--steps", "2"]) == 0 and load_checkpoint(tmp_path / "copy").step == 2


def test_a_disk_that_is_full_at_the_start(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        said = refused([*tiny, "--out", "r"], capsys)
    assert said == "fastgan train: r/config.json: No space left on device\n"
    assert main([*tiny, "--out", "r"]) == 0


def test_a_folder_that_may_not_be_written(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*tiny, "--out", "r"]) == 0
    capsys.readouterr()
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(("r", "runs", str(tmp_path / "r"))))
    before = tree(tmp_path / "r")
    assert "r may not be written to" in refused(["train", "dcgan", "--out", "r", "--resume"], capsys)
    assert "runs may not be written to" in refused(tiny, capsys)
    (tmp_path / "f").touch()
    assert "nothing can be written to f/r: f is no folder; choose another place" in refused(
        [*tiny, "--out", "f/r"], capsys
    )
    assert main(["sample", "r", "--seeds", "3"]) == 0
    said = capsys.readouterr().out
    assert said == "r may not be written to: writing to the working directory\nr-seeds-3.png\n"
    assert (tmp_path / "r-seeds-3.png").exists() and tree(tmp_path / "r") == before


def test_default_folders_of_runs_that_start_together(tmp_path, monkeypatch):
    """None of them has written anything yet when each looks for a name."""
    from fastgan.training.run import RunConfig, claim, find_folder

    monkeypatch.chdir(tmp_path)
    run = RunConfig(data="emoji")
    found = [find_folder("gan", run) for _ in range(3)]
    locks = [claim(folder, "gan", run) for folder in found]
    assert [str(lock.folder) for lock in locks] == ["runs/gan-emoji", "runs/gan-emoji-2", "runs/gan-emoji-3"]
    (tmp_path / "runs/gan-emoji/config.json").write_text(json.dumps({}))
    for lock in locks:
        lock.release()
    assert str(find_folder("gan", run)) == "runs/gan-emoji-2"
