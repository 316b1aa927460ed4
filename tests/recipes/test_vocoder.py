"""The vocoder: it learns, resumes bit for bit, trains alike on two processes, is measured, and speaks what it is given."""

import json

import numpy as np
import pytest
import torch

from fastgan import recipes, vocoding
from fastgan.cli import main
from fastgan.data import Recordings, load_recordings, load_signals
from fastgan.data.wav import decode, write_wav
from fastgan.metrics import speech
from fastgan.nn import MelSpectrogram
from fastgan.training import RunConfig, Trainer
from fastgan.training.batch import Batch
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.distributed import World

SMALL = {"batch_size": 2, "judge": 0.03, "warmup": 1, "ema_halflife": 0.0}


@pytest.fixture
def sounds(tmp_path):
    """Eleven recordings of 8 kHz: one is held out."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(11):
        x = 0.4 * np.sin(np.arange(8000 + 900 * i) * 0.03 * (i + 1)) + 0.1 * np.sin(np.arange(8000 + 900 * i) * 0.5)
        write_wav(folder / f"{i:02d}.wav", x[None], 8000)
    return folder


def trainer(sounds, out, *, resume=False, every=100, **options):
    recipe = recipes.get("vocoder")
    run = RunConfig(
        data=str(sounds), out=str(out), resume=resume, samples=2, log_every=1, checkpoint_every=every, device="cpu"
    )
    return Trainer(recipe, recipe.Config(**SMALL | options), run)


def tensors(folder):
    return load_checkpoint(folder / "checkpoints").tensors


@pytest.mark.parametrize("second", ["scales", "resolutions", "spectra"])  # constant-q: of higher rates
def test_it_resumes_bit_for_bit(second, sounds, tmp_path):
    whole = trainer(sounds, tmp_path / "whole", steps=3, second=second, clip=100.0, lr_decay=0.9)
    whole.train()
    trainer(sounds, tmp_path / "parts", steps=2, every=2, second=second, clip=100.0, lr_decay=0.9).train()
    trainer(sounds, tmp_path / "parts", resume=True, steps=3, second=second, clip=100.0, lr_decay=0.9).train()
    a, b = (tensors(tmp_path / name) for name in ("whole", "parts"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert (tmp_path / "whole" / "samples" / "step-00000003.wav").is_file()
    assert "audio/wav" in (tmp_path / "whole" / "report.html").read_text()


@pytest.mark.parametrize(("generator", "second"), [("tiny", "resolutions"), ("hifigan-v2", "spectra")])
def test_in_16_bits(generator, second, sounds, tmp_path):
    recipe = recipes.get("vocoder")
    run = RunConfig(data=str(sounds), out=str(tmp_path / "run"), precision="bf16", samples=1, device="cpu")
    options = SMALL | dict(generator=generator, second=second, steps=1, warmup=0, batch_size=1, high=None)
    made = Trainer(recipe, recipe.Config(**options), run)
    made.train()
    assert all(p.dtype == torch.float32 for p in made.recipe.generator.parameters())


@pytest.mark.parametrize("generator", ["hifigan-v2", "hifigan-v3", "bigvgan-base"])
def test_networks_of_the_papers_are_built(generator):
    recipe = recipes.get("vocoder")
    facts = dict(name="x", rate=16000, channels=1, length=8192, num_classes=0, class_names=[])
    with torch.device("meta"):
        made = recipe(recipe.Config(generator=generator), facts)
        assert made.generator(torch.zeros(1, 80, 32)).shape == (1, 1, 8192)
        assert made.analysis.mel.hop == 256


@pytest.mark.parametrize(("name", "hop", "count"), [("24khz", 256, 112_446_289), ("44khz", 512, 122_184_529)])
def test_the_networks_of_bigvgan_v2(name, hop, count):
    recipe = recipes.get("vocoder")
    options = dict(recipe.presets[f"bigvgan-v2-{name}"].options)
    rate, length = options.pop("rate"), options.pop("length")
    with torch.device("meta"):
        facts = dict(name="x", rate=rate, channels=1, length=length, num_classes=0, class_names=[])
        made = recipe(recipe.Config(**options), facts)
    assert made.generator.hop == made.analysis.mel.hop == hop
    assert sum(p.numel() for p in made.generator.parameters()) == count


def test_two_processes_draw_what_one_with_both_batches_draws(sounds):
    """Their losses' mean, and that of their gradients, is the whole batch's."""
    data = load_recordings(sounds)
    recipe = recipes.get("vocoder")
    torch.manual_seed(0)
    made = recipe(recipe.Config(**SMALL), recipe.describe(data))
    made.updates(5)
    windows = torch.stack([data[i][0] for i in range(4)])
    worlds = [World(rank, 2, torch.device("cpu")) for rank in range(2)]
    parts = [Batch((windows[rank::2],), world, 0, 7, 0, 1) for rank, world in enumerate(worlds)]
    whole = Batch((windows,), World(0, 1, torch.device("cpu")), 0, 7, 0, 1)
    for step in (made.g_step, made.d_step):
        values = []
        for batch in (whole, *parts):
            values.append(step(batch)["loss"])
            batch._carried |= batch.keeps
        assert torch.allclose(values[0], (values[1] + values[2]) / 2, rtol=1e-5)


def test_the_default_learns_the_pitch(sounds):
    """By a loss of its own: no gradient of the signal reaches it."""
    data, recipe = load_recordings(sounds), recipes.get("vocoder")
    made = recipe(recipe.Config(**SMALL), recipe.describe(data))
    made.updates(0)
    batch = Batch((torch.stack([data[i][0] for i in range(2)]),), World(0, 1, torch.device("cpu")), 0, 7, 0, 1)
    found = made.g_step(batch)
    pitch, others = list(made.generator.pitch.parameters()), [made.generator.head.weight]
    by_pitch = torch.autograd.grad(found["pitch"], pitch + others, retain_graph=True, allow_unused=True)
    by_mel = torch.autograd.grad(found["mel"], pitch + others, allow_unused=True)
    assert all(g.abs().max() > 0 for g in (*by_pitch[:-1], by_mel[-1]))
    assert by_pitch[-1] is None and all(g is None for g in by_mel[:-1])


def test_the_gradients_are_cut_by_network(sounds):
    data = load_recordings(sounds)
    recipe = recipes.get("vocoder")
    made = recipe(recipe.Config(**SMALL, clip=1.5), recipe.describe(data))
    for network in (made.periods, made.second):
        for p in network.parameters():
            p.grad = torch.ones_like(p)
    made.optimizers["discriminator"].step()
    for network in (made.periods, made.second):
        assert torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]).item() == pytest.approx(1.5, 1e-4)


@pytest.mark.slow
def test_it_learns(tmp_path):
    """Held-out speech of a few dozen steps is nearer to the recordings than that of one."""
    recipe = recipes.get("vocoder")
    names = ["mel-l1", "stft"]

    def measured(steps):
        run = RunConfig(data="speech", out=str(tmp_path / str(steps)), samples=2, device="cpu")
        made = Trainer(recipe, recipe.Config(steps=steps, ema_halflife=0.0), run)
        made.train()
        return made.recipe.evaluate(made.ema.networks, vars(run), 3, metrics=names)["vocoder"]

    before, after = measured(1), measured(60)
    assert (
        after["mel-l1"] < 0.93 * before["mel-l1"] and after["stft"] < before["stft"]
    )  # it begins near: filters are as the bands


def test_measured_and_sampled(sounds, tmp_path, capsys):
    folder = trainer(sounds, tmp_path / "run", steps=1).train()
    assert main(["eval", str(folder), "--samples", "4", "--metrics", "mel-l1,stft,voicing,fd-mel"]) == 0
    columns = json.loads((folder / "metrics.json").read_text())
    held_out = len(load_recordings(sounds, length=2048).held_out)
    assert columns["samples"] == held_out < 4  # not as many as were asked for
    for column in ("vocoder", "Griffin-Lim"):
        assert {"mel-l1", "stft", "periodicity", "voicing", "fd-mel"} <= columns[column].keys()
    assert columns["Griffin-Lim"]["mel-l1"] < columns["vocoder"]["mel-l1"]
    assert main(["sample", str(folder), "--input", str(sounds), "--out", str(tmp_path / "out")]) == 0
    for path in sorted(sounds.iterdir()):
        made, rate = decode((tmp_path / "out" / path.name).read_bytes(), ".wav")
        assert rate == 8000 and made.shape == decode(path.read_bytes(), ".wav")[0].shape
    assert main(["sample", str(folder), "--input", str(sounds), "--out", str(tmp_path / "out")]) == 1
    assert "already holds 00.wav" in capsys.readouterr().err
    assert main(["sample", str(folder), "--input", str(tmp_path / "nowhere")]) == 1
    assert "expected recordings" in capsys.readouterr().err
    recipe, networks = recipes.load_run(folder)
    x = torch.from_numpy(decode((sounds / "03.wav").read_bytes(), ".wav")[0])
    mel = recipe.heard(networks)(x[:, : x.shape[1] // 256 * 256])
    np.save(tmp_path / "heard.npy", mel.numpy())
    assert main(["sample", str(folder), "--mel", str(tmp_path / "heard.npy"), "--out", str(tmp_path / "said.wav")]) == 0
    said, _ = decode((tmp_path / "said.wav").read_bytes(), ".wav")
    with torch.no_grad():
        expected = networks["generator"](mel)[0, 0]
    assert np.abs(said[0] - expected.numpy()).max() < 2 / 32768
    for array, message in (
        (np.zeros((79, 4), np.float32), "expected floating [80, frames]"),
        (np.full((80, 4), np.nan, np.float32), "not finite"),
        (np.zeros((80, 4), np.int16), "int16"),
        (np.full((80, 4), 1e300), "not finite in float32"),
    ):
        np.save(tmp_path / "wrong.npy", array)
        assert main(["sample", str(folder), "--mel", str(tmp_path / "wrong.npy")]) == 1
        assert message in capsys.readouterr().err
    with open(tmp_path / "wrong.npy", "wb") as file:
        np.savez(file, mel=mel.numpy())
    assert main(["sample", str(folder), "--mel", str(tmp_path / "wrong.npy")]) == 1
    assert "a zip of arrays, expected one array" in capsys.readouterr().err
    np.save(tmp_path / "big-endian.npy", mel.numpy().astype(">f4"))
    big = ["--mel", str(tmp_path / "big-endian.npy"), "--out", str(tmp_path / "big-endian.wav")]
    assert main(["sample", str(folder), *big]) == 0
    assert (tmp_path / "big-endian.wav").read_bytes() == (tmp_path / "said.wav").read_bytes()
    # A seed's file holds that seed's example, whatever other seeds are asked for.
    for seeds in ("3,11,4", "4"):
        out = tmp_path / f"of {seeds}"
        assert main(["sample", str(folder), "--separate", "--seeds", seeds, "--out", str(out)]) == 0
    files = [tmp_path / "of 3,11,4" / f"seed00{n}.wav" for n in ("03", "11", "04")] + [
        tmp_path / "of 4" / "seed0004.wav"
    ]
    three, eleven, four, alone = (decode(file.read_bytes(), ".wav")[0] for file in files)
    assert np.abs(three - eleven).max() < 2 / 32768 and np.abs(four - alone).max() < 2 / 32768
    # Recordings that it cannot read are named.
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, content in (("a.wav", b"RIFF"), ("b.flac", b"fLaC")):
        (broken / name).write_bytes(content)
        capsys.readouterr()
        assert main(["sample", str(folder), "--input", str(broken), "--out", str(tmp_path / "no")]) == 1
        said = capsys.readouterr().err
        assert f"{broken}/{name}: " in said and "traceback" not in said
        (broken / name).unlink()


def test_other_recordings_are_measured_at_the_runs_rate(sounds, tmp_path, monkeypatch):
    folder = trainer(sounds, tmp_path / "run", steps=1).train()
    twice = tmp_path / "twice"
    twice.mkdir()
    for i in range(2):
        write_wav(twice / f"{i}.wav", 0.4 * np.sin(np.arange(32000) * 0.1 * (i + 1))[None], 16000)
    lengths = []
    monkeypatch.setattr(speech, "mel_l1", lambda made, recorded, mel: lengths.extend(map(len, recorded)) or 0.0)
    assert main(["eval", str(folder), "--data", str(twice), "--metrics", "mel-l1", "--device", "cpu"]) == 0
    assert set(lengths) == {16000 // 256 * 256}


@pytest.mark.parametrize("length", [1, 255, 1024, 5000, 512 * 256 + 77])
def test_a_recording_in_pieces_is_the_recording_whole(length):
    recipe = recipes.get("vocoder")
    facts = dict(name="x", rate=16000, channels=1, length=8192, num_classes=0, class_names=[])
    made = recipe(recipe.Config(), facts)
    x = 0.3 * torch.randn(length)
    found = list(vocoding.resynthesise(made.generator, made.analysis.mel, x))
    padded = torch.nn.functional.pad(x, (0, max(1024, -(-length // 256) * 256) - length))
    with torch.no_grad():
        whole = made.generator(made.analysis.mel(padded[None]))[0, 0, :length]
    assert torch.allclose(torch.cat(found), whole, atol=2e-5)
    pieces = vocoding.resynthesise(made.generator, made.analysis.mel, x)
    next(pieces)
    assert torch.is_grad_enabled()  # between two pieces too


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(length=8000), "length is 8000, expected a multiple of 256"),
        (dict(length=1024), "at least 2048"),
        (dict(rate=8000, channels=2), "hears one"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message, sounds):
    recipe = recipes.get("vocoder")
    with pytest.raises(ValueError, match=message):
        recipe(recipe.Config(), recipe.describe(recipe.load_data(str(sounds), recipe.Config(), **options)))


def test_other_data_are_refused():
    recipe = recipes.get("vocoder")
    with pytest.raises(ValueError, match="expected Recordings, got Tensor"):
        recipe.describe(torch.zeros(3))


def test_recordings(sounds, tmp_path):
    data = load_recordings(sounds, length=4096)
    assert (len(data.recordings), data.held_out_files, data.rate) == (10, ["09.wav"], 8000)
    for i in range(len(data)):
        (window,) = data[i]
        assert window.shape == (1, 8192) and window.abs().max() > 0
    resampled = load_recordings(sounds, rate=16000)
    assert resampled.rate == 16000 and len(resampled.recordings[0]) == 2 * len(data.recordings[0])
    for part in ("train", "test"):
        (tmp_path / "parts" / part).mkdir(parents=True)
    for i, path in enumerate(sorted(sounds.iterdir())):
        path.rename(tmp_path / "parts" / ("test" if i < 3 else "train") / path.name)
    parts = load_recordings(tmp_path / "parts")
    assert (len(parts.recordings), len(parts.held_out)) == (8, 3)
    with pytest.raises(ValueError, match="split is 'val'"):
        load_recordings(tmp_path / "parts", split="val")
    with pytest.raises(FileNotFoundError, match="expected speech, or a folder"):
        load_recordings(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected float32"):
        Recordings([torch.zeros(3, dtype=torch.float64)], 8000, 100, name="x")


def test_damaged_and_mixed_recordings(sounds):
    (sounds / "05.wav").write_bytes(b"RIFF")
    with pytest.warns(UserWarning, match=r"05\.wav"):
        assert len(load_recordings(sounds).recordings) == 9
    with pytest.raises(ValueError, match=r"05\.wav"):
        load_recordings(sounds, strict=True)
    (sounds / "05.wav").unlink()
    write_wav(sounds / "00.wav", np.zeros((1, 9000)), 11025)
    with pytest.raises(ValueError, match="give rate="):
        load_recordings(sounds)


def test_the_embedded_speech_as_signals():
    whole = load_signals("speech", length=16000)
    train, test = (load_signals("speech", length=16000, split=split) for split in ("train", "test"))
    assert len(whole) == len(train) + len(test) and whole.rate == 16000 and len(set(test.files)) == 7
    with pytest.raises(ValueError, match="split is 'dev'"):
        load_signals("speech", length=16000, split="dev")


def test_griffin_lim_keeps_the_mel_spectrogram():
    clip = load_recordings("speech").held_out[1][: 16000 // 256 * 256]
    mel = MelSpectrogram(16000)
    heard = mel(clip[None])
    few, many = (speech.griffin_lim(heard, mel, n)[0] for n in (0, 16))
    assert many.shape == clip.shape
    assert speech.mel_l1([many], [clip], mel) < 0.5 * speech.mel_l1([few], [clip], mel)
