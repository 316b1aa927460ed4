"""Everything that logs a run: who is told what and when, whose faults end a run, and what a resumed run says again."""

import io
import json
import os
import signal
import sys
import warnings

import pytest
import torch
from packages import install

from fastgan.cli import main
from fastgan.recipes import read_run
from fastgan.recipes.gan import GAN
from fastgan.training import Interrupted, RunConfig, Trainer, TrainingError, load_checkpoint
from fastgan.training.loggers import TensorBoard
from fastgan.training.sinks import SINKS, Console, Sink, Sinks, find


class Noted:
    """Notes what it is told. `fails`: methods that raise."""

    def __init__(self, *fails):
        self.fails, self.calls = fails, []

    def note(self, method, *told):
        self.calls.append((method, *told))
        if method in self.fails:
            raise RuntimeError(f"no {method} today")

    def write(self, step, values):
        self.note("write", step, values)
        values.clear()  # theirs to use

    def show(self, step, path):
        assert path.is_file()
        self.note("show", step, path.name)

    def close(self):
        self.note("close")


def trainer(folder, data, recipe=GAN, sinks=(), steps=4, **options):
    config = GAN.Config(steps=steps, batch_size=8, units=(16, 8), latent=4, ema_halflife=1000.0)
    plain = {"device": "cpu", "samples": 4, "log_every": 2, "checkpoint_every": 2, "log": ("jsonl",)}
    return Trainer(recipe, config, RunConfig(out=str(folder), **plain | options), dataset=data, sinks=sinks)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_what_a_sink_is_told(tiny, tmp_path):
    class Measured(GAN):
        def evaluate(self, networks, run, count, **options):
            return {"gan": {"fd": 1.5}}

    sinks = Noted(), Noted()
    trainer(tmp_path / "run", tiny, Measured, sinks, metrics_every=4, sample_every=2).train()
    for sink in sinks:  # the first one emptied what it was given
        assert [call[:2] for call in sink.calls[:-1]] == [
            ("show", 0),
            ("write", 2),
            ("show", 2),
            ("write", 4),
            ("show", 4),
            ("write", 4),
        ]
        assert sink.calls[-1] == ("close",) and sink.calls[0][2] == "step-00000000.png"
    kept = rows(tmp_path / "run")
    assert [row["step"] for row in kept] == [2, 4, 4] and kept[2] == {"step": 4, "fd/gan": 1.5}
    assert {"generator/loss", "discriminator/gradient", "speed/images_per_second", "seconds"} < kept[0].keys()


def test_values_are_floats_by_name(tiny, tmp_path):
    class Kept(Noted):
        def write(self, step, values):
            self.note("write", step, dict(values))

    sink = Kept()
    trainer(tmp_path / "run", tiny, sinks=[sink]).train()
    told = [{"step": step, **values} for name, step, *rest in sink.calls[:-1] if name == "write" for values in rest]
    assert told == rows(tmp_path / "run") and all(
        type(v) is float for row in told for n, v in row.items() if n != "step"
    )


@pytest.mark.parametrize("method", ["write", "show", "close"])
def test_a_faulty_sink_is_named_once_and_ends_no_run(tiny, tmp_path, capsys, method):
    faulty, sound = Noted(method), Noted()
    trainer(tmp_path / "run", tiny, sinks=[faulty, sound], sample_every=1, log_every=1).train()
    assert load_checkpoint(tmp_path / "run").step == 4 and len(rows(tmp_path / "run")) == 4
    out = capsys.readouterr().out
    assert out.count(f"Noted was not written: RuntimeError: no {method} today") == 1
    assert [call[:2] for call in faulty.calls] == [call[:2] for call in sound.calls]  # it was called again


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), ConnectionError("offline"), ValueError("x")])
def test_any_exception_of_a_sink_is_survived(tiny, tmp_path, capsys, fault):
    class Faulty(Sink):
        def write(self, step, values):
            raise fault

    trainer(tmp_path / "run", tiny, sinks=[Faulty()]).train()
    assert "Faulty was not written: " in capsys.readouterr().out


