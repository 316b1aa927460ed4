import json
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from fastgan import recipes
from fastgan.cli import main
from fastgan.data.oracle import Oracle
from fastgan.data.source import evenly
from fastgan.data.text import UNK, TextData, Vocabulary, load_text
from fastgan.metrics import evaluate_text
from fastgan.metrics.text import nll
from fastgan.training import RunConfig, Trainer
from fastgan.training.log import read_metrics


def test_every_generator_learns_and_writes_sentences(small_run, corpus, tmp_path):
    for generator in ("lstm", "relational", "transformer"):
        folder = tmp_path / generator
        trainer = small_run("mle", folder, steps=40, generator=generator)
        losses = [row["pretrain/loss"] for row in read_metrics(folder / "metrics.jsonl")]
        assert losses[-1] < 0.7 * losses[0]
        texts = (folder / "samples" / "step-00000040.txt").read_text().splitlines()
        assert len(texts) == 4
        words = {"<unk>", *Path(corpus).read_text("utf-8").split()}
        assert all(set(text.split()) <= words for text in texts)
        again = trainer.recipe.sample(trainer.ema.networks, [3, 1])
        assert again == [texts[3], texts[1]], "a sample depends on its seed alone"


def test_eval_prints_every_metric_for_each_temperature(small_run, tmp_path, capsys):
    small_run("mle", tmp_path / "run", steps=30, sweep=(1.0, 0.2))
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--samples", "200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["figure", "T=1", "T=0.2", "better", "meaning"]
    table = {name: [float(first), float(second)] for name, first, second, *_ in map(str.split, lines[1:])}
    expected = {"nll-gen", "nll-test", "embedding-similarity"}
    expected |= {f"{kind}-{n}" for kind in ("bleu", "self-bleu") for n in (2, 3, 4, 5)}
    assert set(table) == expected | {f"distinct-{n}" for n in (1, 2, 3, 4)}
    assert table["distinct-3"][1] < table["distinct-3"][0], "a lower temperature costs diversity"
    saved = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert saved["T=1"]["nll-gen"] == pytest.approx(table["nll-gen"][0], abs=1e-4)
    assert main(["eval", str(tmp_path / "run"), "--samples", "50", "--metrics", "bleu,distinct"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9
    assert main(["eval", str(tmp_path / "run"), "--metrics", "fid"]) == 1
    assert "nll-gen" in capsys.readouterr().err


def test_nll_gen_of_a_run_is_the_training_loss(small_run, corpus, tmp_path):
    trainer = small_run("mle", tmp_path / "run", steps=20)
    columns = trainer.recipe.evaluate(trainer.ema.networks, {"data": corpus}, 50)
    loss = trainer.recipe.generator.nll_loss(trainer.dataset.train).item()
    assert columns["T=1"]["nll-gen"] == pytest.approx(loss, rel=1e-4)


def test_a_corpus_that_was_given_is_measured_and_not_the_one_of_its_name(corpus, tmp_path):
    """Another shuffle of the same file holds out other lines: those of the name were trained on."""
    given = load_text(corpus, seed=5)
    assert not torch.equal(given.test, load_text(corpus).test)
    settings = RunConfig(data=corpus, out=str(tmp_path / "run"), samples=1, device="cpu")
    kind = recipes.get("mle")
    trainer = Trainer(kind, kind.Config(batch_size=4, embedding=8, hidden=8, steps=5), settings, dataset=given)
    networks = {"generator": trainer.recipe.generator}
    found = trainer.recipe.evaluate(networks, {"data": corpus}, 4, metrics=["nll-gen", "nll-test"])["T=1"]
    for part in ("train", "test"):
        expected = nll(trainer.recipe.generator, getattr(given, part), [given.pad, UNK])
        assert found[f"nll-{'gen' if part == 'train' else part}"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("generator", ["lstm", "transformer"])
def test_longer_sentences_of_another_corpus_are_cut_to_the_runs(small_run, tmp_path, generator):
    """None is generated that is as long: likeness would be punished for it, and a Transformer has no place for the rest."""
    trainer = small_run("mle", tmp_path / "run", steps=1, generator=generator, sweep=(1.0,))
    longest = trainer.recipe.data["length"]
    lines = [" ".join("abcd"[(i >> k) % 4] for k in range(longest + 3)) for i in range(64)]
    (tmp_path / "long").write_text("\n".join(lines))
    recipe = trainer.recipe
    data = load_text(tmp_path / "long", vocabulary=recipe.vocabulary, length=longest)
    names = [*(f"bleu-{n}" for n in (2, 3, 4, 5)), "nll-test"]
    found = recipe.evaluate(trainer.ema.networks, {"data": str(tmp_path / "long")}, 50, metrics=names)["value"]
    generated = recipe.draw_tokens(trainer.ema.networks, list(range(50)))
    expected = evaluate_text.evaluate(trainer.ema.networks["generator"], generated, data, UNK)
    assert found == pytest.approx({name: expected[name] for name in names})


def test_what_a_large_corpus_is_measured_on_lies_all_over_it():
    """A user's need not be shuffled: its first lines may be of one kind."""
    tokens = torch.arange(4 * evaluate_text.REFERENCES)[:, None]
    data = TextData("x", tokens, tokens, Vocabulary(["a"], "word"))
    facts = evaluate_text.facts(torch.nn.Linear(1, 1), lambda: tokens[:1], lambda: data, None, 1.0, False)
    for name in ("train", "test"):
        assert torch.equal(facts[name](), tokens[evenly(len(tokens), len(tokens) // 4)])
    assert facts["theirs"]().ids[-1] == evenly(len(tokens), len(tokens) // 4)[-1]


def test_a_user_supplied_oracle(tmp_path):
    oracle = Oracle(vocabulary=20, hidden=4, embedding=4, seed=3)
    torch.save(oracle.state_dict(), tmp_path / "oracle.pt")
    config = recipes.get("mle").Config(oracle=str(tmp_path / "oracle.pt"), hidden=4, embedding=4, sweep=(1.0,))
    data = recipes.get("mle").load_data("oracle", config)
    assert data.vocabulary_size == 20
    assert torch.equal(data.oracle.output.weight, oracle.output.weight)
    recipe = recipes.get("mle")(config, recipes.get("mle").describe(data))
    values = recipe.evaluate({"generator": recipe.generator}, {"data": "oracle"}, 50)["value"]
    assert values["nll-oracle"] > values["nll-oracle-real"]


def test_characters_words_and_a_tokenizer(corpus, tmp_path, capsys):
    """The same file at three levels, as a user trains and samples it."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.train([corpus], trainers.BpeTrainer(vocab_size=60, show_progress=False))
    tokenizer.save(str(tmp_path / "tokens.json"))
    letters = set(Path(corpus).read_text("utf-8"))
    for level in ("char", "word", str(tmp_path / "tokens.json")):
        folder = tmp_path / Path(level).stem
        sizes = "--steps 60 --batch-size 8 --embedding 8 --hidden 16 --pretrain-lr 0.02 --samples 4 --device cpu"
        assert main(f"train mle --data {corpus} --level {level} --out {folder} {sizes} --metrics-every 0".split()) == 0
        capsys.readouterr()
        assert main(["sample", str(folder), "--seeds", "0-9"]) == 0
        *texts, _ = capsys.readouterr().out.splitlines()
        assert len(texts) == 10
        text = "".join(texts).replace("<unk>", "")
        assert set(text) <= letters
        assert "sees" in text or "hears" in text


def test_data_list_names_the_corpora(capsys):
    assert main(["data", "list"]) == 0
    assert {"tang-quatrains", "song-quatrains", "kjv", "oracle", "emoji"} <= set(capsys.readouterr().out.split())
