import json
import math

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import save_file
from scipy.stats import chisquare

from fastgan.data.oracle import Oracle
from fastgan.data.text import BOS, EOS, PAD, TEXT_NAMES, UNK, Vocabulary, load_text
from fastgan.metrics.text import nll

SIZES = {"tang-quatrains": (3772, 20), "song-quatrains": (13029, 20), "kjv": (20000, 20)}


@pytest.mark.parametrize("name", SIZES)
def test_embedded_corpora_come_back_whole_from_their_ids(name):
    data = load_text(name)
    total, length = SIZES[name]
    assert len(data.train) + len(data.test) == total
    assert len(data.test) == round(total / 10)
    assert data.train.shape[1] == data.length == length
    assert data.train.dtype == torch.int64
    assert not (data.train == UNK).any()
    assert 0 < (data.test == UNK).sum() < 0.02 * data.test.numel()
    train = data.decode(data.train)
    assert len(set(train)) == len(train)
    assert torch.equal(data.vocabulary.encode(train, length), data.train)
    if name == "kjv":
        assert all(5 <= len(s.split()) <= 20 for s in train)
    else:
        assert all(len(s) == 20 for s in train)


def test_the_split_depends_on_the_seed_alone():
    first, again, other = (load_text("tang-quatrains", seed=s) for s in (0, 0, 1))
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.test, again.test)
    assert set(first.decode(first.train)) != set(other.decode(other.train))
    # random.Random is stable across Python versions: this split must never change.
    assert first.decode(first.train[:1]) == ["白帝朝驚浪陽臺暮映雲等閑生險易世路秪如君"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(["the cat sat", "", "the dog  sat", "the cat sat", " a dog ", "the the the"]), "utf-8")
    return path


def test_a_text_file_loses_its_empty_and_repeated_lines(file):
    data = load_text(file, test_fraction=0.25)
    lines = sorted(data.decode(data.train) + [" ".join(s.split()) for s in data.decode(data.test)])
    assert len(lines) == 4
    assert data.train.shape == (3, 3)
    chars = load_text(file, level="char", length=5)
    assert chars.length == 5
    assert {len(s) for s in chars.decode(chars.train)} == {5}


SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_lines_end_with_line_ends_alone(tmp_path, end, bom):
    lines = [f"no{i}{separator}end" for i, separator in enumerate(SEPARATORS)]
    (tmp_path / "x.txt").write_bytes((bom + end.join(lines) + end).encode())
    data = load_text(tmp_path / "x.txt", level="char")
    assert (len(data.train), len(data.test)) == (7, 1) and set(data.decode(data.train)) < set(lines)
    assert "\ufeff" not in data.vocabulary.tokens
    words = load_text(tmp_path / "x.txt", level="word")
    assert len(words.train) + len(words.test) == 8 and not any("\ufeff" in token for token in words.vocabulary.tokens)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo \xff\n", r"byte 0xff at offset 8 \(line 2\) is no UTF-8"),
        ("eins\nz\xe4hlt".encode("latin-1"), r"byte 0xe4 at offset 6 \(line 2\)"),
        ("one\ntwo".encode("utf-16"), r"byte 0xff at offset 0 \(line 1\)"),
        (b"\xef\xbb\xbfa\nb\xc3", r"byte 0xc3 at offset 6 \(line 2\)"),
        (b"", "1 lines, 1 of them empty, hold 0 different sentences; expected at least 2"),
        (b"\n\n \n", "3 lines, 3 of them empty, hold 0 different"),
        (b"the same\n" * 50, "50 lines, 0 of them empty, hold 1 different sentences"),
    ],
)
def test_texts_that_cannot_be_read_are_named(tmp_path, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.txt: .*{message}"):
        load_text(tmp_path / "x.txt")


def test_one_endless_line_among_short_ones(tmp_path):
    lines = [*(f"word {i}" for i in range(10_000)), "a " * 100_000]
    (tmp_path / "x.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=r"10001 sentences of 12 tokens .* longest of 100000, .* length=100000: cut"):
        load_text(tmp_path / "x.txt")
    assert load_text(tmp_path / "x.txt", length=5).length == 5
    with pytest.raises(ValueError, match="length=1000000000: cut them"):
        load_text(tmp_path / "x.txt", length=10**9)


def test_a_note_counts_what_became_of_the_lines(tmp_path):
    lines = ["a b c d", "", "a b", "a b c d", " a b ", "e f g", "h i"] + ["j k"] * 293
    (tmp_path / "x.txt").write_text("\n".join(lines), encoding="utf-8")
    data = load_text(tmp_path / "x.txt", length=3)
    assert data.about == (
        "4 sentences to train on, 1 held out (of 300 lines: 1 empty, 294 repeated, 1 cut to 3 tokens)"
    )


CHINESE = ["白帝朝驚浪", "陽臺暮映雲", "等閑生險易", "世路秪如君"]
SPACED = ["白帝 朝驚浪", "陽臺暮 映雲", "等閑 生險易", "世路秪 如君"]


@pytest.mark.parametrize(
    ("lines", "level"),
    [
        (CHINESE, "char"),
        (SPACED, "char"),
        (["ที่นี่มีแมว", "ฉันชอบ แมวมาก", "สุนัขวิ่งเร็ว"], "char"),
        (["きょうは いい天気", "あしたも 晴れる"], "char"),
        (["alice", "bob", "carol", "dave smith"], "char"),
        (["the cat sat", "the dog", "ran"], "word"),
        (["кошка сидит", "собака бежит"], "word"),
        (["고양이가 앉아 있다", "개가 달린다"], "word"),
    ],
)
def test_the_level_follows_the_text(tmp_path, lines, level):
    (tmp_path / "x.txt").write_text("\n".join(lines), encoding="utf-8")
    data = load_text(tmp_path / "x.txt")
    assert data.vocabulary.level == level
    assert ("by characters" in data.about) == (level == "char")
    assert load_text(tmp_path / "x.txt", vocabulary=data.vocabulary).train.equal(data.train)


def test_words_are_refused_where_each_line_is_one(tmp_path):
    (tmp_path / "x.txt").write_text("\n".join(CHINESE), encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.txt: level is 'word', and every line is one word.*use 'char'"):
        load_text(tmp_path / "x.txt", level="word")


def test_names_that_are_no_text(tmp_path):
    with pytest.raises(ValueError, match="expected one text"):
        load_text(("a", "b"))
    with pytest.raises(ValueError, match="expected a text file"):
        load_text(tmp_path)
    with pytest.raises(FileNotFoundError, match="did you mean 'song-quatrains'"):
        load_text("song-quatrain")


def test_a_file_that_is_no_tokenizer(file, tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"version": 7}')
    with pytest.raises(ValueError, match=r"other\.json is no file of a tokenizers\.Tokenizer"):
        load_text(file, level=str(path))


def test_vocabulary_orders_by_count_and_pads_after_the_end():
    vocabulary = Vocabulary.build(["b a a", "c a b", "<unk> d"], "word", min_count=1, max_size=3)
    assert vocabulary.tokens[4:] == ["a", "b", "c"]
    ids = vocabulary.encode(["a c", "b d a c", "", "a b c"], length=3)
    assert ids.tolist() == [[4, 6, EOS], [5, UNK, 4], [EOS, PAD, PAD], [4, 5, 6]]
    assert vocabulary.decode(ids) == ["a c", "b <unk> a", "", "a b c"]
    assert vocabulary.decode(torch.tensor([[BOS, 4, PAD, 5, EOS, 6]])) == ["a b"]
    assert Vocabulary.build(["b a a", "c a b"], "word", min_count=2).tokens[4:] == ["a", "b"]


def test_vocabulary_survives_saving(tmp_path):
    vocabulary = Vocabulary.build(["山 水", "水"], "char")
    vocabulary.save(tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text("utf-8"))["tokens"][0] == "水"
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert loaded.tokens == vocabulary.tokens
    assert loaded.level == "char"


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"level": "char"},
        {"level": "char", "tokens": "abc"},
        {"level": "char", "tokens": [1]},
        {"level": 3, "tokens": ["a"]},
        {"level": "tokenizer", "tokens": ["a"], "tokenizer": 3},
        {"level": "tokenizer", "tokens": ["a"], "tokenizer": "{}"},
        {"level": "word", "tokens": ["a", "a"]},
    ],
)
def test_content_that_is_no_vocabulary(content):
    with pytest.raises(ValueError, match=r"vocabulary: |distinct"):
        Vocabulary.from_dict(content)


