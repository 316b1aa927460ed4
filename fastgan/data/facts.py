"""What the named data sets are: what `fastgan data list` shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastgan.data.emoji import ASSETS
from fastgan.data.idx import FASHION_FOLDERS, is_idx_folder


class Facts(NamedTuple):
    """items: how many, to train on unless a split is asked for. shape: of an image, or how long a text is. classes: 0 for none.
    licence: the short name; for the embedded ones fastgan/data/assets/NOTICE.txt has the whole. absent: "" where the set can be
    loaded here, else what to do."""

    name: str
    items: int
    shape: str
    classes: int
    licence: str
    about: str
    absent: Callable[[], str]


def _embedded(file: str) -> Callable[[], str]:
    return lambda: "" if (ASSETS / file).is_file() else f"{ASSETS / file} is missing, install fastgan anew"


def _fashion() -> str:
    return "" if any(map(is_idx_folder, FASHION_FOLDERS)) else "apt install dataset-fashion-mnist"


def _emoji(name: str, items: int, licence: str, about: str) -> Facts:
    return Facts(name, items, "32x32 RGB", 9, licence, about, _embedded("emoji32.npz"))


def _text(name: str, items: int, shape: str, licence: str, about: str, file: str) -> Facts:
    return Facts(name, items, shape, 0, licence, about, _embedded(file))


NOTO, TWEMOJI = "Apache-2.0", "CC-BY 4.0"
FACTS = (
    _emoji("emoji", 3781, NOTO, "Noto emoji; also emoji:google"),
    _emoji("emoji:google:base", 1906, NOTO, "without skin tones"),
    _emoji("emoji:twitter", 3781, TWEMOJI, "the same, as Twemoji"),
    _emoji("emoji:twitter:base", 1906, TWEMOJI, "without skin tones"),
    Facts("fashion-mnist", 60_000, "28x28 grey", 10, "MIT", "clothes", _fashion),
    _text("tang-quatrains", 3395, "20 chars", "public domain", "Chinese, 7th-10th century", "tang_quatrains.txt"),
    _text(
        "song-quatrains",
        11_726,
        "20 chars",
        "public domain",
        "Chinese, 10th-13th century",
        "song_quatrains.txt",
    ),
    _text("kjv", 18_000, "5-20 words", "public domain", "clauses of the Bible", "kjv_clauses.txt"),
    Facts(
        "speech",
        68,
        "1.5-5.4 s",
        0,
        "CC BY-SA 3.0",
        "one speaker, 16 kHz; and 7 for tests",
        _embedded("speech16k.flac"),
    ),
    Facts("oracle", 10_000, "20 tokens", 0, "made here", "a known LSTM's, in minutes", lambda: ""),
    Facts("oracle-40", 10_000, "40 tokens", 0, "made here", "the same", lambda: ""),
)
