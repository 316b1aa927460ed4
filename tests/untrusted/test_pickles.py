"""Pickles that ask for what plain data do not need, or for more than they hold: refused in time and memory that they deserve."""

import collections
import io
import pickle
import struct
import sys
import time
import tracemalloc
import types
import warnings

import pytest
import torch

from fastgan import convert
from fastgan.convert import UnsafePickle, unpickler


def read(tmp_path, data: bytes, memory: int | None = None):
    """What the reader makes of a pickle, in at most 10 seconds and, where it is measured, `memory` bytes."""
    path = tmp_path / "crafted.pkl"
    path.write_bytes(data)
    if memory:
        tracemalloc.start()
    began = time.process_time()
    try:
        return unpickler.load(path)
    finally:
        assert time.process_time() - began < 10
        if memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < memory


def test_a_tensor_takes_no_state(tmp_path):
    """Tensor.__setstate__ gives it a storage, size and stride; torch then grows the storage with what lay in memory."""
    four = pickle.dumps(torch.zeros(4), protocol=2).removesuffix(b".")
    state = (
        b"(ctorch.storage\n_load_from_bytes\n"
        + _bytes(_legacy(torch.zeros(4)))
        + b"\x85R"
        + b"K\x00M\x50\xc3\x85K\x01\x85t"
    )
    with pytest.raises(UnsafePickle, match="gives a state to a Tensor"):
        read(tmp_path, four + state + b"b.")


def _legacy(tensor: torch.Tensor) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.save(tensor.storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def shared(depth: int, end: bytes) -> bytes:
    """A list that holds one list twice, and so on: 2^depth paths in some bytes per level."""
    levels = b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(depth))
    return b"\x80\x02" + b"]q\x00" + levels + end


@pytest.mark.parametrize(
    "data",
    [
        shared(50, b"."),
        # the same as an argument that an error message shows: of a global, a storage, a dtype, an encoding
        shared(50, b"\x85cnumpy\ndtype\nq\xc8h\x32\x85R."),
        shared(50, b"0c_codecs\nencode\n(X\x01\x00\x00\x00xh\x32tR."),
        shared(50, b"0ctorch._utils\n_rebuild_tensor_v2\n(h\x32h\x32h\x32h\x32tR."),
        shared(50, b"0}h\x32K\x01s."),
        shared(50, b"0h\x32b."),
    ],
)
def test_shared_lists_end(tmp_path, data):
    try:
        assert isinstance(read(tmp_path, data), list)
    except UnsafePickle as error:
        assert len(str(error)) < 500


@pytest.mark.parametrize("attribute", ["_init_kwargs", "_modules"])
def test_shared_arguments_and_networks_end(attribute, tmp_path, monkeypatch):
    """As above, in what is read off a network: its constructor's arguments, and the parts that it consists of."""
    fake = types.ModuleType("training.networks")
    fake.Generator = type("Generator", (), {"__module__": "training.networks"})
    monkeypatch.setitem(sys.modules, "training", types.ModuleType("training"))
    monkeypatch.setitem(sys.modules, "training.networks", fake)
    network, arguments = fake.Generator(), []
    network._buffers = {"synthesis.b4.const": torch.zeros(2, 4, 4)}
    for _ in range(50):
        outer, arguments = fake.Generator(), [arguments, arguments]
        outer._modules = {"a": network, "b": network}
        network = outer
    if attribute == "_init_kwargs":
        network._modules, network._init_kwargs = {}, {"z_dim": arguments}
        network._buffers = {"synthesis.b4.const": torch.zeros(2, 4, 4)}
    path = tmp_path / "s.pkl"
    path.write_bytes(pickle.dumps({"G_ema": network}))
    began = time.process_time()
    with pytest.raises(ValueError, match=r"s\.pkl.*more than"):
        convert.read(path)
    assert time.process_time() - began < 10


def test_a_text_encoded_many_times_is_refused(tmp_path):
    big = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    calls = b"c_codecs\nencode\nq\x01" + big + b"q\x02" + b"(" + b"h\x01h\x02\x85R" * 3000 + b"l."
    with pytest.raises(UnsafePickle, match="characters"):
        read(tmp_path, b"\x80\x02" + calls, memory=80 << 20)


def test_storages_repeated_are_refused(tmp_path):
    storage = _bytes(_legacy(torch.zeros(1 << 18)))
    calls = b"ctorch.storage\n_load_from_bytes\nq\x01" + storage + b"q\x02(" + b"h\x01h\x02\x85R" * 100 + b"l."
    with pytest.raises(UnsafePickle, match="bytes of tensors"):
        read(tmp_path, b"\x80\x02" + calls)


@pytest.mark.parametrize(
    "data",
    [
        b"N." * 3,
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # bytes longer than the file
        b"\x8b\xff\xff\xff\x7f.",  # and a number
        b"(" * 100_000 + b"t" * 100_000 + b".",  # nested deeply
        b"}(" + b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N" for i in range(20_000)) + b"u.",
        b")" + b"\x86" * 60 + b"}" + b".",
        b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"\x90.",
        b"\x80\x02" + b"\x8f" * 200_000 + b".",
    ],
)
def test_small_bombs(tmp_path, data):
    try:
        read(tmp_path, data)
    except UnsafePickle as error:
        assert len(str(error)) < 500


def test_a_memo_takes_what_is_put_there(tmp_path):
    assert read(tmp_path, b"]r\x00\x87\x93\x03.", memory=4 << 20) == []  # at index 60 million


def test_each_operation_is_counted(tmp_path):
    with pytest.raises(UnsafePickle, match="500000 operations"):
        read(tmp_path, b"N0" * 300_000 + b"N.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ctorch\nfloat32\nN.", ""),
        (b"(lcnumpy\nndarray\n(tR.", "calls numpy.ndarray"),
        (b"ctorch\nfloat32\n(tR.", "calls torch.float32"),
        (b"ccollections\nOrderedDict\nN\x81.", "calls collections.OrderedDict with None"),
        (b"ccollections\nOrderedDict\n(I5\ntR.", "made of 5"),
        (b"K\x05K\x06a.", "adds items to 5"),
        (b"(lK\x01b.", "gives a state to "),
        (b"(iposix\nsystem\n.", "instruction INST"),
        (b"(cposix\nsystem\no.", r"asks for posix\.system"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"0.", "takes more than"),
        (b"(.", "takes more than"),
        (b"", "empty"),
        (b"cposix\n\x1b[2Jsystem\n.", r"asks for posix"),
        (b"ctraining.networks\nG\n)\x81K\x01b.", "is 1, expected a dict"),
    ],
)
def test_refusals_say_why(tmp_path, data, message):
    if not message:
        assert read(tmp_path, data) is None
        return
    with pytest.raises(UnsafePickle, match=message) as caught:
        read(tmp_path, data)
    assert "crafted.pkl" in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_as_pickle_reads_them(tmp_path, protocol):
    data = {
        "numbers": [0, 1, -1, 255, 2**31, -(2**63), 2**200, 0.5, float("inf")],
        "text": ["", "x", "ü中😀", "a" * 300, "line\nbreak"],
        "bytes": [b"", b"\x00\xff", b"z" * 300],
        "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1, 2}, {"a", "b"}, [], {}),
        "ordered": collections.OrderedDict(b=1, a=2),
    }
    data["again"] = [data["text"], data["text"]]
    assert read(tmp_path, pickle.dumps(data, protocol=protocol)) == data
