import errno
import json
import os

import pytest
import torch

from fastgan.training import CheckpointError, checkpoint, load_checkpoint
from fastgan.training.checkpoint import Writer, list_checkpoints, pack_optimizer, unpack_optimizer, write_checkpoint

TENSORS = {"network/g/w": torch.arange(6.0).view(2, 3), "network/g/n": torch.tensor(7)}


def folder_with(tmp_path, *steps, keep=9):
    for step in steps:
        write_checkpoint(tmp_path, step, TENSORS, {"step": step}, keep)
    return tmp_path


def test_round_trip(tmp_path):
    folder_with(tmp_path, 5)
    found = load_checkpoint(tmp_path)
    assert found.step == 5 and found.state == {"step": 5} and not found.skipped
    assert torch.equal(found.under("network/g/")["w"], TENSORS["network/g/w"])
    assert found.tensors["network/g/n"].shape == ()
    assert load_checkpoint(tmp_path / "step-00000005").step == 5


def test_newest_whole_one_and_only_the_last_few_are_kept(tmp_path):
    folder_with(tmp_path, 1, 2, 10, 3, keep=2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3, 10]
    assert load_checkpoint(tmp_path).step == 10


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_a_damaged_one_is_passed_over_aloud(tmp_path, capsys, name, damage):
    folder_with(tmp_path, 1, 2)
    file = tmp_path / "step-00000002" / name
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:-3])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"")
    found = load_checkpoint(tmp_path)
    assert found.step == 1 and len(found.skipped) == 1
    message = capsys.readouterr().err
    assert "damaged checkpoint passed over" in message and "step-00000002" in message


def test_no_whole_checkpoint_says_what_was_tried(tmp_path):
    with pytest.raises(CheckpointError, match="no whole checkpoint in"):
        load_checkpoint(tmp_path)
    folder_with(tmp_path, 4)
    (tmp_path / "step-00000004" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"step-00000004/state.json has 2 bytes instead of"):
        load_checkpoint(tmp_path, say=lambda text: None)


@pytest.mark.parametrize("after", range(5))
def test_a_full_disk_leaves_the_old_ones_and_no_litter(tmp_path, monkeypatch, after):
    folder_with(tmp_path, 1)
    calls = []
    sync = os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    writer = Writer(tmp_path, keep=3)
    writer.save(2, TENSORS, {})
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert load_checkpoint(tmp_path).step in (1, 2)
    assert {p.name for p in tmp_path.iterdir()} <= {"step-00000001", "step-00000002"}


def test_writer_saves_what_was_there_when_save_returned(tmp_path):
    weight = torch.zeros(1000)
    writer = Writer(tmp_path, keep=3)
    writer.save(1, {"w": weight}, {})
    weight.fill_(1)
    writer.save(2, {"w": weight}, {})
    writer.wait()
    assert not load_checkpoint(tmp_path / "step-00000001").tensors["w"].any()
    assert load_checkpoint(tmp_path).tensors["w"].all()


def test_half_written_folders_are_never_read_and_are_swept(tmp_path):
    folder_with(tmp_path, 1)
    (tmp_path / ".tmp-step-00000002").mkdir()
    assert load_checkpoint(tmp_path).step == 1
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_reading_runs_no_code(tmp_path):
    """The files are safetensors and JSON: nothing in them can name a function."""
    folder_with(tmp_path, 1)
    step = tmp_path / "step-00000001"
    assert sorted(p.name for p in step.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    header = int.from_bytes((step / "tensors.safetensors").read_bytes()[:8], "little")
    assert set(json.loads((step / "tensors.safetensors").read_bytes()[8 : 8 + header])) >= set(TENSORS)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
def test_optimizers_continue_exactly(make):
    torch.manual_seed(0)

    def grow(seed):
        torch.manual_seed(seed)
        network = torch.nn.Linear(4, 3)
        return network, make(network.parameters())

    def step(network, optimizer, k):
        optimizer.zero_grad()
        network(torch.full((2, 4), float(k))).square().sum().backward()
        optimizer.step()

    first, optimizer = grow(0)
    for k in range(3):
        step(first, optimizer, k)
    second, other = grow(1)
    second.load_state_dict(first.state_dict())
    tensors, rest = pack_optimizer("", optimizer)
    unpack_optimizer(other, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(rest)))
    for k in range(3, 6):
        step(first, optimizer, k)
        step(second, other, k)
    assert torch.equal(first.weight, second.weight)
    small = make(torch.nn.Linear(4, 3, bias=False).parameters())
    with pytest.raises(CheckpointError, match="does not fit"):
        unpack_optimizer(small, tensors, rest)
