"""Damaged and hostile data sets, by the hundred: python tests/fuzz/data_sets.py --seconds 20 --seed 0

Each is loaded. A ValueError or OSError of one line is an answer, and so is a data set; any other exception, more than 10 s, or
more memory than MEMORY is a fault: it is printed with its seed and number, the files are kept, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.signal  # noqa: F401 - what resampling imports, outside of a case's time
from PIL import Image

import fastgan.data
from fastgan.data.text import load_text
from fastgan.data.wav import write_wav

SECONDS, MEMORY = 10, 512 << 20
FORMATS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")
WORDS = ["labels", "00000/img00000000.png", "", "x" * 300, "\x00", "../../x", "猫", "\ud800"]


def load(path: Path) -> None:
    """Reads the data set at `path` in the ways in which it may be given on a command line."""
    if path.suffix == ".txt":
        load_text(path)
    elif path.stem == "signals":
        fastgan.data.load_signals(path, length=64, rate=8000, channels=1)
    else:
        fastgan.data.load(path, resolution=8)
        fastgan.data.load(path, labels=False, crop="stretch", resolution=(8, 6), channels=4, bits=16)


def cases(rng: random.Random, folder: Path) -> Iterator[Path]:
    """An endless row of data sets, each in a folder of its own below `folder`."""
    makers = (_folder, _zip, _npz, _npz_header, _npy, _manifest, _idx, _text, _signals, _special)
    for number in range(1 << 62):
        place = folder / str(number)
        place.mkdir()
        yield makers[number % len(makers)](rng, place)


def _picture(rng: random.Random, side: int = 8) -> bytes:
    pixels = np.frombuffer(rng.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, rng.choice(FORMATS))
    return file.getvalue()


def _damaged(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.choice((1, 4, 100, 1 << 20))]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
        elif kind == 3:
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
        elif kind == 4:
            data[at : at + 8] = struct.pack(rng.choice("<>") + "q", rng.choice((-1, 1 << 40, 1 << 62, 65536)))
        else:
            other = rng.randrange(len(data)) if data else 0
            data[at : at + 16] = data[other : other + 16]
    return bytes(data)


def _folder(rng: random.Random, place: Path) -> Path:
    for i in range(rng.randrange(1, 6)):
        path = place / rng.choice(("train", "val", "00000", "00001", "cat", ".")) / f"img{i:08}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_damaged(rng, _picture(rng)) if rng.random() < 0.7 else _picture(rng))
    return place


def _zip(rng: random.Random, place: Path) -> Path:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        with zipfile.ZipFile(file, "w", rng.choice((0, 8, 12, 14))) as archive:
            for i in range(rng.randrange(1, 6)):
                archive.writestr(
                    rng.choice((f"{i % 2:05}/img{i:08}.png", "a.png", "b/a.png", "../c.png")), _picture(rng)
                )
            if rng.random() < 0.2:
                archive.writestr("bomb.png", bytes(80 << 20))
    (place / "x.zip").write_bytes(_damaged(rng, file.getvalue()))
    return place / "x.zip"


def _npz(rng: random.Random, place: Path) -> Path:
    images = np.frombuffer(rng.randbytes(4 * 3 * 64), np.uint8).reshape(
        rng.choice(((4, 3, 8, 8), (4, 8, 8, 3), (12, 8, 8)))
    )
    arrays = {"images": images, "labels": np.arange(len(images)) % 3}
    if rng.random() < 0.5:
        arrays |= {
            "class_names": np.array(["a", "b", "c"]),
            "files": np.array([f"{i}.png" for i in range(len(images))]),
        }
    rng.choice((np.savez, np.savez_compressed))(place / "x.npz", **arrays)
    content = (place / "x.npz").read_bytes()
    (place / "x.npz").write_bytes(_damaged(rng, content))
    return place / "x.npz"


def _npy(rng: random.Random, place: Path) -> Path:
    images = np.frombuffer(rng.randbytes(4 * 4 * 64 * 2), rng.choice((np.uint8, np.uint16)))
    shape = rng.choice(((-1, 4, 8, 8), (-1, 8, 8, 4), (-1, 3, 4, 8), (-1, 8, 8), (-1, 8, 8, 8), (-1,)))
    images = images[: images.size // 96 * 96].reshape(shape) if shape[1:2] == (3,) else images.reshape(shape)
    file = io.BytesIO()
    np.save(file, np.asfortranarray(images) if rng.random() < 0.3 else images)
    (place / "x.npy").write_bytes(file.getvalue() if rng.random() < 0.2 else _damaged(rng, file.getvalue()))
    return place / "x.npy"


def _npz_header(rng: random.Random, place: Path) -> Path:
    """Arrays whose headers say anything; their members have the right checksums."""

    def member() -> bytes:
        sides = [
            rng.choice((0, 1, 2, 3, 8, -1, 1 << 20, 1 << 40, 1 << 63, "None", "1.5", "'a'"))
            for _ in range(rng.randrange(6))
        ]
        shape = f"({', '.join(map(str, sides))}{',' if len(sides) == 1 else ''})"
        kind = rng.choice(("|u1", "<i8", "<u8", "|O", "<U3", "<U0", "|S5", "|V0", "<f8", "<M8[s]", ">i2", "nothing"))
        header = f"{{'descr': '{kind}', 'fortran_order': {rng.choice(('False', 'True', '1'))}, 'shape': {shape}}}"
        header = rng.choice(
            (header, header, header, "(" * 3000, "[" * 9000 + "]" * 9000, "{'a': " * 500, "'''", "\t\n \\")
        )
        text = header.encode() + b"\n"
        size = rng.choice((len(text), len(text), len(text), 65535))
        return (
            b"\x93NUMPY\x01\x00" + struct.pack("<H", min(size, 65535)) + text + rng.randbytes(rng.choice((0, 48, 192)))
        )

    with zipfile.ZipFile(place / "x.npz", "w", rng.choice((0, 8))) as archive:
        for name in ("images", "labels", "class_names", "files", "axes"):
            if rng.random() < 0.6:
                archive.writestr(f"{name}.npy", member())
    return place / "x.npz"


def _value(rng: random.Random, depth: int = 0):
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 6:
        return rng.choice((None, True, 0, 1, -1, 1 << 40, 1 << 200, 1.5, float("nan"), rng.choice(WORDS)))
    if kind < 8:
        return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(WORDS): _value(rng, depth + 1) for _ in range(rng.randrange(4))}


def _manifest(rng: random.Random, place: Path) -> Path:
    names = [f"{i // 2:05}/img{i * 500:08}.png" for i in range(4)]
    for name in names:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(_picture(rng))
    labels = [[name, rng.choice((0, 1, [0, 1], [1, 0], [0.5, 0.5], _value(rng)))] for name in names]
    content = json.dumps({"labels": rng.choice((labels, labels, _value(rng)))}).encode()
    hostile = (
        b"[" * 200_000,
        b'{"labels":' * 100_000,
        b'{"labels": [' + b"[]," * 400_000 + b"0]}",
        json.dumps(_value(rng)).encode(),
    )
    content = rng.choice((content, content, content, _damaged(rng, content), rng.choice(hostile)))
    (place / rng.choice((".", ".", "00000")) / "dataset.json").write_bytes(content)
    return place


def _idx(rng: random.Random, place: Path) -> Path:
    for name, sides in (("images-idx3", (6, 8, 8)), ("labels-idx1", (6,))):
        content = struct.pack(f">HBB{len(sides)}I", 0, 8, len(sides), *sides) + rng.randbytes(int(np.prod(sides)))
        content = _damaged(rng, content) if rng.random() < 0.7 else content
        if packed := rng.random() < 0.5:
            content = gzip.compress(content)
            content = _damaged(rng, content) if rng.random() < 0.3 else content
        (place / f"train-{name}-ubyte{'.gz' if packed else ''}").write_bytes(content)
    return place


def _text(rng: random.Random, place: Path) -> Path:
    lines = [
        " ".join(rng.choices(("the", "cat", "sat", "猫が", "\u2028", "\x0c", "\ufeff", ""), k=rng.randrange(8)))
        for _ in range(20)
    ]
    content = rng.choice((b"\n", b"\r\n", b"\r")).join(line.encode() for line in lines)
    content = rng.choice(
        (content, _damaged(rng, content), b"same\n" * 50, b"", b"a " * (1 << 20), content.decode().encode("utf-16"))
    )
    (place / "x.txt").write_bytes(content)
    return place / "x.txt"


def _signals(rng: random.Random, place: Path) -> Path:
    kind = rng.choice(("npy", "npz", "wav", "folder", "folder", "zip"))
    path = place / ("signals" if kind == "folder" else f"signals.{kind}")
    samples = np.frombuffer(rng.randbytes(4 * 2 * 100), np.int16).reshape(rng.choice(((4, 100), (2, 2, 100), (400,))))
    if kind[:2] == "np":
        file = io.BytesIO()
        arrays = {"signals": samples, "rate": 8000, "labels": np.arange(len(samples)) % 3}
        np.save(file, samples) if kind == "npy" else np.savez(file, **arrays)
        path.write_bytes(_damaged(rng, file.getvalue()))
        return path
    recordings = {}
    for i in range(rng.randrange(1, 5)):
        write_wav(place / "one", samples.reshape(rng.choice((1, 2, 4)), -1) / 32768, rng.choice((8000, 8000, 11025, 1)))
        content = (place / "one").read_bytes()
        recordings[f"{i % 2}/{i}.wav"] = _damaged(rng, content) if rng.random() < 0.7 else content
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in recordings.items():
                archive.writestr(name, content)
    elif kind == "wav":
        path.write_bytes(recordings["0/0.wav"])
    else:
        for name, content in recordings.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def _special(rng: random.Random, place: Path) -> Path:
    (place / "good.png").write_bytes(_picture(rng))
    for name in ("a.png", "dataset.json", "b"):
        path = place / name
        kind = rng.randrange(7)
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/tty", "nowhere", name, ".", "..")))
        elif kind == 2:
            path.mkdir()
        elif kind == 3:
            with path.open("wb") as file:
                file.truncate(rng.choice((0, 1 << 20, 1 << 40)))
    if rng.random() < 0.3:
        path = place / rng.choice(("x.zip", "x.npz", "x.npy", "x.txt", "x.png"))
        os.mkfifo(path)
        return path
    return place


class TooLong(BaseException):
    pass


def _alarm(*_) -> None:
    raise TooLong


def run(seconds: float, seed: int) -> int:
    signal.signal(signal.SIGALRM, _alarm)
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-data-"))
    began, done, refused, faults = time.perf_counter(), 0, 0, 0
    peak = None
    for path in cases(random.Random(seed), folder):
        if time.perf_counter() - began > seconds:
            break
        number = path.relative_to(folder).parts[0]
        signal.alarm(SECONDS)
        fault = ""
        try:
            load(path)
        except (ValueError, OSError) as error:
            refused += 1
            if not str(error) or "\n" in str(error) or len(str(error)) > 2000:
                fault = f"{type(error).__name__} with a message of {len(str(error))} characters: {str(error)[:200]!r}"
        except (Exception, TooLong):
            fault = traceback.format_exc(limit=-4)
        signal.alarm(0)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        peak = peak or used  # after the first case: everything is imported
        if used - peak > MEMORY:
            fault, peak = fault or f"memory grew by {(used - peak) >> 20} MiB", used
        done += 1
        if fault:
            faults += 1
            print(f"seed {seed}, case {number} ({path}):\n{fault}", flush=True)
        else:
            shutil.rmtree(folder / number)
    print(f"{done} data sets in {time.perf_counter() - began:.0f} s: {refused} refused, {faults} faults")
    if not faults:
        shutil.rmtree(folder)
    return 1 if faults or not done else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(run(**vars(parser.parse_args())))
