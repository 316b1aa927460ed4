"""How options are read, and how errors speak of them."""

import pytest

from fastgan.cli import main
from fastgan.cli.arguments import integer
from fastgan.cli.options import MOST_SEEDS, UsageError, as_options, seed_list
from fastgan.options import check_ranges


@pytest.mark.parametrize(("text", "value"), [("500", 500), ("1e4", 10_000), ("10_000", 10_000), ("-3", -3), ("2.0", 2)])
def test_whole_numbers(text, value):
    assert integer(text) == value and type(integer(text)) is int


@pytest.mark.parametrize("text", ["1.5", "nan", "inf", "1e-3", "1e999999999", "ten", "", "0x10"])
def test_no_whole_numbers(text):
    with pytest.raises(ValueError, match="not a whole number"):
        integer(text)


def test_seeds():
    assert seed_list("0-3,7, 9") == [0, 1, 2, 3, 7, 9]
    for text in ("", "a", "-1", "3-1", "1.5", "1-2-3", f"0-{MOST_SEEDS}", "0-99999999999999999", "9" * 30):
        with pytest.raises(UsageError, match=r"--mix is"):
            seed_list(text, "--mix")


def test_errors_speak_of_options(capsys):
    # What the command has read is what its errors may name.
    assert main(["train", "dcgan", "--data", "no-such-set", "--steps", "1e1"]) == 1
    for said, expected in {
        "images differ in size: give resolution=": "images differ in size: give --resolution",
        "give resolution=64, or crop='stretch'": "give --resolution 64, or --crop 'stretch'",
        "grad_accum is 3, expected a divisor of batch_size, 64": "--grad-accum is 3, expected a divisor of --batch-size, 64",
        "flip=True, not strict=False": "--flip, not --no-strict",
        "dcgan: resolution is 20": "dcgan: --resolution is 20",
        "give resolution=(96, 160) or f=(1, 2)": "give --resolution 96 160 or f=(1, 2)",
        "the data is damaged: /a/batch_size/resolution=3": "the data is damaged: /a/batch_size/resolution=3",
        "my_resolution is 3, num_classes=4": "my_resolution is 3, num_classes=4",
    }.items():
        assert as_options(said) == expected


NUMBERS = [
    ("seed", ["-1", "1180591620717411303424"]),
    ("steps", ["0", "-5", "1e20"]),
    ("batch-size", ["0", "1e9"]),
    ("ema-halflife", ["-1", "nan", "inf"]),
    ("timeout", ["0", "-1", "nan", "inf", "1e300"]),
    ("workers", ["0", "1e6"]),
    ("resolution", ["0", "-32", "1048576"]),
    ("grad-accum", ["0", "3"]),
    ("log-every", ["0"]),
    ("sample-every", ["0"]),
    ("checkpoint-every", ["-1"]),
    ("metrics-every", ["-1"]),
    ("metrics-samples", ["0"]),
    ("keep", ["0"]),
    ("samples", ["0", "1e9"]),
    ("lr", ["nan", "-1e-3", "inf"]),
    ("beta1", ["1", "-0.1"]),
    ("gamma", ["nan"]),
    ("width", ["0"]),
]


@pytest.mark.parametrize(("option", "values"), NUMBERS)
def test_every_number_is_checked_by_name(option, values, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for value in values:
        assert main(["train", "dcgan", f"--{option}", value, "--out", "r"]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"fastgan train: --{option} is ") and "expected" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_option_that_is_a_number_is_unchecked():
    from fastgan import recipes
    from fastgan.training import RunConfig

    for options in (RunConfig, *(recipes.get(name).Config for name in recipes.RECIPES)):
        check_ranges(options())
        for name, value in vars(options()).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if not numbers or type(numbers[0]) not in (int, float):
                continue
            for wrong in (float("nan"), -1):
                broken = options()
                setattr(broken, name, (wrong, *numbers[1:]) if isinstance(value, tuple) else wrong)
                with pytest.raises(ValueError, match=f"^{name} is .*, expected "):
                    check_ranges(broken)


def test_two_data_sets_for_a_recipe_of_one(capsys):
    assert main(["train", "dcgan", "--data", "emoji", "fashion-mnist"]) == 1
    assert "--data is ('emoji', 'fashion-mnist'), two data sets, and dcgan trains on one" in capsys.readouterr().err


def test_did_you_mean(capsys):
    for argv, meant in (
        (["tarin"], "train"),
        (["data", "prepaer"], "prepare"),
        (["train", "dgan"], "dcgan"),
        (["train", "dcgan", "--data", "emojy"], "emoji"),
        (["train", "mle", "--data", "tang-quatrain"], "tang-quatrains"),
    ):
        assert main(argv) != 0
        assert f"did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train", "dcgan"], ["sample", "somewhere"], ["eval", "somewhere"]])
def test_devices(command, capsys):
    for device in ("gpu", "cuda:x", "", "cpu:1"):
        assert main([*command, "--device", device]) == 1
        assert f"--device is {device!r}, expected auto, cpu, cuda or cuda:N" in capsys.readouterr().err
