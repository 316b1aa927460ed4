import html

import torch
from tolerances import assert_close

from fastgan import recipes
from fastgan.cli import main
from fastgan.models import build
from fastgan.recipes.seqgan import advantages, rewards
from fastgan.training import RunConfig
from fastgan.training.log import read_metrics


def make_generator(vocabulary=3, length=3):
    torch.manual_seed(0)
    generator = build("text.lstm", vocabulary=vocabulary, length=length, embedding=4, hidden=4).double()
    for parameter in generator.parameters():
        parameter.data.normal_()
    return generator


def every_sentence(vocabulary=3, length=3):
    return torch.cartesian_prod(*[torch.arange(vocabulary)] * length)


def score(tokens):
    """An arbitrary number per sentence."""
    return torch.sin(tokens.double() @ torch.tensor([9.0, 3.0, 1.0], dtype=torch.float64) * 1.7)


def exact_rewards(generator, tokens):
    every = every_sentence()
    p = generator.log_prob(every).sum(1).exp().detach()
    columns = []
    for prefix in (1, 2, 3):
        fits = (every[None, :, :prefix] == tokens[:, None, :prefix]).all(2) * p
        columns.append((fits * score(every)).sum(1) / fits.sum(1))
    return torch.stack(columns, dim=1)


def test_rewards_are_conditional_expectations():
    generator = make_generator()
    tokens = torch.tensor([[0, 1, 2], [2, 2, 1], [1, 0, 0]])
    q = rewards(generator, score, tokens, count=20_000, chunk=7001)
    assert_close(q, exact_rewards(generator, tokens), 0.03)  # 4 / sqrt(20,000) of a score in [-1, 1]


def test_the_policy_gradient_is_the_gradient_of_the_expected_score():
    """With exact rewards, E[sum_t Q_t grad log p_t] over all sentences is grad E[score]; a baseline changes nothing."""
    generator = make_generator()
    every = every_sentence()
    parameters = list(generator.parameters())
    p = generator.log_prob(every).sum(1).exp()
    expected = torch.autograd.grad((p * score(every)).sum(), parameters)
    q = exact_rewards(generator, every)
    log_prob = generator.log_prob(every)
    for baseline in (0.0, torch.tensor([0.3, -1.0, 2.0])):
        surrogate = (p.detach()[:, None] * (q - baseline) * log_prob).sum()
        found = torch.autograd.grad(surrogate, parameters, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)


def test_the_baseline_is_the_value_of_the_prefix_and_leaves_the_sentence_itself_out():
    q = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 8.0]])
    assert_close(advantages(q[:2], q[:, 0]), torch.tensor([[-3.0, 4.0], [-1.5, 3.0]]))
    assert_close(advantages(q[:1], q[:1, 0]), torch.tensor([[1.0, 4.0]]))