def test_the_record_cannot_be_written(tiny, tmp_path, monkeypatch):
    from fastgan.training.sinks import JSONLines

    def full(*told):
        raise OSError(28, "No space left on device")

    sink = Noted()
    monkeypatch.setattr(JSONLines, "write", full)
    with pytest.raises(TrainingError, match=r"the disk is full .*Resume with"):
        trainer(tmp_path / "run", tiny, sinks=[sink]).train()
    assert sink.calls[-1] == ("close",)


@pytest.mark.parametrize("how", ["signal", "error"])
def test_a_run_that_ends_early_closes_its_sinks(tiny, tmp_path, how):
    class Ending(GAN):
        def updates(self, step):
            if step == 2:
                if how == "error":
                    raise ZeroDivisionError
                os.kill(os.getpid(), signal.SIGTERM)
            return super().updates(step)

    sink = Noted()
    with pytest.raises(ZeroDivisionError if how == "error" else Interrupted):
        trainer(tmp_path / "run", tiny, Ending, [sink]).train()
    assert [call[0] for call in sink.calls].count("close") == 1 and sink.calls[-1] == ("close",)
    assert '"title": "loss"' in (tmp_path / "run/report.html").read_text()


def test_a_report_of_another_run_is_left_alone(tiny, tmp_path):
    """The folder goes away, and another run's comes in its place."""

    class Going(GAN):
        def updates(self, step):
            if step == 3:
                (tmp_path / "run").rename(tmp_path / "moved")
                (tmp_path / "run").mkdir()
                (tmp_path / "run/config.json").write_bytes((tmp_path / "moved/config.json").read_bytes())
            return super().updates(step)

    with pytest.raises(TrainingError, match="moved or deleted"):
        trainer(tmp_path / "run", tiny, Going).train()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("log", "kinds"),
    [
        ((), {"metrics.jsonl"}),
        (("jsonl",), {"metrics.jsonl"}),
        (("tensorboard",), {"metrics.jsonl", "tensorboard"}),
        (("tensorboard", "jsonl"), {"metrics.jsonl", "tensorboard"}),
    ],
)
def test_the_record_is_always_written(tiny, tmp_path, log, kinds):
    trainer(tmp_path / "run", tiny, log=log).train()
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert kinds <= made and ("tensorboard" in made) == ("tensorboard" in kinds)
    assert tuple(read_run(tmp_path / "run").run.log) == log


def test_refused_before_anything_is_written(tiny, tmp_path):
    for wrong, error, message in (
        ({"log": ("tensorbord",)}, ValueError, "unknown sink 'tensorbord'; did you mean 'tensorboard'?"),
        ({"log": ("jsonl", "tensorboard", "jsonl")}, ValueError, "names 'jsonl' 2 times"),
        ({"log": ("jsonl",), "sinks": ["jsonl"]}, ValueError, "names 'jsonl' 2 times"),
        ({"log": ("no.such.module:Sink",)}, ValueError, "no module 'no'"),
        ({"sinks": [Noted]}, TypeError, r"sinks\[0\] is the class Noted, expected an object"),
        ({"sinks": [Noted(), object()]}, TypeError, r"sinks\[1\] is a object, expected"),
        ({"sinks": [open]}, TypeError, r"sinks\[0\]"),
    ):
        with pytest.raises(error, match=message.replace("?", r"\?")):
            trainer(tmp_path / "run", tiny, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing(tiny, tmp_path, monkeypatch):
    for package in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"log to {package}: .*pip install 'fastgan\[loggers\]'"):
            trainer(tmp_path / "run", tiny, log=(package,))
    assert not list(tmp_path.iterdir())


def test_on_the_command_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command[3:], "--steps", "2", "--out", "a", "--log", "jsonl"]) == 0
    assert not (tmp_path / "a/tensorboard").exists()
    capsys.readouterr()
    assert main([*command[3:], "--steps", "2", "--out", "b", "--log", "jsonl", "tensorbord"]) == 1
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err and not (tmp_path / "b").exists()
    assert main(["train", "gan", "--out", "a", "--resume", "--steps", "4"]) == 0
    assert [row["step"] for row in rows(tmp_path / "a")] == [2, 4] and not (tmp_path / "a/tensorboard").exists()


FILE = """
import json
made = []
class Lines:
    def __init__(self, folder, step, config):
        made.append((folder, step, config))
        self.path = folder / "lines.txt"
    def write(self, step, values):
        with open(self.path, "a") as file:
            print(step, file=file)
    def show(self, step, path): pass
    def close(self): pass
"""


