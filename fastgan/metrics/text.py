"""Metrics of generated text: BLEU, self-BLEU, distinct-n, negative log-likelihood, embedding similarity.

Scores lie in 0..1 (sacrebleu prints 100 times as much). Sentences are strings, token lists or ids: see `tokenize`.

Smoothing, by the names of the package that defines it; Chen and Cherry (2014) number the nltk ones:

- "none": a precision of zero makes the score zero
- "method1": nltk: a zero count of matches becomes 0.1 (epsilon). Texygen's choice, hence the default
- "method2": nltk: one is added to matches and total for n >= 2
- "method3": nltk: the k-th zero precision becomes 1 / (2^k total), as in NIST's mteval
- "floor": sacrebleu: a zero count of matches becomes 0.1
- "add-k": sacrebleu: one is added to matches and total for n >= 2
- "exp": sacrebleu's default for corpora: the k-th zero precision becomes 1 / (2^k total)

They differ for a sentence shorter than n: sacrebleu gives its missing n-grams precision zero (no "effective order"),
nltk counts one missing n-gram per such sentence. Without any matching word every score is zero.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fastgan.metrics.ngram import Sentences, Tokens, check_corpus, clipped_matches, closest_lengths, distinct, tokenize

SMOOTHINGS = ("none", "method1", "method2", "method3", "floor", "add-k", "exp")

__all__ = [
    "SMOOTHINGS",
    "Tokens",
    "bleu",
    "corpus_bleu",
    "corpus_self_bleu",
    "distinct_n",
    "embedding_similarity",
    "nll",
    "self_bleu",
    "sentence_bleu",
    "tokenize",
]


def sentence_bleu(
    hypotheses: Sentences,
    references: Sentences | None,
    max_n: int = 4,
    smoothing: str = "method1",
    level: str = "word",
    threads: int = 0,
) -> np.ndarray:
    """Sentence BLEU of each hypothesis against all references, with equal weights, for every order up to ``max_n``.

    ``references=None`` takes, for each sentence, all others (never itself). Returns float64 [hypotheses, max_n];
    column n - 1 is BLEU-n, equal to ``nltk.sentence_bleu(references, h, weights=[1/n] * n)`` with the same smoothing.
    """
    matches, totals, own, closest = _counts(hypotheses, references, max_n, smoothing, level, threads)
    return _score(matches, totals, own, closest, smoothing)


def bleu(
    hypotheses: Sentences,
    references: Sentences,
    orders: Sequence[int] = (2, 3, 4, 5),
    smoothing: str = "method1",
    level: str = "word",
    threads: int = 0,
) -> dict[str, float]:
    """Texygen's BLEU (Zhu et al. 2018): the mean of sentence BLEU against the whole reference set, {"bleu-2": ...}."""
    scores = sentence_bleu(hypotheses, references, _highest(orders, hypotheses), smoothing, level, threads)
    return {f"bleu-{n}": float(scores[:, n - 1].mean()) for n in orders}


def self_bleu(
    sentences: Sentences,
    orders: Sequence[int] = (2, 3, 4, 5),
    smoothing: str = "method1",
    level: str = "word",
    threads: int = 0,
) -> dict[str, float]:
    """Mean sentence BLEU of each sentence against all others, never itself, {"self-bleu-2": ...}; lower: more diverse.

    Texygen scores a sample of the sentences; here every sentence counts, since the cost is linear.
    """
    scores = sentence_bleu(sentences, None, _highest(orders, sentences), smoothing, level, threads)
    return {f"self-bleu-{n}": float(scores[:, n - 1].mean()) for n in orders}


def corpus_bleu(
    hypotheses: Sentences,
    references: Sentences,
    orders: Sequence[int] = (2, 3, 4, 5),
    smoothing: str = "exp",
    level: str = "word",
    threads: int = 0,
) -> dict[str, float]:
    """Corpus BLEU: matches, totals and lengths are summed before the ratio, {"corpus-bleu-2": ...}.

    Every hypothesis has the same references, so sacrebleu needs one reference stream per reference to give this number.
    """
    return _corpus(hypotheses, references, orders, smoothing, level, threads, "corpus-bleu")


