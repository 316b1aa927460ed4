"""What a prompt shows: the names there are, and objects that say in few lines what they are."""

import importlib
import subprocess
import sys

import pytest
import torch

import fastgan
from fastgan.data.text import load_text
from fastgan.fields import brief
from fastgan.metrics import fid, images

LAZY = ("fastgan", "fastgan.metrics", "fastgan.models", "fastgan.training")


@pytest.mark.parametrize("name", LAZY)
def test_dir_shows_what_there_is_before_it_is_loaded(name):
    code = f"import {name} as m; names = set(dir(m)); print(sorted(n for n in getattr(m, '__all__', []) if n not in names))"
    code += "; print('run' in names, 'accelerate' in names, 'stylegan3' in names, 'Trainer' in names, 'prdc' in names)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = {"fastgan": "True True False False False", "fastgan.metrics": "False False False False True"}
    here |= {"fastgan.models": "False False True False False", "fastgan.training": "False False False True False"}
    assert done.stdout.splitlines() == ["[]", here[name]]


@pytest.mark.parametrize("name", LAZY)
def test_every_name_can_be_had(name):
    module = importlib.import_module(name)
    for public in dir(module):
        assert getattr(module, public) is not None or public.startswith("__")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("name", fastgan.models.list_models())
def test_networks(name):
    with torch.device("meta"):
        network = fastgan.models.network_class(name)
        network = network(network.Config())
    first, *parts = repr(network).splitlines()
    assert first.endswith(f": {sum(p.numel() for p in network.parameters()):,} parameters") and len(parts) < 12
    assert [line.split(":")[0].strip() for line in parts] == [part for part, _ in network.named_children()]


def test_a_network_says_which_options_it_has():
    with torch.device("meta"):
        network = fastgan.models.build("dcgan", resolution=64, width=8)
    assert repr(network).startswith("dcgan.Generator(") and "width=8" in repr(network).splitlines()[0]
    assert "(0): Up()" in torch.nn.Module.__repr__(network)  # the whole is there for who wants it


def test_data_and_reports():
    assert repr(fastgan.data.load_pair("emoji:google", "emoji:twitter")).startswith("PairDataset(3781 pairs of Image")
    assert "3395 sentences" in repr(load_text("tang-quatrains")) and "tensor" not in repr(load_text("tang-quatrains"))
    found = images.Features(fid.Statistics(3), torch.zeros(5, 3), torch.zeros(5, 0))
    assert repr(found) == "Features(Statistics of 0 rows of 3 features, 5 kept, 0 class logits)"


def test_a_trainer_and_what_it_has(tmp_path):
    kind = fastgan.recipes.get("mle")
    config = kind.Config(steps=1, batch_size=2)
    text = tmp_path / "a.txt"
    text.write_text("".join(f"a b{i % 3} c{i}\n" for i in range(30)))
    run = fastgan.training.run_options(kind)(data=str(text), out=str(tmp_path / "r"), device="cpu")
    trainer = fastgan.training.Trainer(kind, config, run)
    assert repr(trainer) == f"Trainer({str(tmp_path / 'r')!r}: mle on {text}, step 0 of 1, on cpu)"
    assert repr(trainer.ema).startswith("EMA of generator, half-life ") and brief(config) in repr(trainer.recipe)
    folder = trainer.train()
    checkpoint = repr(fastgan.training.load_checkpoint(folder))
    assert "step 1, " in checkpoint and checkpoint.endswith(" MiB)") and "tensor(" not in checkpoint
