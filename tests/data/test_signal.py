"""Signals from recordings and arrays: what is read, how it is cut, and files that are none."""

import io
import os
import struct
import sys
import types
import wave
import zipfile

import numpy as np
import pytest
import torch

from fastgan.data import Loader, SignalDataset, load_signals
from fastgan.data.files import TooLarge
from fastgan.data.wav import decode, resample, write_wav

TONE = (0.8 * np.sin(np.arange(400) * 0.05)).astype(np.float32)
STEREO = np.stack([TONE, -0.5 * TONE])


def wav(samples, rate=8000, kind=1, bits=16, extensible=False, size=None) -> bytes:
    """A WAV file of samples [C, T], written from the format's description."""
    flat = samples.T.reshape(-1).astype(np.float64)
    if kind == 3:
        content = flat.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        content = np.clip(np.rint(flat * 128) + 128, 0, 255).astype(np.uint8).tobytes()
    else:
        whole = np.clip(np.rint(flat * 2 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype("<i4")
        content = whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    frame = len(samples) * bits // 8
    form = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else kind, len(samples), rate, rate * frame & 0xFFFFFFFF, frame, bits
    )
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, kind) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST\3\0\0\0abc\0"
    chunks += b"data" + struct.pack("<I", len(content) if size is None else size) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_form_of_wav(kind, bits, channels, extensible):
    sound = np.stack([TONE * (i + 1) / channels for i in range(channels)])
    samples, rate = decode(wav(sound, 44100, kind, bits, extensible), ".wav")
    assert samples.dtype == np.float32 and samples.shape == sound.shape and rate == 44100
    # Half a step of the integers; of 24 bits and more the step of float32.
    assert np.abs(samples - sound).max() <= max(0.5 / 2 ** (min(bits, 25) - 1), 6e-8)


def test_a_file_of_the_standard_librarys(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 22050, 0, "NONE", ""))
        file.writeframes(np.rint(STEREO.T * 32768).astype("<i2").tobytes())
    samples, rate = decode((tmp_path / "a.wav").read_bytes(), ".wav")
    assert rate == 22050 and np.abs(samples - STEREO).max() <= 0.5 / 32768


