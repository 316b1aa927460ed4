"""Runs on streams: facts from the first item, exact resume, each process its part, errors that say what happened."""

import io
import itertools
import warnings
from contextlib import redirect_stdout

import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

import fastgan
from fastgan.data import load
from fastgan.recipes.gan import GAN
from fastgan.training import CheckpointError, RunConfig, Trainer, TrainingError, load_checkpoint
from fastgan.training.checkpoint import Checkpoint
from fastgan.training.log import read_metrics
from fastgan.training.state import streams

CONFIG = GAN.Config(steps=12, batch_size=8, units=(16, 8), latent=4)


class Bars(IterableDataset):
    """Grey images of 8x8, of which `stop` many can be read."""

    shuffle_buffer = 10

    def __init__(self, n: int = 30, stop: int = 10**9):
        self.n, self.left, self.epoch = n, stop, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for i in range(self.n):
            self.left -= 1
            if self.left < 0:
                raise OSError("the disk is gone")
            image = torch.full((1, 8, 8), 40, dtype=torch.uint8)
            image[0, (i + self.epoch) % 8] += 8 * (i % 22)
            yield image, i % 3


class Placed(Bars):
    first = place = 0

    def __iter__(self):
        first, self.first, self.place = self.first, 0, self.first
        for item in itertools.islice(super().__iter__(), first, None):
            self.place += 1
            yield item

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.first = state["place"]


class Floats(TensorDataset):
    """A map-style data set of images that are floats already, with classes as torchvision names them."""

    classes = ("low", "high")

    def __init__(self):
        super().__init__(torch.linspace(-1, 1, 20 * 64).view(20, 1, 8, 8), torch.arange(20) // 10)


def bars(epoch: int):
    return Bars()


def run(out, **options) -> RunConfig:
    return RunConfig(out=str(out), device="cpu", samples=4, checkpoint_every=2, sample_every=50, **options)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints").tensors


@pytest.mark.parametrize(
    ("make", "said"), [(Bars, "again up to its place"), (Placed, "exact"), (lambda: bars, "again")]
)
@pytest.mark.parametrize("workers", [1, 3])
def test_resume_repeats_an_unbroken_run(tmp_path, make, said, workers):
    whole = Trainer(GAN, CONFIG, run(tmp_path / "whole"), dataset=make()).train()
    half = GAN.Config(**{**vars(CONFIG), "steps": 7})
    Trainer(GAN, half, run(tmp_path / "half"), dataset=make()).train()
    out = io.StringIO()
    with redirect_stdout(out):
        resumed = run(tmp_path / "half", resume=True, workers=workers)
        folder = Trainer(GAN, CONFIG, resumed, dataset=make()).train()
    assert said in out.getvalue() and "a stream" in out.getvalue()
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(folder)[name], tensor), name


def test_a_stream_that_breaks_off_says_what_is_safe(tmp_path):
    trainer = Trainer(GAN, CONFIG, run(tmp_path / "run"), dataset=Bars(stop=30 + 1 + 60))
    with pytest.raises(
        TrainingError, match=r"no batch of data \(OSError: the disk is gone\). The last good checkpoint"
    ):
        trainer.train()
    Trainer(GAN, CONFIG, run(tmp_path / "run", resume=True), dataset=Bars()).train()


@pytest.mark.parametrize(
    ("dataset", "facts"),
    [
        (Bars(), {"name": "Bars", "resolution": 8, "channels": 1, "num_classes": 0, "class_names": []}),
        (
            Floats(),
            {"name": "Floats", "resolution": 8, "channels": 1, "num_classes": 2, "class_names": ["low", "high"]},
        ),
        (TensorDataset(torch.zeros(3, 4, 8, 6)), {"name": "TensorDataset", "resolution": (8, 6), "channels": 4}),
    ],
)
def test_facts_come_from_the_first_item(dataset, facts):
    assert GAN.describe(dataset).items() >= facts.items()


@pytest.mark.parametrize("item", [torch.zeros(8, 8), (7, 1), torch.tensor(1)])
def test_what_is_no_image_is_refused_before_anything_is_written(tmp_path, item):
    with pytest.raises(ValueError, match=r"its first item begins with .* expected an image"):
        Trainer(GAN, CONFIG, run(tmp_path / "run"), dataset=[item, item])
    assert not (tmp_path / "run").exists()


def test_a_map_style_set_of_floats_trains(tmp_path):
    folder = Trainer(GAN, CONFIG, run(tmp_path / "run"), dataset=Floats()).train()
    assert "streams" not in load_checkpoint(folder / "checkpoints").state


def test_statistics_take_one_pass(tiny):
    """The data's mean and deviation are the same from a set in memory, a stream and floats."""
    made = []
    images = [(image, 0) for image in tiny.images]
    floats = [(image.double() / 127.5 - 1, 0) for image in tiny.images]
    for dataset in (tiny, lambda epoch: iter(images), images, floats):
        torch.manual_seed(0)
        recipe = GAN(CONFIG, GAN.describe(tiny))
        recipe.prepare(dataset)
        made.append(recipe.discriminator.state_dict())
    for other in made[1:]:
        for name, tensor in made[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-6 if other is made[3] else 0)


@pytest.mark.parametrize("kind", [Placed, Bars])
def test_a_stream_is_measured_on_after_training_and_not_meanwhile(kind, tmp_path, capsys):
    """Its place or epoch is that of the training, which a reading would move."""
    trainer = Trainer(GAN, CONFIG, run(tmp_path / "run", metrics_every=1000, metrics_samples=8), dataset=kind())
    folder = trainer.train()
    assert "not measured: fd, kid, prdc (a stream that knows its place or epoch cannot" in capsys.readouterr().out
    later = fastgan.Run(folder, "cpu")
    later.dataset = kind()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert later.evaluate(8, ["kid"])["gan"]
    assert later.recipe.features["real"] == 30


def test_unreadable_pictures_are_counted_in_the_log(tmp_path):
    class Encoded(IterableDataset):
        def __iter__(self):
            for i in range(40):
                file = io.BytesIO()
                Image.new("L", (8, 8), i).save(file, "PNG")
                yield {"image": file.getvalue()[: 30 if i % 20 == 19 else None]}

    with pytest.warns(UserWarning, match="skipped 1 unreadable so far"):
        folder = Trainer(GAN, CONFIG, run(tmp_path / "run"), dataset=load(Encoded(), channels=1)).train()
    assert read_metrics(folder / "metrics.jsonl")[-1]["data/skipped"] >= 2


@pytest.mark.parametrize(
    "places",
    [5, [5], [{}], [{"epoch": 0, "window": 0, "offset": 1}], [{"epoch": -1, "window": 0, "offset": 1, "place": 0}]],
)
def test_damaged_places_are_refused(tmp_path, places):
    with pytest.raises(CheckpointError, match="streams"):
        streams(Checkpoint(tmp_path, 1, {}, {"streams": places}))
