"""One run killed 20 times and one left alone; prints what was seen as JSON. Each attempt is a fork of this process, which
has the imports behind it.

python tests/training/killed_runs.py DATA OUT
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import fastgan.data
from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer

KILLS, STEPS, EVERY = 20, 300, 5
CONFIG = GAN.Config(steps=STEPS, batch_size=8, units=(16, 8), latent=4)


class Reporting(GAN):
    """Writes the number of each step that it begins to a file descriptor."""

    pipe = -1

    def updates(self, step):
        os.write(self.pipe, f"{step}\n".encode())
        return super().updates(step)


def attempt(data: str, out: Path, resume: bool) -> tuple[int, int]:
    """Start, or continue, the run in a process of its own; (its id, where its steps can be read)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                Reporting.pipe = writer
                run = RunConfig(
                    out=str(out), device="cpu", samples=4, checkpoint_every=EVERY, sample_every=STEPS, resume=resume
                )
                Trainer(Reporting, CONFIG, run, dataset=fastgan.data.load(data)).train()
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return child, reader


def finish(child: int, reader: int) -> list[int]:
    """Wait for its end; the steps it began."""
    with open(reader) as pipe:
        steps = [int(line) for line in pipe if line.endswith("\n")]
    return [os.waitpid(child, 0)[1], *steps]


def main(data: str, out: Path) -> dict:
    draw = random.Random(0)
    kills, writing = [], 0
    for kill in range(KILLS):
        child, reader = attempt(data, out / "killed", resume=(out / "killed/config.json").exists())
        folder = out / "killed/checkpoints"
        began = b""
        wanted = draw.randrange(1, 15)
        while began.count(b"\n") < wanted:
            more = os.read(reader, 4096)
            assert more, "the run ended by itself"
            began += more
        if kill % 2:  # during a checkpoint's write; else wherever the run happens to be
            end = time.monotonic() + 5
            while not list(folder.glob(".tmp-*")) and time.monotonic() < end:
                pass
        else:
            time.sleep(draw.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        status, *rest = finish(child, reader)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        steps = [*map(int, began.split()), *rest]
        writing += bool(list(folder.glob(".tmp-*")))
        kills.append((steps[0], steps[-1]))
    status, *steps = finish(*attempt(data, out / "killed", resume=True))
    kills.append((steps[0], steps[-1]))
    assert status == 0
    assert finish(*attempt(data, out / "alone", resume=False))[0] == 0
    return {"attempts": kills, "writing": writing}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
