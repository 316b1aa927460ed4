"""`fastgan info`: always exit code 0, every op named, and the reason where a kernel is not loaded."""

import os
import subprocess
import sys

import fastgan.ops


def info(**environment) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", "info"], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_every_op_and_version():
    text = info()
    for name in (
        *fastgan.ops.available(),
        "torch ",
        "CPU ",
        "GPU ",
        "fastgan._C ",
        "fastgan._C_cuda ",
        "fastgan._text ",
    ):
        assert name in text


def test_says_why_a_kernel_is_missing():
    text = info(FASTGAN_DISABLE_EXT="1")
    assert "not loaded: FASTGAN_DISABLE_EXT=1" in text
    (line,) = [line for line in text.splitlines() if line.startswith("cpp not loaded for ")]
    assert "bias_act" in line and line.endswith("FASTGAN_DISABLE_EXT=1")


def test_a_lower_level_can_be_asked_for():
    assert "level portable" in info(FASTGAN_CPU_LEVEL="portable")


def test_a_reader_that_leaves_gets_no_traceback():
    command = [sys.executable, "-m", "fastgan", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1
