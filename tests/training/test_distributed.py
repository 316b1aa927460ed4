"""Several processes do what one does with their batches in turn."""

import json
from pathlib import Path

import pytest
import torch
from training.shared_runs import IMAGES, RUNS, normalise, train

from fastgan.data import load
from fastgan.training import load_checkpoint
from fastgan.training.distributed import World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one(tmp_path_factory, pictures):
    """Every run by one process."""
    out = tmp_path_factory.mktemp("one")
    whole = World(0, 1, torch.device("cpu"))
    return {name: train(pictures, out / name, name, 1) for name in RUNS} | {"normalise": normalise(whole)}


def shared(torchrun, processes, tmp_path_factory, pictures, *names):
    out = tmp_path_factory.mktemp(f"shared{processes}")
    text = torchrun(processes, Path(__file__).with_name("shared_runs.py"), pictures, out, *names)
    return out, text, [torch.load(out / f"{rank}.pt", weights_only=False) for rank in range(processes)]


@pytest.fixture(scope="module")
def two(torchrun, tmp_path_factory, pictures):
    return shared(torchrun, 2, tmp_path_factory, pictures)


@pytest.fixture(scope="module")
def four(torchrun, tmp_path_factory, pictures):
    return shared(torchrun, 4, tmp_path_factory, pictures, "dcgan", "wgan-gp")


def whole_equals(theirs, ours):
    assert theirs["tensors"].keys() == ours["tensors"].keys()
    for name, tensor in ours["tensors"].items():
        torch.testing.assert_close(
            theirs["tensors"][name], tensor, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one_with_twice_the_batch(two, one, name):
    whole_equals(two[2][0][name], one[name])


@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_four_processes(four, one, name):
    whole_equals(four[2][0][name], one[name])


def test_accumulated_gradients_are_those_of_the_whole_batch(one):
    whole_equals(one["dcgan-accumulated"], one["dcgan"])


@pytest.mark.parametrize("runs", ["two", "four"])
def test_every_process_ends_with_the_same_weights_and_averages(runs, request):
    _, _, ranks = request.getfixturevalue(runs)
    for name in ranks[0].keys() & RUNS:
        first = ranks[0][name]["tensors"]
        assert any(key.startswith("ema/") for key in first)
        for other in ranks[1:]:
            assert all(torch.equal(tensor, other[name]["tensors"][key]) for key, tensor in first.items())


@pytest.mark.parametrize("runs", ["two", "four"])
def test_one_all_reduce_for_each_optimiser_step(runs, request):
    _, _, ranks = request.getfixturevalue(runs)
    for found in ranks:
        assert found["dcgan"]["reduced"] == [2] * 11 and found["dcgan"]["updates"] == 22
    if runs == "two":
        assert ranks[1]["dcgan-accumulated"]["reduced"] == [2] * 11
        assert (
            ranks[1]["dcgan-ada"]["reduced"] == [3] * 3
        )  # one for the middle of the logits, by which ada measures rpgan


@pytest.mark.parametrize("runs", ["two", "four"])
def test_no_image_is_lost_or_doubled(runs, request, one, pictures):
    _, _, ranks = request.getfixturevalue(runs)
    labels = torch.stack([found["dcgan"]["labels"] for found in ranks], 2)
    assert labels.shape == (11, IMAGES // len(ranks), len(ranks))
    stream = labels.flatten()
    size = len(load(pictures))
    assert size % IMAGES  # an epoch ends within a step
    for epoch in stream.view(-1, size):
        assert sorted(epoch.tolist()) == list(range(size))
    assert torch.equal(stream, one["dcgan"]["labels"].flatten())


def test_rank_0_alone_writes(two):
    out, text, _ = two
    assert text.count("step 11/11") == 2  # of the two runs of that length
    for name, (options, _) in RUNS.items():
        rows = [json.loads(line) for line in (out / name / "metrics.jsonl").open()]
        assert [row["step"] for row in rows] == list(range(1, options.get("steps", 3) + 1))
        assert len(list((out / name / "tensorboard").iterdir())) == 1
        assert load_checkpoint(out / name).step == len(rows)


def test_logged_values_are_means_over_processes(two, one, pictures):
    rows = json.loads((two[0] / "dcgan/metrics.jsonl").read_text().splitlines()[0])
    assert rows["discriminator/loss"] == pytest.approx(one["dcgan"]["first"]["discriminator/loss"], rel=1e-5)


@pytest.mark.parametrize("runs", ["two", "four"])
def test_batch_normalisation_over_all_processes(runs, request, one):
    _, _, ranks = request.getfixturevalue(runs)
    for number, whole in one["normalise"].items():
        parts = [found["normalise"][number] for found in ranks]
        rows = torch.stack([part["rows"] for part in parts], 2).flatten(1, 2)
        torch.testing.assert_close(rows, whole["rows"])
        for part in parts:
            assert part["names"] == whole["names"]
            for key in ("weights", "buffers"):
                torch.testing.assert_close(part[key], whole[key])
        evaluated = torch.stack([part["eval"] for part in parts], 1).flatten(0, 1)
        torch.testing.assert_close(evaluated, whole["eval"])