def test_code_that_the_command_line_names(command, tmp_path, monkeypatch, capsys):
    """It runs where a person names it, and not because config.json does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mysinks.py").write_text(FILE)
    log = ["--log", "jsonl", "mysinks:Lines"]
    try:
        assert main([*command[3:], "--steps", "2", "--log-every", "1", "--out", "a", *log]) == 0
        module = sys.modules.pop("mysinks")
        ((folder, step, config),) = module.made
        assert str(folder) == "a" and step == 0 and config["recipe"] == "gan" and config["config"]["steps"] == 2
        assert config.keys() == {"recipe", "config", "run", "data"} and json.dumps(config)
        (tmp_path / "mysinks.py").write_text("raise SystemExit('run by a file')")
        assert read_run(tmp_path / "a").run.log == ("jsonl",)
        assert main(["sample", "a", "--seeds", "0"]) == 0
        capsys.readouterr()
        assert main(["train", "gan", "--out", "a", "--resume", "--steps", "3"]) == 0
        assert "mysinks:Lines" in capsys.readouterr().out and "mysinks" not in sys.modules
        assert main(["train", "gan", "--out", "a", "--resume", "--steps", "4", *log]) == 0
        assert module.made[1][1] == 3
    finally:
        sys.modules.pop("mysinks", None)
    assert (tmp_path / "a/lines.txt").read_text().split() == ["1", "2", "4"]


def test_code_that_a_yaml_file_names(tiny_file, tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    import fastgan

    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text("raise SystemExit('run by a file')")
    (tmp_path / "run.yaml").write_text(f"steps: 1\ndata: {tiny_file}\nlog: [jsonl, theirs.py:Lines]\ndevice: cpu\n")
    with pytest.warns(UserWarning, match=r"run.yaml:3: theirs.py:Lines: code to import"):
        made = fastgan.run("gan", config="run.yaml", out="a", batch_size=8, units=(16, 8), latent=4)
    assert made.saved.run.log == ("jsonl",)


def test_the_command_that_resumes_names_code_again(tiny, tiny_file, tmp_path, monkeypatch):
    """And of data that were an object it is a call: from a shell another data set of its name would be taken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my sinks.py").write_text(FILE)
    for log, word, call in (
        (
            ("jsonl", "./my sinks.py:Lines"),
            f" --log jsonl '{tmp_path}/my sinks.py:Lines'",
            ", log=['jsonl', '{}:Lines']",
        ),
        (("jsonl",), "", ""),
    ):
        named = RunConfig(data=str(tiny_file), out="run", device="cpu", log=log)
        made = Trainer(GAN, GAN.Config(steps=4, batch_size=8, units=(16, 8), latent=4), named)
        assert made.resume_command == "fastgan train gan --out run --resume" + word
        given = f"fastgan.run('gan', out='run', resume=True, dataset=...{call.format(tmp_path / 'my sinks.py')})"
        assert trainer("run", tiny, log=log).resume_command == given


def test_a_sink_of_a_package(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path, "theirs", {"fastgan.sinks": {"lines": "their_sinks:Lines"}}, their_sinks=FILE)
    assert "lines" in SINKS and list(find(("lines",))) == ["jsonl", "lines"]


def test_a_sink_that_cannot_be_opened(tiny, tmp_path):
    def refuses(folder, step, config):
        raise RuntimeError("not logged in")

    SINKS.register("refuses", refuses)
    sink = Noted()
    with pytest.raises(TrainingError, match=r"refuses cannot be opened \(RuntimeError: not logged in\)"):
        trainer(tmp_path / "run", tiny, log=("refuses",), sinks=[sink]).train()


