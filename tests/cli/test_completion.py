"""What the shells offer at the Tab key: the scripts are run by the shells themselves, where these are installed."""

import os
import re
import shutil
import subprocess

import pytest

from fastgan.cli import COMMANDS, main
from fastgan.cli.completion import SHELLS


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """By shell."""
    import contextlib
    import io

    made = {}
    for shell in SHELLS:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(["completion", shell]) == 0
        made[shell] = tmp_path_factory.mktemp("completion") / shell
        made[shell].write_text(said.getvalue())
    return made


ASKED = [  # what stands on the line, what is offered, what is not
    ("fastgan ", ["train", "sample", "completion", "--version"], ["dcgan"]),
    ("fastgan tr", ["train"], ["sample"]),
    ("fastgan train ", ["dcgan", "r3gan", "mle"], ["train", "--steps"]),
    ("fastgan train r3", ["r3gan"], ["relgan"]),
    ("fastgan train dcgan --st", ["--steps", "--strict"], ["--seed"]),
    ("fastgan train dcgan --no-st", ["--no-strict"], ["--strict"]),
    ("fastgan train mle --", ["--config", "--help", "--steps"], ["--resolution", "--preset"]),
    ("fastgan train dcgan --preset ", ["paper"], ["--steps"]),
    ("fastgan train dcgan --data fa", ["fashion-mnist"], ["emoji"]),
    ("fastgan train dcgan --crop s", ["stretch"], ["center"]),
    ("fastgan sample ru", ["runs"], ["train"]),
    ("fastgan sample runs --trunc", ["--truncation"], ["--run"]),
    ("fastgan data ", ["list", "prepare"], ["train"]),
    ("fastgan data prepare --res", ["--resolution"], ["--bits"]),
    ("fastgan completion z", ["zsh"], ["fish"]),
]


@pytest.mark.parametrize(("line", "offered", "others"), ASKED)
def test_bash(scripts, tmp_path, line, offered, others):
    (tmp_path / "runs").mkdir()
    words = line.split(" ")
    code = f"""source {scripts["bash"]}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
_fastgan
printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "--norc", "-uc", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = done.stdout.split()
    assert set(offered) <= set(found) and not set(others) & set(found)
    assert all(word.startswith(words[-1]) for word in found)


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
@pytest.mark.parametrize(("line", "offered", "others"), ASKED)
def test_fish(scripts, tmp_path, line, offered, others):
    (tmp_path / "runs").mkdir()
    code = f"source {scripts['fish']}; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = {word.partition("\t")[0].rstrip("/") for word in done.stdout.splitlines()}
    assert set(offered) <= found and not set(others) & found


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_reads_the_script(scripts, tmp_path):
    code = f"source {scripts['zsh']}; whence -w _fastgan; echo $_comps[fastgan]"
    done = subprocess.run(
        ["zsh", "-fc", code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert "_fastgan: function" in done.stdout and "-F _fastgan" in done.stdout and not done.stderr, done


def test_every_command_and_only_names_that_need_no_quotes(scripts):
    """What stands between double quotes in the scripts is taken as it is by all three."""
    for shell, script in scripts.items():
        words = re.findall(r'"([^"\n]*)" ?;?;?$', script.read_text(), re.M) if shell == "bash" else []
        assert all(re.fullmatch(r"[\w:./+ -]*", text) for text in words if "$" not in text), words
    assert re.search(rf'"" *\) words="{" ".join(COMMANDS)} --help --version"', scripts["bash"].read_text())


def test_what_is_no_shell(capsys):
    assert main(["completion", "csh"]) == 2 and "bash, zsh, fish" in capsys.readouterr().err
    assert main(["completion"]) == 2 and "fastgan completion bash >" in capsys.readouterr().out