def test_what_is_written_is_read_again(tmp_path):
    loud = np.array([[0.0, 1.0, -1.0, 3.0, -3.0, 0.25]])
    write_wav(tmp_path / "a.wav", loud, 8000)
    samples, rate = decode((tmp_path / "a.wav").read_bytes(), ".wav")
    assert rate == 8000 and np.abs(samples - np.clip(loud, -1, 1)).max() <= 1 / 32768
    write_wav(tmp_path / "b.wav", samples, 8000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_what_a_wav_file_cannot_hold(tmp_path):
    for samples, rate in (
        (np.zeros((1, 4)), 2**40),
        (np.zeros((40_000, 1)), 8000),
        (np.broadcast_to(np.float32(0), (2, 2**30)), 8000),
    ):
        with pytest.raises(ValueError, match=r"a\.wav: .* too many for a WAV file"):
            write_wav(tmp_path / "a.wav", samples, rate)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_a_pipe_left_open():
    assert decode(wav(STEREO, size=0xFFFFFFFF), ".wav")[0].shape == STEREO.shape


def test_floats_beyond_full_scale_are_clipped():
    assert decode(wav(2 * STEREO, kind=3, bits=32), ".wav")[0].max() == 1


BROKEN = {
    "empty": b"",
    "not a WAV": b"RIFF\0\0\0\0AVI " + bytes(100),
    "text": b"hello " * 100,
    "header alone": wav(STEREO)[:44],
    "half": wav(STEREO)[:900],
    "no samples": wav(STEREO[:, :0]),
    "no format": b"RIFF\0\0\0\0WAVEdata" + struct.pack("<I", 4) + bytes(4),
    "short format": b"RIFF\0\0\0\0WAVEfmt \2\0\0\0\1\0data" + struct.pack("<I", 4) + bytes(4),
    "no channels": wav(STEREO).replace(struct.pack("<HHI", 1, 2, 8000), struct.pack("<HHI", 1, 0, 8000)),
    "no rate": wav(STEREO, rate=0),
    "rate of 4 GHz": wav(STEREO, rate=2**32 - 1),
    "12 bits": wav(STEREO, bits=16).replace(struct.pack("<HH", 4, 16), struct.pack("<HH", 4, 12)),
    "mu-law": wav(STEREO).replace(struct.pack("<HHI", 1, 2, 8000), struct.pack("<HHI", 7, 2, 8000)),
    "NaN": wav(np.full_like(STEREO, np.nan), kind=3, bits=32),
    "infinite": wav(np.full_like(STEREO, np.inf), kind=3, bits=64),
    "chunks without end": b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 50_000,
    "a chunk beyond the end": b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff" + bytes(100),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_recording_is_skipped_and_named(content, tmp_path):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"none of 1 recordings is readable; first: .*bad\.wav"):
        load_signals(tmp_path)
    (tmp_path / "good.wav").write_bytes(wav(STEREO))
    with pytest.warns(UserWarning, match=r"skipped 1 of 2 files: .*bad\.wav \("):
        data = load_signals(tmp_path)
    assert data.files == ["good.wav"] and [file for file, _ in data.skipped] == [f"{tmp_path}/bad.wav"]
    with pytest.raises(ValueError, match=r"bad\.wav: "):
        load_signals(tmp_path, strict=True)
    with pytest.raises(ValueError, match=r"bad\.wav"):
        load_signals(tmp_path / "bad.wav")


def test_any_flipped_byte_of_a_header_is_no_crash():
    good, draw = wav(STEREO, extensible=True), np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(good)
        for at in draw.integers(0, 90, 3):
            damaged[at] = draw.integers(0, 256)
        try:
            samples, rate = decode(bytes(damaged[: draw.integers(10, len(damaged))]), ".wav")
        except ValueError:
            continue
        assert samples.ndim == 2 and rate > 0 and np.abs(samples).max() <= 1


def test_no_ordinary_file_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "good.wav").write_bytes(wav(STEREO))
    with pytest.warns(UserWarning, match="a FIFO, expected a file"):
        assert len(load_signals(tmp_path)) == 1
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ValueError, match="expected a folder"):
        load_signals(tmp_path / "pipe.npy", rate=1)


@pytest.fixture
def folder(tmp_path):
    for name, length, rate in (("a/1.wav", 400, 8000), ("a/2.WAV", 250, 8000), ("b/3.wav", 60, 8000)):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(STEREO[:, :length], rate))
    return tmp_path / "set"


def test_items_of_one_length(folder):
    data = load_signals(folder, length=100)
    assert data.signals.shape == (4 + 2 + 1, 2, 100) and data.signals.dtype == torch.float32
    assert data.files == ["a/1.wav"] * 4 + ["a/2.WAV"] * 2 + ["b/3.wav"]
    assert data.class_names == ["a", "b"] and data.labels.tolist() == [0] * 6 + [1]
    assert np.abs(data.signals[1].numpy() - STEREO[:, 100:200]).max() < 1e-4
    assert not data.signals[6, :, 60:].any() and data.signals[6, :, :60].any()
    assert data.about == "7 signals of 100 samples (0.0125 s at 8000 Hz), 2 channels, 2 classes (sub-folders): a, b"
    assert "7 signals" in repr(data) and (data.rate, data.channels, data.length) == (8000, 2, 100)
    assert torch.equal(load_signals(folder, length=100).signals, data.signals)
    assert len(load_signals(folder, length=100, split="b")) == 1
    assert load_signals(folder / "a/1.wav").signals.shape == (1, 2, 400)


