"""The restricted unpickler: plain data only, by allow-list, whatever the payload."""

import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
import torch
from snapshot import MODULE_SRC, persistent, randomise, stand_ins, write_snapshot

from fastgan.convert import UnsafePickle, unpickler
from fastgan.models import r3gan


def reduce_to(function, *arguments):
    class Payload:
        def __reduce__(self):
            return function, arguments

    return Payload()


def by_name(name: str, *arguments: bytes) -> bytes:
    """Protocol 0 text: a global called with the given pickled arguments."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n(".encode() + b"".join(arguments) + b"tR."


PAYLOADS = {
    "os.system": reduce_to(os.system, "touch {marker}"),
    "subprocess.Popen": reduce_to(subprocess.Popen, ["touch", "{marker}"]),
    "builtins.eval": reduce_to(eval, "open('{marker}', 'w')"),
    "builtins.exec": reduce_to(exec, "open('{marker}', 'w')"),
    "builtins.getattr": reduce_to(getattr, {}, "get"),
    "builtins.open": reduce_to(open, "{marker}", "w"),
    "builtins.__import__": reduce_to(__import__, "antigravity"),
    "numpy.load": reduce_to(np.load, "{marker}"),
    "torch.load": reduce_to(torch.load, "{marker}"),
    "pickle.loads": reduce_to(pickle.loads, b"N."),
}
BYTES = {
    "runpy.run_path": by_name("runpy.run_path", b"V{marker}\n"),
    "types.FunctionType": by_name("types.FunctionType"),
    "marshal.loads": by_name("marshal.loads", b"V\n"),
    "code.interact": by_name("code.interact"),
    "torch.hub.load": by_name("torch.hub.load", b"Vx\n", b"Vy\n"),
    "torch.nn.modules.module.Module": by_name("torch.nn.modules.module.Module"),
    "torch_utils.persistence.import_hook": by_name("torch_utils.persistence.import_hook", b"N"),
    "training.networks.os.system": by_name("training.networks.os.system", b"Vtouch {marker}\n"),
    "importlib.import_module": by_name("importlib.import_module", b"Vos\n"),
    "operator.attrgetter": by_name("operator.attrgetter", b"Vsystem\n"),
}


@pytest.mark.parametrize("name", [*PAYLOADS, *BYTES])
def test_refuses_and_names(name, tmp_path):
    marker = tmp_path / "was-run"
    data = pickle.dumps({"G_ema": PAYLOADS[name]}) if name in PAYLOADS else BYTES[name]
    path = tmp_path / "evil.pkl"
    path.write_bytes(data.replace(b"{marker}", str(marker).encode()) if name in BYTES else data)
    module, _, attribute = name.rpartition(".")
    with pytest.raises(UnsafePickle, match=rf"\.{attribute}, which is not plain data|{module}"):
        unpickler.load(path)
    assert not marker.exists()


def load_bytes(tmp_path, data: bytes):
    path = tmp_path / "crafted.pkl"
    path.write_bytes(data)
    return unpickler.load(path)


def test_a_dotted_name_reaches_nothing(tmp_path):
    """Protocol 4 resolves 'a.b' by attributes: 'collections' with 'OrderedDict.__class__' must not."""
    data = b"\x80\x04" + b"\x8c\x0bcollections" + b"\x8c\x15OrderedDict.__class__" + b"\x93."
    with pytest.raises(UnsafePickle, match=r"OrderedDict\.__class__"):
        load_bytes(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        # BUILD on a function or class of ours, with a state that would set its attributes
        b"cnumpy._core.multiarray\nscalar\n(dVx\nI1\nsb.",
        b"ctraining.networks\nGenerator\n(N(dV__setstate__\nI1\nstb.",
        b"ccollections\nOrderedDict\n(N(dV__setitem__\nI1\nstb.",
        # a numpy dtype of objects, whose bytes are pickles of their own
        b"cnumpy\ndtype\n(VO8\nI0\nI1\ntR.",
        # copyreg on a class that is no network; encode with a codec of the attacker's choice
        b"ccopyreg\n_reconstructor\n(cbuiltins\nset\ncbuiltins\nobject\nNtR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        # a persistent id, a truncated file, no pickle at all
        b"Pabc\n.",
        b"(dVx\n",
        b"hello",
    ],
)
def test_refuses_crafted_streams(tmp_path, data):
    with pytest.raises(UnsafePickle):
        load_bytes(tmp_path, data)
    # and nothing was left behind in the reader
    assert load_bytes(tmp_path, pickle.dumps(dict(a=[1, 2.5, "x"]))) == dict(a=[1, 2.5, "x"])


def test_nested_pickle_in_a_storage_is_refused(tmp_path):
    inner = pickle.dumps(reduce_to(os.system, f"touch {tmp_path}/was-run"))
    data = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(inner)) + inner + b"tR."
    with pytest.raises(UnsafePickle):
        load_bytes(tmp_path, data)
    assert not (tmp_path / "was-run").exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    storage = pickle.dumps(torch.zeros(4), protocol=2)
    path = tmp_path / "t.pkl"
    path.write_bytes(storage)
    torch.testing.assert_close(unpickler.load(path), torch.zeros(4))
    wide = storage.replace(b"K\x00K\x04\x85", b"K\x00K\x50\x85")
    assert wide != storage
    with pytest.raises(UnsafePickle, match="reaches element 79 of a storage of 4"):
        load_bytes(tmp_path, wide)


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.asfortranarray(np.random.rand(3, 2)), np.array(2.5)])
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy(tmp_path, array, protocol):
    read = load_bytes(tmp_path, pickle.dumps({"a": array, "s": np.float32(1.5)}, protocol=protocol))
    np.testing.assert_array_equal(read["a"], array)
    assert read["s"] == 1.5 and isinstance(read["s"], float)


def test_views_keep_offset_and_stride(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    read = load_bytes(tmp_path, pickle.dumps({"view": base[1:, ::2].T, "half": base.half()}))
    torch.testing.assert_close(read["view"], base[1:, ::2].T)
    torch.testing.assert_close(read["half"], base.half())


def test_snapshot_is_read_and_its_source_is_not_run(tmp_path, monkeypatch):
    stand_ins(monkeypatch)
    net = randomise(r3gan.Generator(r3gan.Config()))
    path = write_snapshot(tmp_path / "s.pkl", G_ema=persistent(net, a=1))
    assert MODULE_SRC.encode() in path.read_bytes()
    read = unpickler.load(path)
    assert read["training_set_kwargs"] == {"path": "x.zip"} and read["G_ema"].arguments == {"a": 1}
    state = read["G_ema"].state_dict()
    assert list(state) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