def corpus_self_bleu(
    sentences: Sentences,
    orders: Sequence[int] = (2, 3, 4, 5),
    smoothing: str = "exp",
    level: str = "word",
    threads: int = 0,
) -> dict[str, float]:
    """Corpus BLEU of the sentences where each has all others as its references, {"corpus-self-bleu-2": ...}."""
    return _corpus(sentences, None, orders, smoothing, level, threads, "corpus-self-bleu")


def distinct_n(
    sentences: Sentences, orders: Sequence[int] = (1, 2, 3, 4), level: str = "word", threads: int = 0
) -> dict[str, float]:
    """Distinct n-grams divided by all n-grams of the corpus (Li et al. 2016), {"distinct-1": ...}."""
    highest = _highest(orders, sentences)
    (tokens,) = tokenize(sentences, level=level)
    totals = _totals(tokens.lengths, highest, "none").sum(0)
    counts = distinct(tokens, highest, threads)
    return {f"distinct-{n}": float(counts[n - 1] / max(totals[n - 1], 1)) for n in orders}


def nll(model, tokens: torch.Tensor, pad: int | Sequence[int] | None = None, batch_size: int = 512) -> float:
    """Mean negative log-likelihood per token, in nats, of ``tokens`` (int64 [N, L]) under ``model``.

    ``model.log_prob(tokens)`` gives log p(token | tokens before it), [N, L]; positions equal to ``pad`` (one id or
    several) do not count.
    The field's three numbers are NLL_oracle = nll(oracle, generated), NLL_gen = nll(generator, training data) and
    NLL_test = nll(generator, held-out data).
    """
    total, count = 0.0, 0
    ignored = torch.tensor([] if pad is None else pad, dtype=torch.int64, device=tokens.device).reshape(-1)
    with torch.no_grad():
        for batch in tokens.split(batch_size):
            log_prob = model.log_prob(batch)
            real = torch.isin(batch, ignored, invert=True)
            total -= log_prob.double().masked_fill(~real, 0).sum().item()
            count += int(real.sum())
    if count == 0:
        raise ValueError("tokens: expected at least one token that is not padding")
    return total / count


def embedding_similarity(
    hypotheses: Sentences,
    references: Sentences,
    words: int = 256,
    dim: int = 16,
    window: int = 5,
    level: str = "word",
) -> float:
    """Likeness of the word geometry of two corpora (Texygen's EmbSim without its final logarithm); 1 for equal corpora.

    Each corpus gets embeddings of the ``words`` most frequent reference words; row i of its cosine matrix says how word
    i lies to all others; the result is the mean over words of the cosine between the two corpora's rows. Where Texygen
    trains word2vec, the embeddings are the leading ``dim`` eigenvectors of the pointwise mutual information of words
    within ``window`` (Levy and Goldberg 2014: what word2vec factorises), so the result has no seed; it is not
    comparable with numbers from word2vec. 3,000 KJV clauses against 3,000 others give 0.55, against their own words
    shuffled 0.05. Raises ValueError where fewer than two words occur in both corpora.
    """
    ours, theirs = tokenize(hypotheses, references, level=level)
    values, counts = np.unique(theirs.ids, return_counts=True)
    kept = np.sort(values[np.argsort(-counts, kind="stable")][:words])
    kept = kept[np.isin(kept, ours.ids)]
    if len(kept) < 2:
        raise ValueError("hypotheses: expected at least two words in common with references")
    a, b = (_cosines(corpus, kept, dim, window) for corpus in (ours, theirs))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / norms).mean())


