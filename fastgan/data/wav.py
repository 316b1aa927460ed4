"""Recordings in files: WAV read and written here, other formats through the package soundfile."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np

WAV = (".wav", ".wave")
OTHERS = (".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff")  # what libsndfile reads
FASTEST = 100_000_000  # samples a second of a file that is believed
_MOST = 1 << 30  # bytes of one decoded recording: silence compresses without bound
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF  # a program that writes into a pipe cannot go back to fill it in


def decode(data: bytes, suffix: str) -> tuple[np.ndarray, int]:
    """A file's content -> (samples float32 [C, T], samples a second).

    Full scale is 1; floating samples beyond it are clipped, as a player clips them. Raises ValueError for what is no recording,
    or damaged, ImportError where a format needs the package soundfile.
    """
    samples, rate = _decode_wav(data) if suffix in WAV else _decode_other(data)
    if not 0 < rate <= FASTEST:
        raise ValueError(f"{rate} samples a second")
    if not samples.size:
        raise ValueError("no samples in it")
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are no numbers")
    return np.clip(samples, -1, 1), rate


def _decode_wav(data: bytes) -> tuple[np.ndarray, int]:
    """RIFF WAVE (IBM and Microsoft, 1991, with the extensible format of 1999): integers of 8, 16, 24 and 32 bits, floats of 32
    and 64. The standard library's `wave` reads no floats."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    form, at = b"", 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"data":
            if size == _UNKNOWN_SIZE:
                size = len(data) - at
            if not form:
                raise ValueError("its samples come before their format")
            return _samples(form, memoryview(data)[at : at + size], size)
        if name == b"fmt ":
            form = data[at : at + min(size, 40)]
        at += size + size % 2
    raise ValueError("no samples in it: truncated or another format")


def _samples(form: bytes, content: memoryview, size: int) -> tuple[np.ndarray, int]:
    if len(form) < 16:
        raise ValueError("its format is truncated")
    kind, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", form)
    if kind == _EXTENSIBLE and len(form) == 40:
        kind = struct.unpack_from("<H", form, 24)[0]
    width = bits // 8
    if (kind, bits) not in {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}:
        raise ValueError(
            f"samples of format {kind} with {bits} bits; integers of 8 to 32 and floats of 32 or 64 are read"
        )
    if not channels or frame != channels * width:
        raise ValueError(f"{channels} channels of {bits} bits in {frame} bytes")
    if len(content) < size:
        raise ValueError(f"truncated: {len(content)} of {size} bytes of samples")
    content = content[: len(content) // frame * frame]
    if kind == _FLOAT:
        samples = np.frombuffer(content, f"<f{width}")
    elif bits == 8:
        samples = (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / 128
    elif bits == 24:  # as the upper three bytes of 32 bits
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0] / np.float32(1 << 31)
    else:
        samples = np.frombuffer(content, f"<i{width}") / np.float32(1 << (bits - 1))
    return np.ascontiguousarray(samples.reshape(-1, channels).T, np.float32), rate


def _decode_other(data: bytes) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except ImportError as error:
        raise ImportError(
            f"reading {', '.join(OTHERS)} needs soundfile: pip install 'fastgan[audio]' (or convert the files to WAV)"
        ) from error
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.frames * file.channels * 4 > _MOST:
            raise ValueError(f"{file.frames} samples in {file.channels} channels, more than {_MOST} bytes")
        return np.ascontiguousarray(file.read(dtype="float32", always_2d=True).T), file.samplerate


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 [C, T] at `rate` -> float32 [C, ceil(T * wanted / rate)], by a polyphase low-pass filter (SciPy's).

    Raises ValueError for rates whose ratio needs too long a filter or makes too long a result, ImportError without SciPy.
    """
    if rate == wanted:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise ImportError(
            f"a recording of {rate} samples a second at {wanted} needs SciPy: pip install 'fastgan[audio]'"
        ) from error
    divisor = int(np.gcd(rate, wanted))
    up, down = wanted // divisor, rate // divisor
    if max(up, down) > 1 << 18 or samples.size * up // down > _MOST // 4:
        raise ValueError(f"{samples.shape[-1]} samples at {rate} a second cannot be had at {wanted}")
    return np.clip(resample_poly(samples, up, down, axis=-1), -1, 1).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write float [C, T] in [-1, 1] as 16-bit PCM, what is beyond it clipped. Raises ValueError for what a WAV file, whose
    numbers have 32 bits, cannot hold."""
    channels, length = samples.shape
    if channels > 32767 or rate * channels * 2 >= 1 << 32 or length * channels * 2 >= (1 << 32) - 64:
        raise ValueError(
            f"{path}: {length} samples at {rate} a second in {channels} channels are too many for a WAV file"
        )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(scaled(samples).T.tobytes())


def scaled(samples: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as integers of 16 bits, what is beyond it clipped."""
    return np.clip(np.rint(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype("<i2")
