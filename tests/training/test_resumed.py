"""What a resumed run takes from its checkpoint, what from its options, and what it tells that a kill kept from being told."""

import json

import numpy as np
import pytest
import torch

from fastgan import Run
from fastgan import run as train
from fastgan.recipes.gan import GAN
from fastgan.training import CheckpointError, RunConfig, Trainer, load_checkpoint
from fastgan.training.checkpoint import list_checkpoints, write_checkpoint
from fastgan.training.run import _in_folder


def trainer(folder, data, recipe=GAN, steps=4, lr=2e-4, **options):
    config = recipe.Config(steps=steps, batch_size=8, units=(16, 8), latent=4, lr=lr)
    plain = {"device": "cpu", "samples": 4, "log_every": 1, "checkpoint_every": 2, "log": ("jsonl",)}
    return Trainer(recipe, config, RunConfig(out=str(folder), **plain | options), dataset=data)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def rates(trained):
    return {group["lr"] for optimizer in trained.recipe.optimizers.values() for group in optimizer.param_groups}


def test_a_rate_that_is_given_anew_is_the_optimisers(tiny, tmp_path):
    """A run whose loss is not finite says that a lower --lr helps."""
    trainer(tmp_path, tiny, steps=2).train()
    for steps, lr in ((4, 1e-6), (6, 1e-6), (8, 2e-4)):
        again = trainer(tmp_path, tiny, steps=steps, lr=lr, resume=True)
        again.train()
        assert rates(again) == {lr}


def test_a_rate_that_the_recipe_moves_goes_on_from_where_it_was(tiny, tmp_path):
    class Falling(GAN):
        def updates(self, step):
            for optimizer in self.optimizers.values():
                optimizer.param_groups[0]["lr"] *= 0.5
            return super().updates(step)

    trainer(tmp_path, tiny, Falling, steps=3).train()
    again = trainer(tmp_path, tiny, Falling, steps=5, resume=True)
    again.train()
    assert rates(again) == {2e-4 / 32}


def test_data_of_a_relative_path_are_those_where_the_run_began(tmp_path, monkeypatch):
    """A folder of the same name elsewhere holds other pictures. A project that was moved has its own with it."""
    for place, count in (("here", 4), ("there", 6)):
        (tmp_path / place).mkdir()
        images = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / place / "pictures.npz", images=images)
    monkeypatch.chdir(tmp_path / "here")
    sizes = dict(units=(8, 4), latent=4, batch_size=4, device="cpu", samples=2)
    train("gan", data="pictures.npz", steps=1, out=str(tmp_path / "run"), **sizes)
    made = Run(tmp_path / "run")
    assert made.saved.run.data == "pictures.npz"
    monkeypatch.chdir(tmp_path / "there")
    made = Run(tmp_path / "run")
    facts = made.recipe.provided(made.networks, vars(made.saved.run), 1)
    assert len(facts["data"]()) == 4
    resumed = train("gan", steps=2, resume=True, out=str(tmp_path / "run"))
    assert resumed.saved.run.data == str(tmp_path / "here" / "pictures.npz")
    (tmp_path / "here" / "pictures.npz").rename(tmp_path / "elsewhere.npz")
    train("gan", data="pictures.npz", steps=1, out=str(tmp_path / "other"), **sizes)
    (tmp_path / "there").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert Run(tmp_path / "other").saved.run.data == "pictures.npz"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photos", "{}/photos"),
        ("hf:photos", "hf:{}/photos"),
        ("photos/{000..009}.tar", "{}/photos/{000..009}.tar"),
        ("./emoji", "{}/./emoji"),
        ("emoji", "emoji"),  # the embedded set, whatever lies there
        ("emoji:food", "emoji:food"),
        ("absent", "absent"),
        ("/photos", "/photos"),
        ("~/photos", "~/photos"),
    ],
)
def test_what_is_a_path_of_data(name, expected, tmp_path):
    for folder in ("photos", "emoji", "~"):
        (tmp_path / folder).mkdir()
    assert _in_folder(str(tmp_path), name) == expected.replace("{}", str(tmp_path))