def test_a_zip(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    assert torch.equal(load_signals(tmp_path / "set.zip", length=50).signals, load_signals(folder, length=50).signals)


def test_what_differs_is_named(folder):
    with pytest.raises(ValueError, match=r"differ in length \(a/1\.wav: 400, a/2\.WAV: 250\): give length="):
        load_signals(folder)
    (folder / "a/1.wav").write_bytes(wav(STEREO, 16000))
    with pytest.raises(ValueError, match=r"differ in rate \(a/1\.wav: 16000, a/2\.WAV: 8000\): give rate="):
        load_signals(folder, length=50)
    data = load_signals(folder, length=50, rate=8000)
    assert data.rate == 8000 and len(data) == 4 + 5 + 1
    (folder / "b/3.wav").write_bytes(wav(np.stack([TONE] * 3)))
    with pytest.raises(ValueError, match=r"differ in channels .*: give channels="):
        load_signals(folder, length=50, rate=8000)
    with pytest.raises(ValueError, match="3 channels, of which channels=2 cannot be made"):
        load_signals(folder, length=50, rate=8000, channels=2)
    assert load_signals(folder, length=50, rate=8000, channels=1).channels == 1


def test_channels(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(STEREO, kind=3, bits=32))
    assert np.allclose(load_signals(tmp_path, channels=1).signals[0, 0], STEREO.mean(0), atol=1e-7)
    (tmp_path / "a.wav").write_bytes(wav(STEREO[:1], kind=3, bits=32))
    twice = load_signals(tmp_path, channels=2).signals
    assert twice.shape == (1, 2, 400) and torch.equal(twice[:, 0], twice[:, 1])


def test_resampling_keeps_a_tone():
    rate, wanted = 8000, 11025
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)[None].astype(np.float32) * 0.5
    made = resample(tone, rate, wanted)
    expected = np.sin(2 * np.pi * 440 * np.arange(wanted) / wanted) * 0.5
    assert made.shape == (1, wanted) and made.dtype == np.float32
    assert np.abs(made[0, 200:-200] - expected[200:-200]).max() < 5e-3  # the ends hear silence before and after
    assert resample(tone, rate, rate) is tone
    for odd in (99_999_989, 2**40):
        with pytest.raises(ValueError, match="cannot be had at"):
            resample(tone, rate, odd)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i4", "u1"])
@pytest.mark.parametrize("shape", [(3, 80), (3, 2, 40)])
def test_arrays(kind, shape, tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, shape)
    stored = {"f": x, "i": x * (2.0 ** (8 * int(kind[1]) - 1) - 1), "u": x * 127 + 128}[kind[0]].astype(kind)
    np.save(tmp_path / "a.npy", stored)
    data = load_signals(tmp_path / "a.npy", rate=250)
    assert data.signals.shape == (3, shape[1] if len(shape) == 3 else 1, shape[-1]) and data.rate == 250
    assert np.abs(data.signals.numpy().reshape(shape) - x).max() < {"u1": 0.02, "f2": 5e-4}.get(kind, 7e-5)
    np.savez(tmp_path / "a.npz", signals=stored, rate=100, labels=[1, 0, 1], class_names=["u", "v"])
    named = load_signals(tmp_path / "a.npz", length=20)
    per = shape[-1] // 20
    assert named.rate == 100 and named.class_names == ["u", "v"] and len(named) == 3 * per
    assert named.labels.tolist() == [1] * per + [0] * per + [1] * per
    np.savez_compressed(tmp_path / "b.npz", stored)
    assert torch.equal(load_signals(tmp_path / "b.npz", rate=250).signals, data.signals)


class Danger:
    def __reduce__(self):
        return os.system, ("touch /tmp/harmed",)


def of_shape(shape: str) -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + bytes(64)


WRONG_ARRAYS = {
    "objects": np.array([[Danger()]], dtype=object),
    "one dimension": np.zeros(8, np.float32),
    "four dimensions": np.zeros((1, 1, 1, 8), np.float32),
    "none": np.zeros((0, 8), np.float32),
    "of no length": np.zeros((8, 0), np.float32),
    "complex": np.zeros((2, 8), np.complex64),
    "int64": np.zeros((2, 8), np.int64),
    "text": np.array([["a", "b"]]),
    "beyond full scale": np.full((2, 8), 3.0),
    "NaN": np.full((2, 8), np.nan),
    "infinite": np.full((2, 8), np.inf),
}


