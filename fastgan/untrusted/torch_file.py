"""What `torch.save` wrote, of any version: tensors and plain data, interpreted without torch's own reader.

That one (`weights_only=True`) lets a file give a tensor a new storage, size and stride of any length, and what lies beyond
the storage is then whatever was in memory before. Here a tensor is a view within bytes that the file holds.
"""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from fastgan.untrusted import BadFile, clip, open_regular, shorten
from fastgan.untrusted.pickles import Budget, Global, Machine, Replaced, Source, Stand, UnsafePickle
from fastgan.untrusted.plain import finder, table

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save once began with
DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
LONGEST_DIRECTORY = 16 << 20


class Storage(Stand):
    """Numbers of one type in a row, `flat` once they are read; tensors are views of them."""

    def __init__(self, dtype: torch.dtype, count: int, budget: Budget):
        self.size = count * dtype.itemsize
        budget.spend("bytes of tensors", self.size)
        self.bytes = torch.zeros(self.size, dtype=torch.uint8, device="cpu")
        self.flat = self.bytes.view(dtype)
        self.filled = False

    def fill(self, data: Any) -> None:
        """The bytes, from an object with `readinto`, or a buffer."""
        target, at = memoryview(self.bytes.numpy()), 0
        if hasattr(data, "readinto"):
            while at < self.size and (part := data.read(min(1 << 20, self.size - at))):
                target[at : at + len(part)] = part
                at += len(part)
        elif len(data) == self.size:
            target[:] = data
            at = self.size
        if at != self.size:
            raise UnsafePickle(f"a storage of {self.size} bytes is cut short")
        if self.flat.dtype == torch.bool and self.size and int(self.bytes.max()) > 1:
            raise UnsafePickle("a storage of booleans holds other numbers")
        self.filled = True


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_) -> torch.Tensor:
    if not isinstance(storage, Storage):
        raise UnsafePickle(f"a tensor is built on {clip(storage)}, expected a storage")
    sequences = isinstance(size, tuple | list) and isinstance(stride, tuple | list) and len(size) == len(stride) <= 32
    if not sequences or not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise UnsafePickle(f"a tensor has offset {clip(offset)}, size {clip(size)} and stride {clip(stride)}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    held, count = len(storage.flat), math.prod(size)
    if count and last >= held:
        raise UnsafePickle(f"a tensor reaches element {last} of a storage of {held}")
    if count > held:
        raise UnsafePickle(f"a tensor of size {clip(size)} repeats the elements of a storage of {held}")
    return storage.flat.as_strided(size, stride, offset if count else 0)


def _same(tensor: Any, *_) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise UnsafePickle(f"a parameter is {clip(tensor)}, expected a tensor")
    return tensor


def _device(kind: Any, index: Any = None) -> str:
    return clip(kind) if index is None else f"{clip(kind)}:{clip(index)}"


class Attributes(Replaced):
    """argparse.Namespace: attributes by name."""

    def set_state(self, state: Any) -> dict:
        if type(state) is not dict:
            raise UnsafePickle(f"a Namespace has the state {clip(state)}, expected a dict")
        self.value, self.done = state, True
        return state


def names(budget: Budget) -> dict[str, Callable | None]:
    """What files of tensors may name."""
    return table(budget) | {
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _same,
        "torch._utils._rebuild_parameter_with_state": _same,
        "torch.storage._load_from_bytes": lambda data: legacy_storage(data, budget),
        "torch.Size": lambda sizes=(): tuple(sizes),
        "torch.device": _device,
        "argparse.Namespace": Attributes,
        **{f"torch.{kind}Storage": None for kind in DTYPES},
        **{f"torch.cuda.{kind}Storage": None for kind in DTYPES},
        **{str(dtype): None for dtype in (*DTYPES.values(), torch.float8_e4m3fn, torch.float8_e5m2)},
    }


def _refuse(name: str) -> UnsafePickle:
    return UnsafePickle(
        f"it holds an object of class {name}, not only tensors, as torch.save(model) writes it. That class's code"
        " was not run and will not be. Where the class is at hand, save the weights alone:"
        " torch.save(model.state_dict(), 'weights.pt')"
    )


def _declared(pid: Any, budget: Budget, known: dict[str, Storage]) -> Storage:
    """The storage of a persistent id: ("storage", type, key, device, number of elements), and in old files a view."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise UnsafePickle(f"the pickle refers to {clip(pid)}, expected a storage of its own file")
    kind = pid[1].name.rpartition(".")[2].removesuffix("Storage") if isinstance(pid[1], Global) else None
    if kind not in DTYPES or not isinstance(pid[2], str) or type(pid[4]) is not int or pid[4] < 0:
        raise UnsafePickle(f"a storage has type {clip(kind)}, key {clip(pid[2])} and {clip(pid[4])} elements")
    if pid[2] not in known:
        known[pid[2]] = Storage(DTYPES[kind], pid[4], budget)
    found = known[pid[2]]
    if found.flat.dtype != DTYPES[kind] or len(found.flat) != pid[4]:
        raise UnsafePickle(f"storage {clip(pid[2])} is declared twice, differently")
    return found


def _legacy(source: Source, budget: Budget) -> Any:
    """The five pickles and the bytes of the format before torch 1.6."""
    storages: dict[str, Storage] = {}
    find = finder(names(budget), _refuse)

    def pickle(persistent: Callable | None = None) -> Any:
        return Machine(source, find, budget, persistent).run()

    pickle(), pickle()  # the magic number and the version, 1001
    system = pickle()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UnsafePickle("a big-endian machine wrote it, expected a little-endian one")
    found = pickle(lambda pid: _declared(pid, budget, storages))
    keys = pickle()
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys) or set(keys) != set(storages):
        raise UnsafePickle("the list of storages does not fit the tensors")
    for name in keys:
        storage = storages[name]
        count = int.from_bytes(source.read(8), "little")
        if count != len(storage.flat):
            raise UnsafePickle(f"storage {clip(name)} has {clip(count)} elements, expected {len(storage.flat)}")
        storage.fill(source.read(storage.size))
    return found


def legacy_storage(data: Any, budget: Budget) -> Storage:
    """One storage in that format, as pickles hold them."""
    if not isinstance(data, bytes | memoryview) or bytes(data[: len(LEGACY)]) != LEGACY:
        raise UnsafePickle(f"a storage is {clip(data)}, expected what torch.save writes")
    found = _legacy(Source(data), budget)
    if not isinstance(found, Storage):
        raise UnsafePickle(f"a storage holds {clip(found)}")
    return found


def _directory(content: bytes | mmap.mmap) -> None:
    """BadFile for a zip whose list of members alone would fill the memory."""
    end = content.rfind(b"PK\x05\x06", max(0, len(content) - 65557))
    size = int.from_bytes(content[end + 12 : end + 16], "little") if end >= 0 else 0
    if size == 0xFFFFFFFF or size > LONGEST_DIRECTORY:
        raise BadFile(f"its list of members has more than {LONGEST_DIRECTORY >> 20} MiB")


def _zip(file: BinaryIO, content: bytes | mmap.mmap, budget: Budget) -> Any:
    """The archive that torch.save writes: data.pkl, and each storage as a member of its own."""
    _directory(content)
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        roots = [
            name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise UnsafePickle("it is a zip archive, and none of torch.save's: it has no data.pkl")
        if f"{roots[0]}constants.pkl" in members:
            raise UnsafePickle("it is a TorchScript program. It was not run; save the weights of its model instead")

        def member(name: str) -> zipfile.ZipInfo:
            info = members.get(roots[0] + name)
            if info is None or info.compress_type or info.file_size != info.compress_size or info.flag_bits & 1:
                raise UnsafePickle(f"its member {clip(name)} is missing, compressed or encrypted")
            if info.file_size > len(content):
                raise UnsafePickle(f"its member {clip(name)} claims {info.file_size} bytes")
            return info

        if f"{roots[0]}byteorder" in members and archive.read(member("byteorder")) != b"little":
            raise UnsafePickle("a big-endian machine wrote it, expected a little-endian one")
        storages: dict[str, Storage] = {}
        source = Source(archive.read(member("data.pkl")))

        def persistent(pid: Any) -> Storage:
            storage = _declared(pid, budget, storages)
            if not storage.filled:
                info = member(f"data/{pid[2]}")
                if info.file_size != storage.size:
                    raise UnsafePickle(f"storage {clip(pid[2])} has {info.file_size} bytes, expected {storage.size}")
                with archive.open(info) as data:
                    storage.fill(data)
            return storage

        return Machine(source, finder(names(budget), _refuse), budget, persistent).run()


def _interpret(file: BinaryIO, content: bytes | mmap.mmap, name: str | Path) -> Any:
    """What `file` holds, whose bytes are `content`."""
    try:
        budget = Budget(len(content))
        if content[:4] == b"PK\x03\x04":
            return _zip(file, content, budget)
        if content[: len(LEGACY)] == LEGACY:
            return _legacy(Source(content), budget)
        raise UnsafePickle("it is no file of torch.save")
    except BadFile as error:
        raise UnsafePickle(f"{name} is refused: {error}") from error
    except Exception as error:  # damaged bytes fail in as many ways as a zip archive has fields
        raise UnsafePickle(f"{name} is damaged ({type(error).__name__}: {shorten(error, 200)})") from error


def loads(content: bytes, name: str | Path) -> Any:
    """As `load`, of a file's content; `name` is what errors call it."""
    return _interpret(io.BytesIO(content), content, name)


def load(path: str | Path) -> Any:
    """The content of a file of `torch.save`: tensors, numbers, text, containers of them, an argparse.Namespace as a dict.

    Raises UnsafePickle for anything else (it is named), and for a damaged file; BadFile and FileNotFoundError as `open_regular`.
    """
    with open_regular(path) as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise UnsafePickle(f"{path} is empty or cannot be read: {error}") from error
        return _interpret(file, content, path)
