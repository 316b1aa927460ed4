import random
import warnings
from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.metrics import ngram, text

ASSETS = Path(text.__file__).parents[1] / "data" / "assets"

needs_extension = pytest.mark.skipif(not ngram._compiled(), reason="fastgan._C is not built")


def random_corpus(seed, size, vocabulary, shortest=1, longest=12):
    rng = random.Random(seed)
    return [
        " ".join(str(rng.randrange(vocabulary)) for _ in range(rng.randint(shortest, longest))) for _ in range(size)
    ]


def real_corpus(name="kjv_clauses.txt", size=120, seed=0):
    lines = (ASSETS / name).read_text(encoding="utf-8").splitlines()
    return random.Random(seed).sample(lines, size)


CORPORA = {
    "random-5": random_corpus(1, 60, 5),
    "random-40": random_corpus(2, 80, 40),
    "repeats": ["a a a a b", "a a b", "a", "a a a a b", "c", "b a b a b a", "", "c c c d"],
    "kjv": real_corpus(),
}


@pytest.fixture(params=CORPORA)
def corpus(request):
    return CORPORA[request.param]


@pytest.fixture(params=["compiled", "python"])
def counting(request, monkeypatch):
    """Runs a test with the compiled counts and with the pure-Python ones."""
    if request.param == "python":
        monkeypatch.setattr(ngram, "_compiled", lambda: False)
    elif not ngram._compiled():
        pytest.skip("fastgan._C is not built")


def nltk_bleu(references, hypothesis, n, smoothing):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    method = getattr(SmoothingFunction(), {"none": "method0"}.get(smoothing, smoothing))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk warns for every zero precision
        return sentence_bleu(references, hypothesis, [1 / n] * n, method)


def sacrebleu_metric(n, smoothing):
    from sacrebleu.metrics import BLEU

    return BLEU(smooth_method=smoothing, max_ngram_order=n, effective_order=False, tokenize="none", force=True)


