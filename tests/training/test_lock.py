"""One writer per run; and signals, which end a run with a word at any time."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer, TrainingError, load_checkpoint
from fastgan.training.lock import RunHeld, RunLock

CONFIG = GAN.Config(steps=3, batch_size=8, units=(16, 8), latent=4)


def trainer(folder, data, recipe=GAN, **options):
    return Trainer(recipe, CONFIG, RunConfig(out=str(folder), device="cpu", samples=4, **options), dataset=data)


def tree(folder):
    return {
        path: (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in [folder, *folder.rglob("*")]
    }


def test_a_second_writer_is_refused_and_told_who_is_first(tiny, tmp_path):
    out = tmp_path / "run"
    trainer(out, tiny).train()
    (out / "checkpoints/.tmp-step-00000004").mkdir()  # what the first one is writing
    lock = RunLock(out)
    lock.hold()
    before = tree(out)
    with pytest.raises(RunHeld, match=rf"run is being written by process {os.getpid()} on .*, since 20\d\d-"):
        trainer(out, tiny, resume=True)
    assert tree(out) == before
    lock.release()
    trainer(out, tiny, resume=True).train()
    assert not list(out.glob("checkpoints/.tmp*"))


def test_whoever_comes_between_is_noticed(tiny, tmp_path, monkeypatch):
    out = tmp_path / "run"
    trainer(out, tiny).train()
    late, hold = trainer(out, tiny, resume=True), RunLock.hold

    def hold_after_another(lock):  # which has trained on since the checkpoint was read
        shutil.copytree(out / "checkpoints/step-00000003", out / "checkpoints/step-00000009")
        hold(lock)

    monkeypatch.setattr(RunLock, "hold", hold_after_another)
    before = (out / "config.json").stat().st_mtime_ns
    with pytest.raises(RunHeld, match="trained it further in the meantime"):
        late.train()
    assert (out / "config.json").stat().st_mtime_ns == before
    RunLock(out).check()


@pytest.mark.parametrize("note", ["", "garbage", "[]", '{"pid": null}', json.dumps({"pid": 2**22 + 1, "host": "gone"})])
def test_the_lock_of_a_dead_process_does_not_block(tiny, tmp_path, note):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").write_text(note)
    assert trainer(tmp_path / "run", tiny).train() == tmp_path / "run"


HOLD = """
import sys
from pathlib import Path
from fastgan.training.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.hold()
print(flush=True)
sys.stdin.read()
"""


def test_the_lock_ends_with_its_process(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"\n"
    with pytest.raises(RunHeld, match=f"process {process.pid} on"):
        RunLock(tmp_path).check()
    with pytest.raises(RunHeld, match=f"process {process.pid} on"):
        RunLock(tmp_path).hold()
    process.kill()
    process.communicate()
    lock = RunLock(tmp_path)
    lock.check()
    lock.hold()
    lock.release()


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_run_folder_that_goes_away(tiny, tmp_path, how):
    out = tmp_path / "run"

    class Going(GAN):
        def updates(self, step):
            if step == 2:
                out.rename(tmp_path / "there")
                if how == "deleted":  # under another name, or a checkpoint being written could fill what is emptied
                    shutil.rmtree(tmp_path / "there", ignore_errors=True)
            return super().updates(step)

    with pytest.raises(TrainingError, match="run was moved or deleted while the run wrote to it"):
        trainer(out, tiny, Going, checkpoint_every=1).train()
    assert not out.exists()
    if how == "moved":
        assert load_checkpoint(tmp_path / "there").step >= 1  # the second was being written
        trainer(tmp_path / "there", tiny, resume=True).train()


def test_a_report_that_cannot_be_written_ends_no_run(tiny, tmp_path, capsys):
    (tmp_path / "run/report.html").mkdir(parents=True)
    trainer(tmp_path / "run", tiny).train()
    assert load_checkpoint(tmp_path / "run").step == 3
    assert "report.html was not written: " in capsys.readouterr().out


def test_samples_that_cannot_be_written_end_a_run_with_a_word(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/samples").write_text("a file")
    with pytest.raises(TrainingError, match=r"step 1: the run cannot be written .*samples.*Resume with"):
        trainer(tmp_path / "run", tiny).train()


def test_what_a_data_set_says_of_itself(tiny, tmp_path, capsys):
    trainer(tmp_path / "run", tiny).train()
    out = capsys.readouterr().out
    assert f" on {tiny.name}, " in out and f"\ndata: {tiny.about}\n" in out


# As in a terminal: a shell's background job ignores SIGINT, one of nohup SIGHUP.
USUAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
# Sends itself a signal at a moment of the start.
STARTING = """
import os, signal, sys
import fastgan.training.engine as engine
from fastgan.recipes.gan import GAN
from fastgan.cli import main
number, moment, *argv = sys.argv[1:]
def at(owner, name):
    function = getattr(owner, name)
    def wrapped(*args, **kwargs):
        os.kill(os.getpid(), int(number))
        return function(*args, **kwargs)
    setattr(owner, name, wrapped)
at(*{"data": (engine, "derive_seed"), "networks": (GAN, "__init__"), "folder": (engine, "Meter"),
     "samples": (engine, "save_samples"), "prepare": (GAN, "prepare")}[moment])
sys.exit(main(argv))
"""


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "data"),
        (signal.SIGINT, "networks"),
        (signal.SIGHUP, "prepare"),
        (signal.SIGHUP, "samples"),
    ],
)
def test_a_signal_before_the_first_step(tmp_path, command, number, moment):
    out = tmp_path / "run"
    script = [sys.executable, "-c", USUAL + STARTING, str(int(number)), moment]
    argv = [*script, *command[3:], "--steps", "50", "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 128 + number and number.name in said and "Traceback" not in said, said
    if moment in ("data", "networks", "prepare"):
        assert "nothing was written" in said and not out.exists()
    else:
        assert "saved step 1" in said and load_checkpoint(out).step == 1


def test_nohup_keeps_a_run_from_hanging_up(tmp_path, command):
    argv = [
        sys.executable,
        "-c",
        STARTING,
        str(int(signal.SIGHUP)),
        "folder",
        *command[3:],
        "--steps",
        "3",
        "--out",
        "r",
    ]
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", ignore, *argv], cwd=tmp_path, capture_output=True, timeout=300)
    assert done.returncode == 0 and load_checkpoint(tmp_path / "r").step == 3
