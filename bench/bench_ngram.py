"""BLEU and self-BLEU: ours, the same linear algorithm in pure Python, and nltk, all on the same KJV clauses.

nltk needs minutes for the whole task, so it scores ``SCORED`` sentences against the whole reference set; its cost per
hypothesis does not depend on the others, so whole = 2000 / SCORED times the shown time (`extra_info["scale"]`).
Every case is checked against nltk's numbers before it is timed.
"""

import random
from importlib.resources import files

import numpy as np
import pytest

from fastgan.metrics import ngram, text

SCORED = 10


@pytest.fixture(scope="module")
def clauses():
    lines = files("fastgan.data").joinpath("assets/kjv_clauses.txt").read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    return lines


def nltk_scores(hypotheses, references_of, n):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    method = SmoothingFunction().method1
    return [sentence_bleu(references_of(i), h.split(), [1 / n] * n, method) for i, h in enumerate(hypotheses)]


def python_bleu(hypotheses, references, max_n):
    ours, *theirs = text.tokenize(hypotheses, *([] if references is None else [references]))
    return ngram._clipped_matches_python(ours, theirs[0] if theirs else None, max_n)


@pytest.mark.parametrize("how", ["strings", "ids", "python", "nltk"])
@pytest.mark.parametrize("task", ["self-bleu-5 of 2000", "bleu-5 of 2000 against 5000"])
def bench_bleu(benchmark, clauses, task, how):
    hypotheses = clauses[:2000]
    references = None if task.startswith("self") else clauses[2000:7000]
    split = [c.split() for c in (references or hypotheses)]

    def references_of(i):
        return split if references else split[:i] + split[i + 1 :]

    ours = text.sentence_bleu(hypotheses, references, 5)
    theirs = nltk_scores(hypotheses[:SCORED], references_of, 5)
    np.testing.assert_allclose(ours[:SCORED, 4], theirs, rtol=0, atol=1e-9)
    benchmark.group = task
    benchmark.extra_info["scale"] = 2000 / SCORED if how == "nltk" else 1
    if how == "strings":
        benchmark(text.sentence_bleu, hypotheses, references, 5)
    elif how == "ids":
        tokens = text.tokenize(hypotheses, *([references] if references else []))
        benchmark(text.sentence_bleu, tokens[0], tokens[1] if references else None, 5)
    elif how == "python":
        benchmark.pedantic(python_bleu, (hypotheses, references, 5), rounds=5)
    else:
        benchmark.pedantic(nltk_scores, (hypotheses[:SCORED], references_of, 5), rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sentences", [1_000, 10_000, 100_000])
def bench_linearity(benchmark, clauses, sentences, threads):
    """Windows of 12 words at random places of the text: as many distinct sentences as wanted, with its n-grams."""
    (tokens,) = text.tokenize(clauses)
    starts = np.random.default_rng(0).integers(0, len(tokens.ids) - 12, sentences)
    windows = text.Tokens.from_padded(tokens.ids[starts[:, None] + np.arange(12)])
    small = text.Tokens(windows.ids[: 500 * 12], windows.offsets[:501])
    np.testing.assert_array_equal(
        ngram.clipped_matches(small, None, 5, threads), ngram._clipped_matches_python(small, None, 5)
    )
    benchmark.group = f"self-BLEU-5 counts, {threads} threads"
    benchmark(ngram.clipped_matches, windows, None, 5, threads)