def test_a_tokenizers_file(file, tmp_path):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(file)], trainer)
    tokenizer.save(str(tmp_path / "bpe.json"))
    data = load_text(file, level=str(tmp_path / "bpe.json"))
    text = "the cat sat on 水"
    assert data.vocabulary.decode(data.vocabulary.encode([text], 40)) == [text]
    assert data.vocabulary_size == tokenizer.get_vocab_size() + 4
    data.vocabulary.save(tmp_path / "v.json")
    assert torch.equal(Vocabulary.load(tmp_path / "v.json").encode([text], 40), data.vocabulary.encode([text], 40))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load_text("no-such-corpus"), FileNotFoundError, "tang-quatrains"),
        (lambda: load_text("kjv", test_fraction=1.0), ValueError, "test_fraction"),
        (lambda: load_text("kjv", level="byte"), ValueError, "byte"),
        (lambda: load_text("kjv", level="missing.json"), FileNotFoundError, "missing.json"),
        (lambda: Vocabulary(["a", "a"], "word"), ValueError, "distinct"),
        (lambda: Vocabulary(["a"], "tokenizer"), ValueError, "tokenizer"),
        (lambda: Oracle.from_seqgan([np.zeros(3)]), ValueError, "15"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.fixture(scope="module")
def oracle():
    return Oracle(vocabulary=11, hidden=5, embedding=4, seed=3)


def by_hand(oracle, tokens):
    """Equations of the LSTM, in numpy float64."""
    p = {k: v.double().numpy() for k, v in oracle.state_dict().items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    h = c = np.zeros(p["output.weight"].shape[1])
    before, out = 0, []
    for token in tokens:
        gates = p["lstm.weight_ih_l0"] @ p["embedding.weight"][before] + p["lstm.weight_hh_l0"] @ h
        i, f, g, o = np.split(gates + p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = p["output.weight"] @ h + p["output.bias"]
        out.append(logits[token] - np.log(np.exp(logits).sum()))
        before = token
    return np.array(out)


def test_oracle_likelihood_is_exact(oracle):
    tokens = torch.randint(0, 11, (6, 9))
    expected = np.stack([by_hand(oracle, row) for row in tokens.tolist()])
    np.testing.assert_allclose(oracle.log_prob(tokens).numpy(), expected, atol=1e-5)
    assert nll(oracle, tokens) == pytest.approx(-expected.mean(), abs=1e-5)


def test_oracle_samples_follow_its_likelihood(oracle):
    samples = oracle.sample(40_000, length=2, seed=1)
    pairs = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    expected = oracle.log_prob(pairs).double().sum(1).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-5)
    observed = torch.bincount(samples[:, 0] * 11 + samples[:, 1], minlength=121)
    likely = expected * 40_000 > 5
    rest = [observed[~likely].sum().item()], [expected[~likely].sum().item() * 40_000]
    observed, expected = (
        np.append(x[likely].numpy(), r) for x, r in zip((observed, expected * 40_000), rest, strict=True)
    )
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
    assert torch.equal(oracle.sample(50, seed=2), oracle.sample(50, seed=2))
    assert not torch.equal(oracle.sample(50, seed=2), oracle.sample(50, seed=3))
    assert oracle.sample(0, length=4).shape == (0, 4)


def test_oracle_weights_are_standard_normal_and_seeded():
    first, again, other = (Oracle(seed=s).embedding.weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(1, abs=0.01)


def test_oracle_weights_from_files(oracle, tmp_path):
    save_file(oracle.state_dict(), tmp_path / "o.safetensors")
    torch.save(oracle.state_dict(), tmp_path / "o.pt")
    tokens = torch.randint(0, 11, (3, 5))
    for name in ("o.safetensors", "o.pt"):
        assert torch.equal(Oracle.load(tmp_path / name).log_prob(tokens), oracle.log_prob(tokens))
    torch.save({"x": torch.zeros(1)}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"embedding\.weight"):
        Oracle.load(tmp_path / "bad.pt")
    state = oracle.state_dict()
    for change in (
        {"output.weight": torch.zeros(11, 1).expand(11, 1 << 20)},
        {"lstm.weight_hh_l0": torch.zeros(20, 6)},
        {"output.bias": torch.zeros(11, 1)},
        {"embedding.weight": torch.zeros(1, 4).expand(1 << 40, 4)},
        {"output.bias": "none"},
    ):
        torch.save({**state, **change}, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match=r"bad\.pt: (oracle weights: |no readable weights of an oracle)"):
            Oracle.load(tmp_path / "bad.pt")
    whole = (tmp_path / "o.safetensors").read_bytes()
    for name in ("cut.safetensors", "cut.pt"):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{name}: no readable weights of an oracle"):
            Oracle.load(tmp_path / name)


def test_oracle_from_the_original_parameter_list(oracle):
    p = {k: v.numpy() for k, v in oracle.state_dict().items()}
    i, f, c, o = (
        (w.T, u.T, b)
        for w, u, b in zip(
            np.split(p["lstm.weight_ih_l0"], 4),
            np.split(p["lstm.weight_hh_l0"], 4),
            np.split(p["lstm.bias_ih_l0"], 4),
            strict=True,
        )
    )
    arrays = [p["embedding.weight"], *i, *f, *o, *c, p["output.weight"].T, p["output.bias"]]
    tokens = torch.randint(0, 11, (3, 5))
    torch.testing.assert_close(Oracle.from_seqgan(arrays).log_prob(tokens), oracle.log_prob(tokens))


def test_oracle_corpora():
    data = load_text("oracle-40", count=30, seed=5)
    assert "oracle-40" in TEXT_NAMES
    assert data.train.shape == data.test.shape == (30, 40)
    assert (data.vocabulary, data.pad, data.vocabulary_size) == (None, None, 5000)
    assert data.decode(data.train)[0].split() == [str(t) for t in data.train[0].tolist()]
    own = nll(data.oracle, data.train)
    uniform = nll(data.oracle, torch.randint(0, 5000, (30, 40)))
    assert own < math.log(5000) < uniform