def test_fewer_steps_than_were_made(tiny, tmp_path):
    trainer(tmp_path, tiny, steps=4).train()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"steps is 2, and .* is at step 4 already"):
        trainer(tmp_path, tiny, steps=2, resume=True).train()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    trainer(tmp_path, tiny, steps=4, resume=True).train()


def test_images_are_counted_as_they_were_seen(tiny, tmp_path):
    """A run that goes on with another batch, or another number of processes, goes on in its schedules too."""

    asked = []

    class Scheduled(GAN):
        def ema_halflife(self, images):
            asked.append(images)
            return super().ema_halflife(images)

    trainer(tmp_path, tiny, Scheduled, steps=2).train()
    for steps, batch in ((4, 4), (5, 16)):
        config = GAN.Config(steps=steps, batch_size=batch, units=(16, 8), latent=4)
        run = RunConfig(out=str(tmp_path), device="cpu", samples=4, log=("jsonl",), resume=True)
        again = Trainer(Scheduled, config, run, dataset=tiny)
        again.train()
    assert asked == [8, 16, 20, 24, 40] and again.recipe.seen(7) == 40 + 2 * 16


class Killed(GAN):
    """Its measurement, which takes minutes in earnest, is where the kill comes."""

    killed = True

    def evaluate(self, networks, run, count, **options):
        if self.killed:
            raise SystemExit
        return {"gan": {"fd": 1.5}}


@pytest.mark.parametrize("steps", [4, 6], ids=["the last", "one between"])
def test_figures_and_samples_that_a_kill_kept_back(tiny, tmp_path, monkeypatch, steps):
    every = {"metrics_every": 4, "sample_every": 4, "steps": steps}
    with pytest.raises(SystemExit):
        trainer(tmp_path, tiny, Killed, **every).train()
    assert load_checkpoint(tmp_path).step == 4 and not any("fd/gan" in row for row in rows(tmp_path))
    (tmp_path / "samples/step-00000004.png").unlink()
    monkeypatch.setattr(Killed, "killed", False)
    for _ in range(2):  # and once is enough
        trainer(tmp_path, tiny, Killed, **every, resume=True).train()
        assert [row["step"] for row in rows(tmp_path) if "fd/gan" in row] == sorted({4, steps})
        assert (tmp_path / "samples/step-00000004.png").is_file()


def test_the_time_of_training_is_that_of_all_steps(tiny, tmp_path):
    """Also of those between the last line of the log and the checkpoint."""
    import time

    class Slow(GAN):
        def updates(self, step):
            time.sleep(0.05)
            return super().updates(step)

    trainer(tmp_path, tiny, Slow, log_every=6, steps=5, checkpoint_every=3).train()
    for row in (tmp_path / "metrics.jsonl", tmp_path / "checkpoints/step-00000005"):
        assert row.exists()
    state = json.loads((tmp_path / "checkpoints/step-00000003/state.json").read_text())
    assert state["seconds"] >= 3 * 0.05


def test_data_that_have_changed_are_said_to_have(tiny, tmp_path, capsys):
    trainer(tmp_path, tiny, steps=2).train()
    trainer(tmp_path, tiny, steps=3, resume=True).train()
    assert "they were" not in capsys.readouterr().out
    trainer(tmp_path, tiny.subset(torch.arange(9)), steps=4, resume=True).train()
    assert "the data have changed, the run goes on with these; they were: 64 images" in capsys.readouterr().out


def corpus(path, words):
    path.write_text("\n".join(f"the cat {word} on mat {i}" for i in range(12) for word in words), encoding="utf-8")