def _cosines(corpus: Tokens, kept: np.ndarray, dim: int, window: int) -> np.ndarray:
    sentence = np.repeat(np.arange(len(corpus.offsets) - 1), corpus.lengths)
    index = np.where(np.isin(corpus.ids, kept), np.searchsorted(kept, corpus.ids), -1)
    size = len(kept)
    together = np.zeros(size * size)
    for d in range(1, window + 1):
        near = (sentence[d:] == sentence[:-d]) & (index[d:] >= 0) & (index[:-d] >= 0)
        together += np.bincount(index[:-d][near] * size + index[d:][near], minlength=size * size)
    together = together.reshape(size, size) + together.reshape(size, size).T
    marginal = together.sum(1)
    expected = np.outer(marginal, marginal) / max(together.sum(), 1)
    values, vectors = np.linalg.eigh(np.log((together + 5) / (expected + 5)))  # 5: keeps rare pairs near 0
    leading = np.argsort(-np.abs(values))[:dim]
    embedding = vectors[:, leading] * np.sqrt(np.abs(values[leading]))
    embedding /= np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    cosines = embedding @ embedding.T
    np.fill_diagonal(cosines, 1)  # also for a word without neighbours, whose embedding is zero
    return cosines


def _corpus(hypotheses, references, orders, smoothing, level, threads, name) -> dict[str, float]:
    counts = _counts(hypotheses, references, _highest(orders, hypotheses), smoothing, level, threads)
    scores = _score(*(c.sum(0, keepdims=True) for c in counts), smoothing)[0]
    return {f"{name}-{n}": float(scores[n - 1]) for n in orders}


def _highest(orders: Sequence[int], sentences: Sentences) -> int:
    """The greatest of `orders`, for a figure that is a mean over `sentences`."""
    if not orders or not all(isinstance(order, int | np.integer) and order >= 1 for order in orders):
        raise ValueError(f"orders is {tuple(orders)}, expected whole numbers from 1")
    check_corpus(sentences)
    if len(sentences.offsets) < 2 if isinstance(sentences, Tokens) else not len(sentences):
        raise ValueError("hypotheses: expected at least one sentence")
    return max(orders)


def _counts(hypotheses, references, max_n, smoothing, level, threads) -> tuple[np.ndarray, ...]:
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing: {smoothing!r} is not one of {', '.join(SMOOTHINGS)}")
    if references is None:
        (ours,), theirs = tokenize(hypotheses, level=level), None
    else:
        ours, theirs = tokenize(hypotheses, references, level=level)
    closest = closest_lengths(ours, theirs)
    matches = clipped_matches(ours, theirs, max_n, threads)
    return matches, _totals(ours.lengths, max_n, smoothing), ours.lengths, closest


def _totals(lengths: np.ndarray, max_n: int, smoothing: str) -> np.ndarray:
    """Number of n-grams [N, max_n]; nltk counts at least one."""
    return np.maximum(lengths[:, None] - np.arange(max_n), int(smoothing.startswith("method")))


def _score(matches: np.ndarray, totals: np.ndarray, own: np.ndarray, closest: np.ndarray, smoothing: str) -> np.ndarray:
    """BLEU-1..max_n from matches and totals [N, max_n] and lengths [N] (Papineni et al. 2002, section 2.3)."""
    matches, totals = matches.astype(np.float64), totals.astype(np.float64)
    nothing = matches[:, :1] == 0
    if smoothing in ("method2", "add-k"):
        matches[:, 1:] += 1
        totals[:, 1:] += 1
    zero = (matches == 0) & (totals > 0)
    if smoothing in ("method1", "floor"):
        matches[zero] = 0.1
    elif smoothing in ("method3", "exp"):
        matches[zero] = 0.5 ** zero.cumsum(1)[zero]
    with np.errstate(divide="ignore"):
        logs = np.log(matches / np.maximum(totals, 1))
        brevity = np.where(own > 0, np.minimum(0, 1 - closest / np.maximum(own, 1)), -np.inf)
    scores = np.exp(logs.cumsum(1) / np.arange(1, matches.shape[1] + 1) + brevity[:, None])
    return np.where(nothing, 0.0, scores)
