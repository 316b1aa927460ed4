"""Files of torch.save, whole, of every layout, damaged, and made to harm."""

import argparse
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from fastgan.convert import UnsafePickle
from fastgan.untrusted import BadFile, torch_file

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool]


def saved(path, content, zipped: bool = True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_saves(tmp_path, zipped):
    base = torch.randn(3, 4, device="cpu")
    content = {
        "g_ema": torch.nn.Linear(2, 3, device="cpu").state_dict(),
        "parameter": torch.nn.Parameter(base.clone()),
        "views": [base.T, base[1:, ::2], base[0, 0], base[:0]],
        "types": [torch.arange(5, device="cpu").to(dtype) for dtype in DTYPES],
        "args": argparse.Namespace(lr=0.1, names=["a"], sizes=torch.Size([1, 2]), device=torch.device("cpu")),
        "numbers": (1, 2.5, None, True, "x", np.float64(3.5), np.arange(3)),
        "dtype": torch.float16,
    }
    found = torch_file.load(saved(tmp_path / "t.pt", content, zipped))
    for name, tensor in content["g_ema"].items():
        torch.testing.assert_close(found["g_ema"][name], tensor, rtol=0, atol=0)
    torch.testing.assert_close(found["parameter"], content["parameter"].data, rtol=0, atol=0)
    for ours, theirs in zip(found["views"] + found["types"], content["views"] + content["types"], strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert found["args"] == {"lr": 0.1, "names": ["a"], "sizes": (1, 2), "device": "'cpu'"}
    assert found["numbers"][:6] == (1, 2.5, None, True, "x", 3.5) and found["numbers"][6].tolist() == [0, 1, 2]
    assert found["views"][0].data_ptr() == found["views"][2].data_ptr()  # as saved: views of one storage


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_says_what_to_do(tmp_path, zipped):
    with pytest.raises(UnsafePickle) as caught:
        torch_file.load(saved(tmp_path / "m.pt", torch.nn.Linear(1, 1), zipped))
    text = str(caught.value)
    assert "m.pt" in text and "torch.nn.modules.linear.Linear" in text and "not run" in text
    assert "state_dict()" in text and "weights_only=False" not in text


def test_code_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/was-run",)

    for zipped in (True, False):
        with pytest.raises(UnsafePickle, match=r"system"):
            torch_file.load(saved(tmp_path / "p.pt", {"g": Payload()}, zipped))
    assert not (tmp_path / "was-run").exists()


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, changes: dict, method=zipfile.ZIP_STORED):
    """The archive with some members replaced; None removes one."""
    found = members(path) | {f"{path.stem}/{name}": content for name, content in changes.items()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in found.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def tensor_call(offset: int, size: tuple, stride: tuple, end: bytes = b"") -> bytes:
    """data.pkl of a tensor on a storage of four numbers."""
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    rest = b"".join(pickle.dumps(part, protocol=2)[2:-1] for part in (offset, size, stride))
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + b"\x89}tR" + end + b"."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tensor_call(0, (5,), (1,)), "reaches element 4 of a storage of 4"),
        (tensor_call(3, (2,), (1,)), "reaches element 4"),
        (tensor_call(0, (2,), (4,)), "reaches element 4"),
        (tensor_call(-1, (2,), (1,)), "offset -1"),
        (tensor_call(0, (-2,), (1,)), "size"),
        (tensor_call(0, (2,), (-1,)), "stride"),
        (tensor_call(0, (2, 2), (1,)), "stride"),
        (tensor_call(0, (10**6, 10**6), (0, 0)), "repeats the elements"),
        (tensor_call(0, (2**62, 2**62), (0, 0)), "size"),
        (tensor_call(0, (1,) * 64, (1,) * 64), "size"),
        (tensor_call(0, (True,), (1,)), "size"),
        # BUILD on a tensor: weights_only's reader calls set_ with it, which grows the storage
        (tensor_call(0, (4,), (1,), b"(K\x00M\x50\xc3\x85K\x01\x85\x89t" + b"b"), "gives a state to a Tensor"),
        (tensor_call(0, (4,), (1,), b"K\x00K\x01s"), "adds items to a Tensor"),
        (tensor_call(0, (4,), (1,)).replace(b"FloatStorage", b"DoubleStorage"), "16 bytes, expected 32|takes more"),
        (tensor_call(0, (4,), (1,)).replace(b"K\x04tQ", b"K\x05tQ"), "16 bytes, expected 20"),
        (tensor_call(0, (4,), (1,)).replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"), "'data/9' is missing"),
        (tensor_call(0, (4,), (1,)).replace(b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00../.."), "missing"),
        (b"\x80\x02K\x05Q.", "refers to 5"),
    ],
)
def test_tensors_lie_within_their_bytes(tmp_path, data, message):
    path = saved(tmp_path / "t.pt", torch.zeros(4, device="cpu"))
    assert torch_file.load(rewritten(path, {"data.pkl": tensor_call(0, (2, 2), (2, 1))})).shape == (2, 2)
    with pytest.raises(UnsafePickle, match=message) as caught:
        torch_file.load(rewritten(path, {"data.pkl": data}))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 600


def test_archives_that_lie(tmp_path):
    path = saved(tmp_path / "t.pt", torch.arange(4.0, device="cpu"))
    whole = path.read_bytes()
    for changes, message in (
        ({"byteorder": b"big"}, "big-endian"),
        ({"data.pkl": None}, "no data.pkl"),
        ({"constants.pkl": b"x"}, "TorchScript"),
        ({"data/0": b"x" * 15}, "15 bytes, expected 16"),
    ):
        with pytest.raises(UnsafePickle, match=message):
            torch_file.load(rewritten(path, changes))
        path.write_bytes(whole)
    with pytest.raises(UnsafePickle, match="compressed"):
        torch_file.load(rewritten(path, {"data.pkl": b"N" * (1 << 20)}, zipfile.ZIP_DEFLATED))
    flipped = bytearray(whole)
    flipped[whole.index(struct.pack("<4f", 0, 1, 2, 3)) + 5] ^= 4
    path.write_bytes(flipped)
    with pytest.raises(UnsafePickle, match="CRC"):
        torch_file.load(path)


def test_booleans_are_zero_or_one(tmp_path):
    path = saved(tmp_path / "t.pt", torch.zeros(4, dtype=torch.bool, device="cpu"))
    with pytest.raises(UnsafePickle, match="booleans"):
        torch_file.load(rewritten(path, {"data/0": b"\x00\x01\x02\x00"}))


@pytest.mark.parametrize("zipped", [True, False])
def test_every_truncation_and_many_flips(tmp_path, zipped):
    content = {"a": torch.arange(20.0, device="cpu"), "b": torch.arange(3, device="cpu")}
    path = saved(tmp_path / "t.pt", content, zipped)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(BadFile, match=r"t\.pt"):
            torch_file.load(path)
    for at in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            found = torch_file.load(path)
        except BadFile as error:
            assert "t.pt" in str(error)
        else:
            assert (
                not zipped
                or not isinstance(found, dict)
                or all(torch.equal(content[n], t) for n, t in found.items() if n in content)
            )


def test_other_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path, message in ((tmp_path, "a folder"), (tmp_path / "pipe.pt", "no ordinary file")):
        with pytest.raises(BadFile, match=message):
            torch_file.load(path)
    with pytest.raises(FileNotFoundError):
        torch_file.load(tmp_path / "none.pt")
    for content in (b"", b"PK\x03\x04", torch_file.LEGACY, b"hello"):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(BadFile, match=r"x\.pt"):
            torch_file.load(tmp_path / "x.pt")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    with pytest.raises(BadFile, match=r"no data\.pkl"):
        torch_file.load(tmp_path / "x.pt")
