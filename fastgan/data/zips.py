"""Zip archives that others packed, opened and read so that errors name the file and memory follows the file's size."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastgan.data.dataset import shown

_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # LZMA's header may ask for 4 GiB of memory
_BLOCK = 1 << 20


def most_unpacked(packed: int) -> int:
    """Bytes that ``packed`` ones may become: 64 MiB, or 100 times as many. Images and arrays that deflate better are
    bombs, or nearly empty; those can be stored as they are."""
    return max(1 << 26, 100 * packed)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Raises OSError where the file cannot be opened, ValueError where it is no zip."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 22 - 65535))  # the end record, before a comment of up to 65,535 bytes
        _, _, end = file.read().rpartition(b"PK\5\6")
    try:
        archive = zipfile.ZipFile(path)
        # zipfile passes over what follows an entry of a wrong length.
        count, members = int.from_bytes(end[6:8], "little"), archive.infolist()
        if count not in (len(members), 0xFFFF):
            raise zipfile.BadZipFile(f"its directory lists {len(members)} of {count} files")
        _check_spans(members)
        return archive
    except Exception as error:  # zipfile raises half a dozen types for broken directories
        reason = shown([str(error) or type(error).__name__])
        raise ValueError(
            f"{path}: not a readable {path.suffix[1:]} file ({reason}): truncated or another format"
        ) from error


def _check_spans(members: list[zipfile.ZipInfo]) -> None:
    """One packed megabyte behind 60,000 names would be unpacked for hours."""
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise zipfile.BadZipFile(f"{info.filename} overlaps another file")
        end = info.header_offset + 30 + info.compress_size
    total = sum(size for info in members if (size := info.file_size) <= most_unpacked(info.compress_size))
    if total > (most := most_unpacked(end)):
        raise zipfile.BadZipFile(f"{total} bytes packed in {end}, where {most} are expected at most")


def blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member, whose CRC-32 is verified at its end. ValueError for anything that is wrong with it."""
    packed = min(info.compress_size, Path(archive.filename).stat().st_size)
    if info.compress_type not in _KNOWN:
        raise ValueError(f"packed by method {info.compress_type}, expected store, deflate or bzip2")
    if info.file_size > most_unpacked(packed):
        raise ValueError(
            f"{info.file_size} bytes packed in {packed} look like a zip bomb; store it uncompressed if not"
        )
    left = info.file_size
    try:
        with archive.open(info) as member:
            while block := member.read(_BLOCK):
                left -= len(block)
                yield block
    except Exception as error:  # BadZipFile, zlib.error, EOFError, RuntimeError (encrypted), OSError (bzip2), ...
        raise ValueError(shown([str(error) or type(error).__name__])) from error
    if left:
        raise ValueError(f"{info.file_size - left} bytes, the archive's directory says {info.file_size}")