def test_another_vocabulary_of_the_same_size_is_refused(tmp_path):
    options = {"batch_size": 4, "hidden": 8, "embedding": 4, "samples": 2, "metrics_every": 0}
    corpus(tmp_path / "text.txt", ["sat", "ran"])
    train("mle", data=str(tmp_path / "text.txt"), out=str(tmp_path / "run"), steps=1, **options)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    corpus(tmp_path / "text.txt", ["zzz", "ran"])
    with pytest.raises(CheckpointError, match=r"the data have changed since this run began: vocabulary is another"):
        train("mle", out=str(tmp_path / "run"), resume=True, steps=2)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    corpus(tmp_path / "text.txt", ["sat", "ran"])
    train("mle", out=str(tmp_path / "run"), resume=True, steps=2)


@pytest.mark.parametrize("conditional", [True, False])
def test_classes_in_another_order(tiny, tmp_path, conditional):
    options = {
        "width": 4,
        "max_width": 8,
        "latent": 4,
        "batch_size": 4,
        "samples": 2,
        "resolution": 32,
        "device": "cpu",
    }
    options |= {"conditional": conditional, "out": str(tmp_path / "run")}
    classes = torch.arange(len(tiny)) % 2

    def data(*names):
        images = torch.nn.functional.interpolate(tiny.images, 32)
        return tiny.replace(images=images, labels=classes, class_names=names)

    train("dcgan", dataset=data("cats", "dogs"), steps=1, **options)
    if conditional:
        with pytest.raises(CheckpointError, match=r"class_names was \['cats', 'dogs'\] and is \['dogs', 'cats'\]"):
            train("dcgan", dataset=data("dogs", "cats"), resume=True, steps=2, out=options["out"])
    else:
        train("dcgan", dataset=data("dogs", "cats"), resume=True, steps=2, out=options["out"])


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "report.html", "run.yaml", "samples/step-00000000.png", "checkpoints/step-00000009/x"]
)
def test_files_that_are_no_runs_are_left_alone(tiny, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"is there, and a run in .* would write such a file: choose another --out"):
        trainer(tmp_path, tiny).train()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path] and path.read_text() == "mine"


def test_a_new_checkpoint_is_kept_rather_than_later_damaged_ones(tmp_path):
    for step in (100, 200, 300):
        write_checkpoint(tmp_path, step, {"x": torch.zeros(1)}, {}, 3)
    for step in (200, 300):
        (tmp_path / f"step-00000{step}/state.json").write_text("{")
    assert load_checkpoint(tmp_path, say=lambda text: None).step == 100
    write_checkpoint(tmp_path, 150, {"x": torch.ones(1)}, {}, 1)
    assert load_checkpoint(tmp_path, say=lambda text: None).step == 150
    assert [step for step, _ in list_checkpoints(tmp_path)] == [150, 300]


def test_tensorboard_forgets_what_came_before_the_first_checkpoint(tiny, tmp_path):
    class Dying(GAN):
        dies = True

        def updates(self, step):
            if step == 3 and self.dies:
                raise SystemExit
            return super().updates(step)

    options = {"log": ("jsonl", "tensorboard"), "checkpoint_every": 100, "steps": 4}
    with pytest.raises(SystemExit):
        trainer(tmp_path, tiny, Dying, **options).train()
    Dying.dies = False
    trainer(tmp_path, tiny, Dying, **options, resume=True).train()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("generator/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("samples")] == [0, 4]


def test_a_vocoder_keeps_the_mel_spectrogram_that_it_hears(tmp_path):
    """Another window or highest frequency would fit the weights, and be another input."""
    options = {"generator": "hifigan-v3", "batch_size": 1, "judge": 0.01, "samples": 1, "metrics_every": 0}
    train("vocoder", out=str(tmp_path / "run"), steps=1, warmup=5, **options)
    for name, value in (("high", 7000.0), ("window", 2048)):
        with pytest.raises(CheckpointError, match=rf"trained with {name}=.*, not {value}: leave the option out"):
            train("vocoder", out=str(tmp_path / "run"), resume=True, steps=2, **{name: value})
    train("vocoder", out=str(tmp_path / "run"), resume=True, steps=2)
