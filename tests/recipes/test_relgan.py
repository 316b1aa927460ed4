import pytest
import torch
from tolerances import assert_close

from fastgan.losses.adversarial import ragan
from fastgan.recipes.relgan import SCHEDULES, RelGAN, RelGANConfig
from fastgan.training.log import read_metrics

SMALL = {"pretrain": 3, "steps": 8, "filters": 0.02, "representations": 4, "discriminator_steps": 2}


@pytest.mark.parametrize("name", SCHEDULES)
def test_temperature_schedules(name):
    schedule, share = SCHEDULES[name], [i / 50 for i in range(51)]
    values = [schedule(100.0, t) for t in share]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(100, rel=0.01)
    assert values[0] == pytest.approx({"constant": 100}.get(name, 1), rel=0.7)
    assert schedule(100.0, 0.5) == pytest.approx(
        {"exponential": 10, "linear": 50.5, "quadratic": 25.75, "sqrt": 71, "sigmoid": 50.5, "constant": 100}[name],
        rel=0.01,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"discriminator": "lstm", "penalty": 10.0, "schedule": "linear"},
        {"penalty": 1.0, "loss": "hinge", "generator": "lstm"},
        {"loss": "ragan", "generator": "transformer"},
    ],
    ids=str,
)
def test_runs_pretraining_then_both_networks(small_run, tmp_path, options):
    trainer = small_run("relgan", tmp_path / "run", **SMALL | options)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    phases = [{key.split("/")[0] for key in row if key.endswith("/loss")} for row in rows]
    assert phases == [{"pretrain"}] * 3 + [{"generator", "discriminator"}] * 5
    assert ("discriminator/penalty" in rows[-1]) == bool(options.get("penalty"))
    beta = [row["generator/inverse_temperature"] for row in rows[3:]]
    assert beta[0] == pytest.approx(1)
    assert beta[-1] == pytest.approx(100)
    assert all(row["generator/gradient"] > 0 for row in rows[3:])
    assert len(trainer.recipe.sample(trainer.ema.networks, [0, 1])) == 2


@pytest.mark.parametrize("discriminator", ["cnn", "lstm"])
def test_the_penalty_trains_the_discriminator_and_flattens_it(discriminator):
    """Minimising the penalty alone, through a second derivative, brings the input gradient down."""
    torch.manual_seed(0)
    data = {"name": "x", "vocabulary_size": 9, "length": 6, "start": 0, "end": None, "pad": None, "vocabulary": None}
    config = RelGANConfig(discriminator=discriminator, filters=0.05, representations=4, hidden=8, penalty=1.0)
    recipe = RelGAN(config, data)
    optimizer = torch.optim.Adam(recipe.discriminator.parameters(), lr=0.01)
    recipe.generator.requires_grad_(False)
    batch = type("Batch", (), {"size": 16, "real": torch.randint(9, (16, 6))})
    sizes = []
    for _ in range(40):
        optimizer.zero_grad()
        penalty = recipe.d_step(batch)["penalty"]
        penalty.backward()
        optimizer.step()
        sizes.append(penalty.item())
    assert sizes[-1] < 0.3 * sizes[0]


def test_means_of_the_batch_are_those_of_all_processes(small_run, tmp_path, monkeypatch):
    """Each of two processes has half of the logits; the mean over them of its loss is the loss of all."""
    recipe = small_run("relgan", tmp_path / "a", steps=1, pretrain=0, loss="ragan", filters=0.02).recipe
    real, fake = torch.randn(2, 6, 3)
    monkeypatch.setattr(recipe.generator, "sample_soft", lambda *given: ("fake", None), raising=False)
    losses = {"d": [], "g": []}
    for part in (slice(0, None, 2), slice(1, None, 2)):
        held = {"real": real[part], "fake": fake[part]}
        recipe.networks["discriminator"].forward = held.__getitem__

        def gather(x, held=held):
            return real if x is held["real"] else fake

        batch = type("Batch", (), {"size": 3, "real": "real", "gather": staticmethod(gather)})
        losses["d"].append(recipe.d_step(batch)["loss"])
        losses["g"].append(recipe.g_step(batch)["loss"])
    assert_close(sum(losses["d"]) / 2, ragan.d_loss(real, fake).mean())
    assert_close(sum(losses["g"]) / 2, ragan.g_loss(real, fake).mean())
