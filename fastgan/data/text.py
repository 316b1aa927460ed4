"""Text corpora as padded token ids: embedded poems and clauses, text files, and the synthetic oracle's sentences."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastgan.data.oracle import Oracle
from fastgan.data.registered import DATA, load_registered, refuse
from fastgan.names import did_you_mean

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
_EMBEDDED = {  # name: file, level
    "tang-quatrains": ("tang_quatrains.txt", "char"),
    "song-quatrains": ("song_quatrains.txt", "char"),
    "kjv": ("kjv_clauses.txt", "word"),
}
_ORACLE_LENGTHS = {"oracle": 20, "oracle-40": 40}
TEXT_NAMES = (*_EMBEDDED, *_ORACLE_LENGTHS)
DATA.own({name: "fastgan.data.text:load_text" for name in TEXT_NAMES})
# Thai, Lao, Tibetan, Burmese, Khmer, kana, Han: scripts that put no space between words
_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
_PADDED = 1 << 24, 50  # cells of the id matrix that are never too many, and how many times the tokens may be


class Vocabulary:
    """Tokens and their ids; 0..3 are ``SPECIALS``: padding, begin, end, unknown.

    ``level`` is "char", "word" (split at white space) or "tokenizer" (a ``tokenizers.Tokenizer``, whose ids follow the
    specials unchanged in order).
    """

    def __init__(self, tokens: Sequence[str], level: str, tokenizer=None):
        if level not in ("char", "word", "tokenizer") or (level == "tokenizer") != (tokenizer is not None):
            raise ValueError(f"level: {level!r} is not one of 'char', 'word', or 'tokenizer' together with a tokenizer")
        self.tokens = [*SPECIALS, *tokens]
        self.level = level
        self._tokenizer = tokenizer
        self._index = {token: i for i, token in enumerate(self.tokens)}
        if len(self._index) != len(self.tokens):
            raise ValueError("tokens: expected distinct tokens, none of them a special one")

    @classmethod
    def build(cls, sentences: Iterable[str], level: str, min_count: int = 1, max_size: int | None = None):
        """The tokens that occur at least ``min_count`` times, the most frequent first, at most ``max_size`` of them."""
        counts = Counter(token for s in sentences for token in _split(s, level))
        ordered = sorted(counts, key=lambda token: (-counts[token], token))
        return cls([t for t in ordered if counts[t] >= min_count and t not in SPECIALS][:max_size], level)

    @classmethod
    def from_tokenizer(cls, tokenizer) -> "Vocabulary":
        """From a ``tokenizers.Tokenizer`` or the path of its JSON file.

        Raises FileNotFoundError for a missing file, ValueError for one that the library cannot read.
        """
        if isinstance(tokenizer, (str, Path)):
            from tokenizers import Tokenizer

            path = Path(tokenizer)
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file, expected the JSON file of a tokenizers.Tokenizer")
            try:
                tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises nothing narrower
                raise ValueError(f"{path} is no file of a tokenizers.Tokenizer: {error}") from error
        tokens = [f"{tokenizer.id_to_token(i)}" for i in range(tokenizer.get_vocab_size())]
        return cls([f"<tokenizer {t}>" if t in SPECIALS else t for t in tokens], "tokenizer", tokenizer)

    def __len__(self) -> int:
        return len(self.tokens)

    def ids(self, sentence: str) -> list[int]:
        if self._tokenizer is not None:
            encoding = self._tokenizer.encode(sentence, add_special_tokens=False)
            return [i + len(SPECIALS) for i in encoding.ids]
        return [self._index.get(token, UNK) for token in _split(sentence, self.level)]

    def encode(self, sentences: Iterable[str], length: int | None = None) -> Tensor:
        """int64 [N, L]: a sentence's ids, EOS where there is room, then padding.

        L is ``length`` or that of the longest sentence; longer sentences are cut.
        """
        return self._encode(sentences, length)[0]

    def _encode(self, sentences: Iterable[str], length: int | None) -> tuple[Tensor, int]:
        """`encode`, and how many sentences were cut. ValueError where the longest is far from all others."""
        rows = [self.ids(s) for s in sentences]
        longest = max(map(len, rows), default=0)
        length = longest if length is None else length
        cells, tokens = len(rows) * length, sum(map(len, rows))
        if cells > max(_PADDED[0], _PADDED[1] * tokens):
            raise ValueError(
                f"{len(rows)} sentences of {tokens / len(rows):.0f} tokens in the mean, the longest of {longest}, would all be "
                f"padded to length={length}: cut them with a smaller one, or mend the lines"
            )
        out = torch.full((len(rows), length), PAD)
        for target, row in zip(out, rows, strict=True):
            row = [*row, EOS][:length]
            target[: len(row)] = torch.tensor(row, dtype=torch.int64)
        return out, sum(len(row) > length for row in rows)

    def decode(self, ids: Tensor) -> list[str]:
        """The sentences of ``ids`` [N, L], each up to its first EOS; padding and BOS are left out."""
        sentences = []
        for row in ids.tolist():
            row = row[: row.index(EOS)] if EOS in row else row
            row = [i for i in row if i not in (PAD, BOS)]
            if self._tokenizer is not None:
                sentences.append(self._tokenizer.decode([i - len(SPECIALS) for i in row if i >= len(SPECIALS)]))
            else:
                sentences.append(("" if self.level == "char" else " ").join(self.tokens[i] for i in row))
        return sentences

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), ensure_ascii=False), encoding="utf-8")

    def to_dict(self) -> dict:
        """JSON-able content; `from_dict` is the inverse."""
        content = {"level": self.level, "tokens": self.tokens[len(SPECIALS) :]}
        if self._tokenizer is not None:
            content["tokenizer"] = self._tokenizer.to_str()
        return content

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, content: dict) -> "Vocabulary":
        """Raises ValueError for content that `to_dict` does not make."""
        tokens, level = (content.get(key) for key in ("tokens", "level")) if isinstance(content, dict) else (None, None)
        if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens) or not isinstance(level, str):
            raise ValueError('vocabulary: expected {"level": ..., "tokens": [strings]}')
        tokenizer = None
        if "tokenizer" in content:
            from tokenizers import Tokenizer

            try:
                tokenizer = Tokenizer.from_str(content["tokenizer"])
            except Exception as error:  # the library raises nothing narrower
                raise ValueError(f"vocabulary: no readable tokenizer: {error}") from error
        return cls(tokens, level, tokenizer)


@dataclass(frozen=True)
class TextData:
    """A corpus: token ids [N, L] for training and [M, L] held out.

    Oracle data has no vocabulary, no special tokens, and starts from token 0; real text starts from BOS.
    """

    name: str
    train: Tensor
    test: Tensor
    vocabulary: Vocabulary | None = None
    oracle: Oracle | None = None
    note: str = ""
    """What became of the lines of the file."""

    def __repr__(self) -> str:
        return f"TextData({self.name!r}: {self.about}, {self.vocabulary_size} tokens, at most {self.length} a sentence)"

    def __len__(self) -> int:
        """Sentences for training."""
        return len(self.train)

    @property
    def about(self) -> str:
        """What a run says of its data."""
        note = f" ({self.note})" if self.note else ""
        return f"{len(self.train)} sentences to train on, {len(self.test)} held out{note}"

    @property
    def streams(self) -> tuple[int, ...]:
        """Lengths of the index streams that one batch draws from; see `fastgan.data.Loader`."""
        return (len(self.train),)

    def gather(self, indices: Sequence[np.ndarray], flips: Sequence[None]) -> tuple[Tensor, ...]:
        """``indices[0]`` int64 [B] -> (training sentences int64 [B, L],); text has no mirror image."""
        return (self.train[torch.from_numpy(indices[0])],)

    @property
    def vocabulary_size(self) -> int:
        return len(self.vocabulary) if self.vocabulary is not None else self.oracle.embedding.num_embeddings

    @property
    def length(self) -> int:
        return self.train.shape[1]

    @property
    def pad(self) -> int | None:
        return None if self.vocabulary is None else PAD

    @property
    def start(self) -> int:
        """The token that stands before every sentence."""
        return 0 if self.vocabulary is None else BOS

    @property
    def end(self) -> int | None:
        return None if self.vocabulary is None else EOS

    def decode(self, ids: Tensor) -> list[str]:
        """Sentences as text; oracle data as numbers."""
        if self.vocabulary is not None:
            return self.vocabulary.decode(ids)
        return [" ".join(map(str, row)) for row in ids.tolist()]


def load_text(
    name_or_path: str | Path,
    *,
    level: str | None = None,
    length: int | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    min_count: int = 1,
    max_vocabulary: int | None = None,
    vocabulary: Vocabulary | None = None,
    count: int = 10_000,
    oracle: str | Path | None = None,
    code: bool = False,
) -> TextData:
    """Load a corpus by name or from a UTF-8 text file with one sentence per line.

    Names: ``tang-quatrains`` (3,772 poems of 20 characters), ``song-quatrains`` (13,029), ``kjv`` (20,000 clauses of 5
    to 20 words), ``oracle`` and ``oracle-40`` (``count`` sentences for training and as many for testing, of length 20
    or 40, from the oracle drawn with ``seed``), and what is registered by that name (`fastgan.data.registered`): a TextData.

    A line ends with \\n, \\r\\n or \\r and with nothing else. Empty and repeated lines are dropped, then the lines are shuffled
    and split with ``seed``; the vocabulary is built from the training part, so held-out text may hold unknown tokens.
    ``about`` of the result counts them all.

    Args:
        level: "char", "word" or the path of a ``tokenizers`` JSON file. None: by name; for files "word", or "char" where
            most lines have no space within or most letters are of a script without (Chinese, Japanese, Thai, ...).
        length: tokens per sentence; longer ones are cut. None: the longest sentence.
        min_count, max_vocabulary: see `Vocabulary.build`.
        vocabulary: use this one instead of building it, for instance a run's.
        oracle: weights of another oracle (`Oracle.load`) for ``oracle`` and ``oracle-40``.
        code: as in `fastgan.data.load`.

    Raises FileNotFoundError for an unknown name or missing file, ValueError for text that is not UTF-8, for fewer than two
    different sentences, or where words are asked for and each sentence is one.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise ValueError(f"{name_or_path!r}: expected one text, a name or a file")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}, expected a number between 0 and 1")
    name = str(name_or_path)
    options = {"level": level, "length": length, "max_vocabulary": max_vocabulary, "vocabulary": vocabulary}
    if (registered := load_registered(name_or_path, options, load_text, code)) is not None:
        data, left = registered
        refuse(name, left)
        return data
    if name in _ORACLE_LENGTHS:
        model = Oracle(seed=seed) if oracle is None else Oracle.load(oracle)
        sentences = model.sample(2 * count, length or _ORACLE_LENGTHS[name], seed=seed + 1)
        return TextData(name, sentences[:count], sentences[count:], oracle=model)
    if name in _EMBEDDED:
        file, usual = _EMBEDDED[name]
        content = files("fastgan.data").joinpath("assets", file).read_text(encoding="utf-8")
    else:
        content, usual = _read(name), None
    found = [line.strip() for line in re.split("\r\n|\r|\n", content.removesuffix("\n"))]
    filled = [line for line in found if line]
    lines = list(dict.fromkeys(filled))
    if len(lines) < 2:
        raise ValueError(
            f"{name}: {len(found)} lines, {len(found) - len(filled)} of them empty, hold {len(lines)} different sentences; "
            "expected at least 2, one per line"
        )
    spaced = usual or ("word" if _has_words(lines) else "char")
    if vocabulary is None:
        level = level or spaced
        if level == "word" and all(len(line.split()) == 1 for line in lines):
            raise ValueError(f"{name}: level is 'word', and every line is one word without a space: use 'char'")
    random.Random(seed).shuffle(lines)
    held_out = min(max(1, round(len(lines) * test_fraction)), len(lines) - 1)
    test, train = lines[:held_out], lines[held_out:]
    if vocabulary is None:
        if level.endswith(".json"):
            vocabulary = Vocabulary.from_tokenizer(level)
        else:
            vocabulary = Vocabulary.build(train, level, min_count, max_vocabulary)
    try:
        encoded, cut = vocabulary._encode([*train, *test], length)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    counts = {"empty": len(found) - len(filled), "repeated": len(filled) - len(lines), f"cut to {length} tokens": cut}
    note = f"of {len(found)} lines: {', '.join(f'{n} {what}' for what, n in counts.items() if n) or 'all of them'}"
    if spaced == "char" and usual is None and vocabulary.level == "char":
        note += "; by characters, as it has few spaces"
    return TextData(name, encoded[: len(train)], encoded[len(train) :], vocabulary, note=note)


def _read(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{name}: expected a text file with one sentence per line")
        near = did_you_mean(name, TEXT_NAMES)
        raise FileNotFoundError(f"{name}: no such file, and no corpus of that name ({', '.join(TEXT_NAMES)}){near}")
    data = path.read_bytes()
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}: byte {data[error.start]:#04x} at offset {error.start} (line {line}) is no UTF-8 ({error.reason}): save "
            "the text as UTF-8"
        ) from error


def _has_words(lines: Sequence[str]) -> bool:
    """Whether spaces divide most lines, and most letters are of scripts that use them."""
    lines = lines[:1000]
    letters = "".join(letter for line in lines for letter in line if letter.isalpha())
    divided = sum(len(line.split()) > 1 for line in lines)
    return 2 * divided > len(lines) and 2 * len(_UNSPACED.findall(letters)) <= len(letters)


def _split(sentence: str, level: str) -> list[str]:
    if level not in ("char", "word"):
        raise ValueError(f"level: {level!r} is not one of 'char', 'word', or the path of a tokenizer's .json")
    return list(sentence) if level == "char" else sentence.split()