@pytest.mark.parametrize("smoothing", ["none", "method1", "method2", "method3"])
def test_sentence_bleu_equals_nltk(corpus, counting, smoothing):
    half = len(corpus) // 2
    hypotheses, references = corpus[:half], corpus[half:]
    ours = text.sentence_bleu(hypotheses, references, 5, smoothing)
    split = [r.split() for r in references]
    for n in range(1, 6):
        theirs = [nltk_bleu(split, h.split(), n, smoothing) for h in hypotheses]
        np.testing.assert_allclose(ours[:, n - 1], theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("smoothing", ["method1", "method3"])
def test_self_bleu_equals_nltk_with_the_sentence_left_out(corpus, counting, smoothing):
    split = [s.split() for s in corpus]
    ours = text.self_bleu(corpus, (2, 5), smoothing)
    for n in (2, 5):
        theirs = [nltk_bleu(split[:i] + split[i + 1 :], s, n, smoothing) for i, s in enumerate(split)]
        assert ours[f"self-bleu-{n}"] == pytest.approx(np.mean(theirs), abs=1e-9)


@pytest.mark.parametrize("smoothing", ["none", "floor", "add-k", "exp"])
def test_sentence_bleu_equals_sacrebleu(corpus, counting, smoothing):
    half = len(corpus) // 2
    hypotheses, references = corpus[:half], [r for r in corpus[half:] if r]
    ours = text.sentence_bleu(hypotheses, references, 4, smoothing)
    for n in range(1, 5):
        metric = sacrebleu_metric(n, smoothing)
        theirs = [metric.sentence_score(h, references).score / 100 for h in hypotheses]
        np.testing.assert_allclose(ours[:, n - 1], theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("smoothing", ["none", "floor", "add-k", "exp"])
def test_corpus_bleu_equals_sacrebleu(corpus, counting, smoothing):
    half = len(corpus) // 2
    hypotheses, references = corpus[:half], [r for r in corpus[half:] if r]
    ours = text.corpus_bleu(hypotheses, references, (2, 3, 4, 5), smoothing)
    for n in (2, 3, 4, 5):
        theirs = sacrebleu_metric(n, smoothing).corpus_score(hypotheses, [[r] * half for r in references]).score / 100
        assert ours[f"corpus-bleu-{n}"] == pytest.approx(theirs, abs=1e-9)


def test_corpus_self_bleu_equals_sacrebleu_with_the_sentence_left_out(counting):
    corpus = CORPORA["random-5"]
    streams = [[corpus[(i + shift) % len(corpus)] for i in range(len(corpus))] for shift in range(1, len(corpus))]
    theirs = sacrebleu_metric(4, "exp").corpus_score(corpus, streams).score / 100
    assert text.corpus_self_bleu(corpus, (4,))["corpus-self-bleu-4"] == pytest.approx(theirs, abs=1e-9)


def test_poems_by_character_equal_nltk(counting):
    poems = real_corpus("tang_quatrains.txt", 40)
    theirs = [nltk_bleu([list(p) for p in poems[20:]], list(p), 2, "method1") for p in poems[:20]]
    assert text.bleu(poems[:20], poems[20:], (2,), level="char")["bleu-2"] == pytest.approx(np.mean(theirs), abs=1e-9)


def test_a_sentence_never_serves_as_its_own_reference(counting):
    sentences = ["a b c d e", "f g h i j", "k l m n o"]
    assert text.self_bleu(sentences) == {f"self-bleu-{n}": 0.0 for n in (2, 3, 4, 5)}
    assert text.self_bleu([*sentences, "a b c d e"])["self-bleu-5"] == pytest.approx(0.5)


corpora = st.lists(st.lists(st.integers(-2, 3), max_size=9), min_size=2, max_size=9)


@needs_extension
@settings(max_examples=200, deadline=None)
@given(corpora, corpora, st.integers(1, 6), st.integers(1, 3))
def test_compiled_counts_equal_python(hypotheses, references, max_n, threads):
    ours, theirs = text.tokenize(hypotheses, references)
    for r in (None, theirs):
        expected = ngram._clipped_matches_python(ours, r, max_n)
        np.testing.assert_array_equal(ngram.clipped_matches(ours, r, max_n, threads), expected)
    expected = [
        len({tuple(s[i : i + n]) for s in hypotheses for i in range(len(s) - n + 1)}) for n in range(1, max_n + 1)
    ]
    np.testing.assert_array_equal(ngram.distinct(ours, max_n, threads), expected)


@needs_extension
@pytest.mark.parametrize("leave_one_out", [True, False])
def test_many_shards_and_any_number_of_threads_give_the_same_counts(leave_one_out):
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.geometric(0.02, (6000, 15)), 400).astype(np.int64) - 200  # 90,000 tokens: 32 shards
    hypotheses = text.Tokens.from_padded(ids[:3000], pad=-199)
    references = None if leave_one_out else text.Tokens.from_padded(ids[3000:])
    expected = ngram._clipped_matches_python(hypotheses, references, 4)
    for threads in (0, 1, 2, 7):
        np.testing.assert_array_equal(ngram.clipped_matches(hypotheses, references, 4, threads), expected)


def test_the_same_sentences_as_strings_lists_and_ids(counting):
    strings = CORPORA["random-40"]
    hypotheses, references = strings[:40], strings[40:]
    expected = text.sentence_bleu(hypotheses, references)
    lists = [[int(t) for t in s.split()] for s in strings]
    np.testing.assert_array_equal(text.sentence_bleu(lists[:40], lists[40:]), expected)
    padded = torch.full((len(lists), 12), -1)
    for row, s in zip(padded, lists, strict=True):
        row[: len(s)] = torch.tensor(s)
    ids = [text.Tokens.from_padded(p, pad=-1) for p in padded.split(40)]
    np.testing.assert_array_equal(text.sentence_bleu(*ids), expected)


def test_no_hypotheses_and_empty_sentences(counting):
    assert text.sentence_bleu([], ["a b"]).shape == (0, 4)
    assert text.sentence_bleu(["", "a b"], ["a b", ""], 2).tolist() == [[0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text.bleu(["a"], []), "references"),
        (lambda: text.self_bleu(["a b"]), "two sentences"),
        (lambda: text.bleu([], ["a"]), "at least one sentence"),
        (
            lambda: text.bleu(text.Tokens.from_padded(np.zeros((0, 3), int)), np.zeros((2, 3), int)),
            "at least one sentence",
        ),
        (lambda: text.self_bleu([]), "at least one sentence"),
        (lambda: text.corpus_bleu([], ["a"]), "at least one sentence"),
        (lambda: text.distinct_n([]), "at least one sentence"),
        (lambda: text.bleu(["a"], ["a"], orders=(0, 2)), r"orders is \(0, 2\)"),
        (lambda: text.distinct_n(["a"], ()), "orders"),
        (lambda: text.bleu(["a"], ["a"], smoothing="method7"), "method7"),
        (lambda: text.bleu(["a"], ["a"], level="byte"), "byte"),
        (lambda: text.bleu(["a"], torch.zeros(2, 3, dtype=torch.int64)), "ids and tokens"),
        (lambda: text.Tokens.from_padded(np.zeros((2, 3))), "float64"),
        (lambda: text.Tokens.from_padded(np.full((1, 1), 2**40)), "32 bits"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("score", [text.bleu, text.corpus_bleu, lambda a, b: text.distinct_n(a)])
@pytest.mark.parametrize("wrong", ["one text", b"bytes", None, 3, iter(["a b"]), [1, 2]])
def test_what_is_no_list_of_sentences(score, wrong):
    """Of one text every letter would be a sentence."""
    with pytest.raises(TypeError, match="corpora: "):
        score(wrong, ["a b"])


def test_references_are_lists_too():
    with pytest.raises(TypeError, match="one of them is of type str, expected a list of sentences"):
        text.bleu(["a b"], "one text")
    with pytest.raises(TypeError, match="one of them is of type str, expected a list of sentences"):
        text.self_bleu("one text")
    with pytest.raises(ValueError, match=r"orders is \(2.5,\), expected whole numbers from 1"):
        text.bleu(["a b"], ["a b"], orders=(2.5,))


@needs_extension
@pytest.mark.parametrize("offsets", [[1, 2], [0, 1], [0, 2, 1, 3], []])
def test_the_compiled_counts_reject_offsets_outside_the_tokens(offsets):
    tokens, offsets = torch.arange(3, dtype=torch.int32), torch.tensor(offsets, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="offsets"):
        torch.ops.fastgan.ngram_matches(tokens, offsets, 0, 2, 0)


@needs_extension
@pytest.mark.parametrize("dtypes", [(torch.int64, torch.int64), (torch.int32, torch.int32)])
def test_the_compiled_counts_reject_other_dtypes(dtypes):
    tokens, offsets = torch.arange(3, dtype=dtypes[0]), torch.tensor([0, 3], dtype=dtypes[1])
    with pytest.raises(RuntimeError, match="must be an int"):
        torch.ops.fastgan.ngram_distinct(tokens, offsets, 2, 0)


def test_distinct_n(counting):
    sentences = ["a b a b", "a b c"]
    expected = {"distinct-1": 3 / 7, "distinct-2": 3 / 5, "distinct-3": 1.0, "distinct-4": 1.0}
    assert text.distinct_n(sentences) == pytest.approx(expected)
    assert text.distinct_n(["a"], (2,)) == {"distinct-2": 0.0}


class Unigram:
    def __init__(self, corpus):
        counts = torch.bincount(corpus.flatten(), minlength=5).double()
        self.log_probs = (counts / counts.sum()).log()

    def log_prob(self, tokens):
        return self.log_probs[tokens]


def test_nll_is_the_mean_over_tokens_that_are_not_padding():
    tokens = torch.tensor([[1, 2, 3, 1], [1, 1, 2, 0], [2, 1, 0, 0]])
    model = Unigram(tokens)
    counts = Counter(tokens.flatten().tolist())
    expected = {k: -log(v / 12) for k, v in counts.items()}
    total = sum(expected[t] for t in tokens.flatten().tolist())
    assert text.nll(model, tokens) == pytest.approx(total / 12)
    assert text.nll(model, tokens, pad=0, batch_size=2) == pytest.approx((total - 3 * expected[0]) / 9)
    with pytest.raises(ValueError, match="padding"):
        text.nll(model, torch.zeros(2, 2, dtype=torch.int64), pad=0)


def test_embedding_similarity_orders_corpora_by_likeness():
    corpus = real_corpus(size=6000)
    half, words = corpus[3000:], " ".join(corpus[:3000]).split()
    random.Random(0).shuffle(words)
    shuffled = [" ".join(words[i : i + 12]) for i in range(0, len(words), 12)]
    same, held_out, mixed = (
        text.embedding_similarity(h, corpus[:3000], words=200) for h in (corpus[:3000], half, shuffled)
    )
    assert same == pytest.approx(1, abs=1e-9)
    assert mixed + 0.3 < held_out < 0.99
    with pytest.raises(ValueError, match="in common"):
        text.embedding_similarity(["x y"], corpus)