def test_advantages_keep_the_expected_gradient():
    """Over all sentences, with exact values of every prefix; the first token's baseline is any constant."""
    generator = make_generator()
    every = every_sentence()
    parameters = list(generator.parameters())
    log_prob = generator.log_prob(every)
    p = log_prob.sum(1).exp()
    expected = torch.autograd.grad((p * score(every)).sum(), parameters, retain_graph=True)
    q = exact_rewards(generator, every)
    a = advantages(q, q[:, 0])
    a[:, 0] = q[:, 0] - 0.3
    found = torch.autograd.grad((p.detach()[:, None] * a * log_prob).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_processes_that_write_sentences_of_other_lengths_weigh_each_token_alike(small_run, tmp_path, monkeypatch):
    """The mean over processes of their losses is the loss of all sentences, of which each has its own number of tokens."""
    trainer = small_run("seqgan", tmp_path / "a", steps=1, pretrain=1, filters=0.02, rollouts=2)
    recipe, length = trainer.recipe, trainer.recipe.data["length"]
    tokens = torch.full((4, length), 5)
    tokens[2:, 2:] = recipe.data["pad"]
    q = torch.rand(4, length)
    written = (tokens != recipe.data["pad"]).sum() / 2
    monkeypatch.setattr("fastgan.recipes.seqgan.rewards", lambda g, s, x, n: drawn[1])
    monkeypatch.setattr(recipe.generator, "sample", lambda n: drawn[0], raising=False)
    losses = []
    for part, count in ((slice(0, 2), written), (slice(2, 4), written), (slice(0, 4), 2 * written)):
        drawn = tokens[part], q[part]
        given = {"size": len(drawn[0]), "gather": staticmethod(lambda x: q[:, 0])}
        batch = type("Batch", (), given | {"mean": staticmethod(lambda x, count=count: count.to(x))})
        losses.append(recipe.g_step(batch)["loss"])
    assert_close((losses[0] + losses[1]) / 2, losses[2])


def test_policy_gradient_raises_the_reward(small_run, tmp_path):
    """A discriminator that likes one word: the generator learns to write it."""
    trainer = small_run(
        "seqgan", tmp_path / "a", steps=12, pretrain=8, discriminator_pretrain=2, filters=0.02, rollouts=2
    )
    recipe = trainer.recipe
    liked = recipe.vocabulary.ids("hears")[0]
    recipe.discriminator.forward = lambda x: (x == liked).any(1).float() * 4 - 2
    batch = type("Batch", (), {"size": 64, "gather": staticmethod(lambda x: x), "mean": staticmethod(lambda x: x)})
    before = (recipe.generator.sample(300) == liked).any(1).float().mean()
    for parameter in recipe.generator.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(recipe.generator.parameters(), lr=0.02)
    for _ in range(15):
        optimizer.zero_grad()
        recipe.g_step(batch)["loss"].backward()
        optimizer.step()
    after = (recipe.generator.sample(300) == liked).any(1).float().mean()
    assert after > before + 0.15


def test_three_phases_and_resume_repeats_an_unbroken_run(small_run, tmp_path):
    options = {"pretrain": 4, "discriminator_pretrain": 3, "discriminator_steps": 2, "filters": 0.02, "rollouts": 2}
    whole = small_run("seqgan", tmp_path / "whole", steps=10, **options)
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    phases = [{key.split("/")[0] for key in row if key.endswith("/loss")} for row in rows]
    assert phases == [{"pretrain"}] * 4 + [{"discriminator"}] * 3 + [{"generator", "pretrain", "discriminator"}] * 3
    small_run("seqgan", tmp_path / "parts", steps=8, **options)
    parts = small_run("seqgan", tmp_path / "parts", resume=True, steps=10, **options)
    for name, network in whole.recipe.networks.items():
        for a, b in zip(network.parameters(), parts.recipe.networks[name].parameters(), strict=True):
            assert torch.equal(a, b)


def test_maximum_likelihood_is_interleaved_at_its_own_rate(small_run, tmp_path):
    options = {"pretrain": 2, "discriminator_pretrain": 1, "filters": 0.02, "rollouts": 2}
    recipe = small_run("seqgan", tmp_path / "a", steps=4, **options).recipe
    rate = recipe.optimizers["pretrain"].param_groups[0]
    assert rate["lr"] == recipe.config.interleave_lr == 2e-3
    assert [u.optimizer for u in recipe.updates(3)] == ["generator", "pretrain", "discriminator"]
    alone = small_run("seqgan", tmp_path / "b", steps=4, interleave_lr=0.0, **options).recipe
    assert [u.optimizer for u in alone.updates(3)] == ["generator", "discriminator"]


def test_a_run_shows_sentences_and_figures_over_time(corpus, tmp_path, capsys):
    folder = tmp_path / "run"
    sizes = "--embedding 8 --hidden 8 --batch-size 8 --filters 0.02 --rollouts 2 --discriminator-steps 1"
    phases = "--pretrain 4 --discriminator-pretrain 2 --steps 8"
    every = "--sample-every 4 --metrics-every 4 --metrics-samples 20 --samples 5 --device cpu"
    command = f"train seqgan --data {corpus} --out {folder} {sizes} {phases} {every}"
    assert main(command.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    texts = [(folder / "samples" / f"step-0000000{step}.txt").read_text().splitlines() for step in (0, 4, 8)]
    for shown in texts:
        at = printed.index(f"  {shown[0]}")
        assert printed[at : at + 3] == [f"  {text}" for text in shown[:3]]
    assert [line.split()[1:3] for line in printed if "bleu-2" in line] == [["4:", "nll-test"], ["8:", "nll-test"]]
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "self-bleu-5/value" in row]
    assert [row["step"] for row in rows] == [4, 8]
    report = (folder / "report.html").read_text()
    assert main(["sample", str(folder), "--seeds", "3,1"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [texts[-1][3], texts[-1][1]]
    assert all("".join(f"<li>{html.escape(line)}</li>" for line in shown) in report for shown in texts)
    for family in ("nll", "bleu", "self-bleu", "distinct"):
        assert f'"title": "{family}"' in report


def test_a_text_run_samples_and_measures_often_by_default():
    defaults = RunConfig(**recipes.get("seqgan").run_defaults)
    assert defaults.data == "tang-quatrains"
    assert 0 < defaults.metrics_every <= 100
    assert defaults.sample_every <= 100
