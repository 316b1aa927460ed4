"""N-gram counts of tokenised sentences: the numbers under BLEU, self-BLEU and distinct-n.

The cost is linear in tokens. References shared by all hypotheses are counted once (largest count per n-gram); for
self-BLEU the two largest counts of an n-gram over all sentences serve every leave-one-out reference set, because a
sentence's own count is left out exactly when it is the largest one.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, count, pairwise
from typing import NamedTuple

import numpy as np
import torch

import fastgan.ops  # noqa: F401 - defines torch.ops.fastgan and loads the kernels
from fastgan._torch_private import has_kernel


class Tokens(NamedTuple):
    """Sentences as flat token ids: sentence i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [sentences + 1]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @classmethod
    def from_padded(cls, ids, pad: int | None = None) -> "Tokens":
        """From integers [N, L] (array or CPU tensor); every ``pad`` is dropped wherever it stands."""
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(f"ids: expected integers [N, L], got {ids.dtype} {list(ids.shape)}")
        keep = np.ones(ids.shape, bool) if pad is None else ids != pad
        return cls._checked(ids[keep], keep.sum(1))

    @classmethod
    def _checked(cls, ids: np.ndarray, lengths: np.ndarray) -> "Tokens":
        if len(ids) and (ids.min() < -(2**31) or ids.max() >= 2**31):
            raise ValueError("ids: token ids must fit 32 bits")
        return cls(np.ascontiguousarray(ids, np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


Sentences = Tokens | Sequence[str] | Sequence[Sequence[Hashable]] | np.ndarray


def tokenize(*corpora: Sentences, level: str = "word") -> list[Tokens]:
    """Turns corpora into `Tokens` whose ids are comparable with each other.

    A corpus is a list of strings (split at white space for ``level="word"``, into characters for ``"char"``), a list
    of token sequences (any hashable token), integers [N, L], or `Tokens` (returned as it is). Corpora given together
    must be all of tokens or all of ids. Raises ValueError otherwise, TypeError for what is no list of sentences.
    """
    for corpus in corpora:
        check_corpus(corpus)
    if level not in ("word", "char"):
        raise ValueError(f"level: {level!r} is not one of 'word', 'char'")
    if all(_is_ids(c) for c in corpora):
        return [c if isinstance(c, Tokens) else Tokens.from_padded(c) for c in corpora]
    if any(_is_ids(c) for c in corpora):
        raise ValueError("corpora: ids and tokens cannot be compared; encode all of them or none")
    split = str.split if level == "word" else list
    index: dict = defaultdict(count().__next__)
    return [_number(corpus, split, index) for corpus in corpora]


def check_corpus(corpus: Sentences) -> None:
    """TypeError for one text, whose letters would be taken for sentences, and for what has no length."""
    if not isinstance(corpus, Tokens) and (isinstance(corpus, str | bytes) or not hasattr(corpus, "__len__")):
        raise TypeError(f"corpora: one of them is of type {type(corpus).__name__}, expected a list of sentences")


def _number(corpus: Iterable, split: Callable, index: dict) -> Tokens:
    flat, lengths = [], []  # no list outlives its sentence: a third faster than keeping all, which wakes the GC
    for sentence in corpus:
        tokens = split(sentence) if isinstance(sentence, str) else sentence
        if not hasattr(tokens, "__len__"):
            raise TypeError(
                f"corpora: a sentence is of type {type(tokens).__name__}, expected text or a list of tokens"
            )
        flat.extend(tokens)
        lengths.append(len(tokens))
    return Tokens._checked(np.fromiter(map(index.__getitem__, flat), np.int32, len(flat)), np.array(lengths, np.int64))


def _is_ids(corpus: Sentences) -> bool:
    return isinstance(corpus, Tokens) or getattr(corpus, "ndim", 0) == 2


def clipped_matches(hypotheses: Tokens, references: Tokens | None, max_n: int, threads: int = 0) -> np.ndarray:
    """Matches of each hypothesis, clipped by the largest count in any one reference (Papineni et al. 2002, 2.1.1).

    Every hypothesis is compared with all ``references``; ``None`` compares each with all other hypotheses (self-BLEU).
    Returns int64 [hypotheses, max_n]. ``threads=0`` uses every core this process may run on.
    """
    if not _compiled():
        return _clipped_matches_python(hypotheses, references, max_n)
    if references is None:
        return torch.ops.fastgan.ngram_matches(*_tensors(hypotheses), 0, max_n, threads).numpy()
    if len(references.offsets) < 2:
        raise ValueError("references: expected at least one sentence")
    ids = np.concatenate([references.ids, hypotheses.ids])
    offsets = np.concatenate([references.offsets, references.offsets[-1] + hypotheses.offsets[1:]])
    both = _tensors(Tokens(ids, offsets))
    return torch.ops.fastgan.ngram_matches(*both, len(references.offsets) - 1, max_n, threads).numpy()


def distinct(sentences: Tokens, max_n: int, threads: int = 0) -> np.ndarray:
    """Number of distinct n-grams of each order 1..max_n; int64 [max_n]."""
    if _compiled():
        return torch.ops.fastgan.ngram_distinct(*_tensors(sentences), max_n, threads).numpy()
    rows = _rows(sentences)
    return np.array([len(set(chain.from_iterable(_ngrams(r, n) for r in rows))) for n in range(1, max_n + 1)])


def closest_lengths(hypotheses: Tokens, references: Tokens | None) -> np.ndarray:
    """The reference length closest to each hypothesis' length, the shorter on a tie; leave-one-out for ``None``."""
    own = hypotheses.lengths
    values, counts = np.unique(own if references is None else references.lengths, return_counts=True)
    if references is None and len(own) < 2:
        raise ValueError("hypotheses: self-BLEU needs at least two sentences")
    if len(values) == 0:
        raise ValueError("references: expected at least one sentence")
    lengths, where = np.unique(own, return_inverse=True)
    closest = []
    for length in lengths:
        usable = values if references is not None else values[(values != length) | (counts > 1)]
        closest.append(usable[np.argmin(np.abs(usable - length))])
    return np.array(closest, np.int64)[where]


def _compiled() -> bool:
    """Whether csrc/text/ngram.cpp is there; the functions of `Counter` below give the same numbers."""
    return has_kernel("fastgan::ngram_matches", "CPU")


def _tensors(corpus: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.ascontiguousarray(corpus.ids)), torch.from_numpy(np.ascontiguousarray(corpus.offsets))


def _rows(corpus: Tokens) -> list[list[int]]:
    ids, o = corpus.ids.tolist(), corpus.offsets.tolist()
    return [ids[a:b] for a, b in pairwise(o)]


def _ngrams(row: list[int], n: int) -> Iterable:
    return row if n == 1 else zip(*(row[i:] for i in range(n)), strict=False)


def _clipped_matches_python(hypotheses: Tokens, references: Tokens | None, max_n: int) -> np.ndarray:
    """The definition of `clipped_matches`: same numbers, same linear cost, without the compiled module."""
    if references is not None and len(references.offsets) < 2:
        raise ValueError("references: expected at least one sentence")
    rows = _rows(hypotheses)
    reference_rows = rows if references is None else _rows(references)
    out = np.zeros((len(rows), max_n), np.int64)
    for n in range(1, max_n + 1):
        top: dict = {}  # n-gram -> largest count, its owner, the largest count of all other sentences
        counted = [Counter(_ngrams(r, n)) for r in reference_rows]
        for i, counts in enumerate(counted):
            for gram, c in counts.items():
                entry = top.get(gram)
                if entry is None:
                    top[gram] = (c, i, 0)
                elif c > entry[0]:
                    top[gram] = (c, i, entry[0])
                elif c > entry[2]:
                    top[gram] = (entry[0], entry[1], c)
        if references is None:
            for i, counts in enumerate(counted):
                out[i, n - 1] = sum(min(c, top[g][2] if top[g][1] == i else top[g][0]) for g, c in counts.items())
        else:
            for i, row in enumerate(rows):
                out[i, n - 1] = sum(min(c, top[g][0]) for g, c in Counter(_ngrams(row, n)).items() if g in top)
    return out