def test_a_resumed_run_tells_again(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    options = {"log": ("jsonl", "tensorboard"), "log_every": 1}
    trainer(out, tiny, steps=4, **options).train()
    with (out / "metrics.jsonl").open("a") as file:  # a run that was killed two steps after its checkpoint
        file.write('{"step": 5, "x": 1}\n{"step": 6, "x": 1}\n{"st')
    sink = Noted()
    trainer(out, tiny, sinks=[sink], steps=6, resume=True, **options).train()
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4, 5, 6] and "x" not in rows(out)[4]
    assert [call[1] for call in sink.calls if call[0] == "write"] == [5, 6]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("generator/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Images("samples")] == [0, 4, 6]


def test_tensorboard_shows_texts(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "a.txt").write_text("one\ntwo\n")
    board = TensorBoard(tmp_path, 0, {})
    board.show(3, tmp_path / "a.txt")
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("samples/text_summary")
    assert event.step == 3 and b"one  \ntwo" in event.tensor_proto.string_val[0]


def row(step, loss, rate=100.0):
    return {"generator/loss": loss, "speed/images_per_second": rate, "seconds": float(step)}


def test_plain_lines(capsys):
    console = Console(10, 0, "images", ("fd_",))
    console.write(10, row(10, 0.5))
    console.write(10, {"fd_x/a": 1.0, "kid/a": 2.0, "fd_x/b": 3.0})
    console.write(10, {"kid/a": 2.0})
    console.close()
    assert capsys.readouterr().out == "step 10/10  generator 0.500  100 images/s  ETA 0:00\nstep 10: fd_x 1.000\n"


@pytest.mark.parametrize(
    ("rate", "said"), [(0.347, "0.35"), (4.81, "4.8"), (9.97, "10"), (12.4, "12"), (12345.6, "12346")]
)
def test_a_slow_run_is_not_said_to_stand_still(rate, said, capsys):
    Console(10, 0, "images", ()).write(10, row(10, 0.5, rate))
    assert f"  {said} images/s" in capsys.readouterr().out


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(10, 0, "images", ("fd_",))
    console.write(10, row(10, 0.5))
    console.write(10, {"fd_x/a": 1.0})
    print("[a] line")
    console.close()
    assert sys.stdout is terminal
    assert all(text in terminal.getvalue() for text in ("10/10", "generator 0.500", "step 10: fd_x 1.000", "[a] line"))


def test_a_bar_in_a_notebook(monkeypatch):
    """rich shows it in a widget, where there are widgets."""
    import types

    import rich.console

    shown = []

    class Output:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def clear_output(self, wait):
            shown.append("bar")

    display = types.ModuleType("IPython.display")
    display.display = lambda *things, **more: shown.extend(things)
    widgets = types.ModuleType("ipywidgets")
    widgets.Output, widgets.__spec__ = Output, types.SimpleNamespace()
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        console, stdout = Console(10, 0, "images", ("fd_",)), sys.stdout
        console.write(10, row(10, 0.5))
        assert sys.stdout is stdout  # print writes into the cell
        console.close()
    assert "bar" in shown and any(isinstance(thing, Output) for thing in shown)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert Console(10, 0, "images", ())._bar is None


def test_averages_are_there_before_training(tiny, tmp_path):
    """Those of the networks as made; then of the prepared ones, in the same objects; then of a checkpoint."""

    class Prepared(GAN):
        def prepare(self, dataset):
            super().prepare(dataset)
            with torch.no_grad():
                for parameter in self.generator.parameters():
                    parameter.mul_(1.1)

        def updates(self, step):
            if step == 0:
                assert equal(runs[-1].ema.networks["generator"], self.generator)
            return super().updates(step)

    def equal(one, other):
        return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))

    made = trainer(tmp_path / "run", tiny, Prepared)
    runs = [made]
    average = made.ema.networks["generator"]
    assert made.step == 0 and equal(average, made.recipe.networks["generator"]) and not average.training
    made.train()
    assert average is made.ema.networks["generator"] and not equal(average, made.recipe.generator)
    again = trainer(tmp_path / "run", tiny, Prepared, steps=6, resume=True)
    assert again.step == 0 and equal(again.ema.networks["generator"], again.recipe.generator)
    again.train()
    whole = trainer(tmp_path / "whole", tiny, Prepared, steps=6)
    runs.append(whole)
    whole.train()
    assert equal(again.ema.networks["generator"], whole.ema.networks["generator"]) and whole.step == again.step == 6


def test_other_processes_have_no_sinks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    others = Sinks((), ())
    others.write(1, {"generator/loss": 1.0, "seconds": 1.0})
    others.show(1, tmp_path / "samples.png")
    others.close()
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())