@pytest.mark.parametrize("array", WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_arrays_that_are_no_signals(array, tmp_path):
    for path, save in ((tmp_path / "a.npy", np.save), (tmp_path / "a.npz", np.savez)):
        save(path, array)
        with pytest.raises(ValueError, match=r"a\.np[yz]"):
            load_signals(path, rate=100)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", of_shape("(1000000, 1000000)"), of_shape("(2, 999)"), of_shape("(-1, 4)"), of_shape("[" * 900)],
)
def test_an_npy_that_lies(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy"):
        load_signals(tmp_path / "a.npy", rate=100)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("signals.npy", content)
    with pytest.raises(ValueError, match=r"a\.npz"):
        load_signals(tmp_path / "a.npz", rate=100)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rate": -1}, "rate is int64"),
        ({"rate": [1, 2]}, "rate is int64"),
        ({"rate": "fast"}, "rate is <U4"),
        ({"rate": 9, "labels": [0]}, r"\[1\] labels for 2 signals"),
        ({"rate": 9, "labels": [0.0, 1.0]}, "labels has dtype float64"),
        ({"rate": 9, "labels": [0, 2], "class_names": ["a", "b"]}, r"labels 0\.\.2"),
        ({"rate": 9, "labels": [0, 1], "class_names": 3}, "class_names is int64"),
        (
            {"rate": 9, "labels": [0, 1], "class_names": np.full((2, 1), 0x110000, "u4").view("<U1")[:, 0]},
            "beyond Unicode",
        ),
        ({}, "says no sampling rate: give rate="),
    ],
)
def test_arrays_beside_the_signals(more, message, tmp_path):
    np.savez(tmp_path / "a.npz", signals=np.zeros((2, 8)), other=1, **more)
    with pytest.raises(ValueError, match=message):
        load_signals(tmp_path / "a.npz")


def test_more_than_the_memory_holds(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(STEREO))
    for options in ({"length": 2**50}, {"channels": 2**40}):
        with pytest.raises((TooLarge, ValueError), match=r"more than half of the memory|cannot be made"):
            load_signals(tmp_path, **options)
    np.save(tmp_path / "a.npy", np.zeros((2, 8)))
    with pytest.raises(TooLarge):
        load_signals(tmp_path / "a.npy", rate=1, length=2**50)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gone", {}, "no such file or folder"),
        ("a.txt", {}, "expected a folder"),
        ("empty", {}, "no recordings found"),
        ("a.npy", {"rate": 1, "split": "test"}, "split='test' is not offered for a file"),
        ("a.npy", {"rate": 0}, "rate is 0, expected"),
        ("a.npy", {"rate": 1, "length": 1.5}, "length is 1.5, expected"),
        ("a.npy", {"rate": 1, "channels": True}, "channels is True, expected"),
        (("a", "b"), {}, "expected one set of signals"),
    ],
)
def test_wrong_arguments(name, options, message, tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "a.npy", np.zeros((2, 8)))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_signals(tmp_path / name if isinstance(name, str) else name, **options)


def test_other_formats_need_soundfile(tmp_path, monkeypatch):
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r"needs soundfile: pip install 'fastgan\[audio\]'"):
        load_signals(tmp_path)


def test_other_formats_through_soundfile(tmp_path, monkeypatch):
    """A stand-in with soundfile's interface: the package is an extra."""

    class SoundFile(io.BytesIO):
        channels, samplerate = 2, 8000
        frames = STEREO.shape[1]

        def read(self, dtype, always_2d):
            assert dtype == "float32" and always_2d
            return STEREO.T

    monkeypatch.setitem(sys.modules, "soundfile", types.SimpleNamespace(SoundFile=lambda file: SoundFile(file.read())))
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    assert np.array_equal(load_signals(tmp_path).signals[0].numpy(), STEREO)
    monkeypatch.setattr(SoundFile, "frames", 2**40)  # a bomb
    with pytest.raises(ValueError, match=r"a\.flac .*more than 1073741824 bytes"):
        load_signals(tmp_path)


def test_the_stream_of_batches_resumes():
    data = SignalDataset(torch.rand(10, 1, 4), np.int64(8000), torch.arange(10), name="x")
    whole = Loader(data, 3, seed=5)
    first = [next(whole) for _ in range(8)]
    later = Loader(data, 3, seed=5, start=9)
    for expected in first[3:]:
        assert all(torch.equal(a, b) for a, b in zip(next(later), expected, strict=True))
    assert torch.equal(first[0][0], data.signals[first[0][1]])
