"""torchrun --max-restarts: a worker that is killed, a host that is cut off; the run goes on from its last checkpoint."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastgan.training import load_checkpoint

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "2"]
LENGTH = ["--steps", "200", "--checkpoint-every", "20", "--sample-every", "200", "--timeout", "4"]


def start(argv, tmp_path, name, **environment):
    with open(tmp_path / f"{name}.log", "w") as log:
        return subprocess.Popen(
            argv,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            start_new_session=True,
        )


def wait_for_step(out, step, processes, seconds=90):
    end = time.monotonic() + seconds
    while not list(out.glob(f"checkpoints/step-{step:08d}*")):
        assert all(p.poll() is None for p in processes) and time.monotonic() < end
        time.sleep(0.01)


def workers(agent: int) -> dict[int, int]:
    """Process ids of an agent's workers, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(re.search(r"PPid:\s*(\d+)", (folder / "status").read_text())[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, TypeError):
            continue
        rank = [int(v[5:]) for v in variables if v.startswith(b"RANK=")]
        if parent == agent and rank:
            found[rank[0]] = int(folder.name)
    return found


def whole_run(out: Path, length: int) -> None:
    assert load_checkpoint(out).step == length
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").open()] == list(range(10, length + 1, 10))


def test_a_killed_worker_is_started_again(tmp_path, command):
    out = tmp_path / "run"
    launch = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *command[1:], *LENGTH, "--out", str(out)]
    agent = start(launch, tmp_path, "agent")
    try:
        wait_for_step(out, 40, [agent])
        os.kill(workers(agent.pid)[0], signal.SIGKILL)  # the one that writes
        assert agent.wait(timeout=90) == 0, (tmp_path / "agent.log").read_text()
    finally:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGKILL)
    resumed = re.findall(r"resuming .* at step (\d+)", (tmp_path / "agent.log").read_text())
    assert len(resumed) == 1 and int(resumed[0]) >= 20
    whole_run(out, 200)


def test_who_is_early_after_a_restart_waits_for_the_living(tmp_path):
    """torchrun's store still holds what the first attempt wrote."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, pathlib, time, torch\n"
        "from fastgan.training.distributed import all_reduce, join\n"
        "again, late = os.environ['TORCHELASTIC_RESTART_COUNT'] != '0', os.environ['RANK'] == '0'\n"
        "time.sleep(3 * (again and late))\n"
        "world = join('cpu', timeout=30)\n"
        "total = all_reduce(torch.ones(1)).item()\n"
        "assert again, 'the first attempt ends here'\n"
        f"(pathlib.Path({str(tmp_path)!r}) / os.environ['RANK']).write_text(str(total))\n"
        "world.close()\n"
    )
    agent = start([*TORCHRUN, "--standalone", "--nproc-per-node", "2", str(worker)], tmp_path, "agent")
    try:
        assert agent.wait(timeout=90) == 0, (tmp_path / "agent.log").read_text()
    finally:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGKILL)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2.0", "2.0"]


def ip(*argv, check=True):
    done = subprocess.run(["ip", *argv], capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.fixture
def hosts():
    """Two network namespaces joined by a cable: (names, addresses), the cable's ends called `cable`."""
    names = [f"fastgan-{os.getpid()}-{i}" for i in range(2)]
    try:
        made = ip("netns", "add", names[0], check=False)
    except FileNotFoundError:
        pytest.skip("no `ip` program here (Debian: iproute2)")
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for i, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.77.0.{i + 1}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
        yield names, ["10.77.0.1", "10.77.0.2"]
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)


def test_two_hosts_one_of_them_cut_off_and_brought_back(hosts, tmp_path, command):
    names, addresses = hosts
    out = tmp_path / "run"
    agents = []
    try:
        for i, (name, address) in enumerate(zip(names, addresses, strict=True)):
            meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{addresses[0]}:29400", "--rdzv-id", "1"]
            launch = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--local-addr", address, *meet]
            launch += ["--rdzv-conf", f"is_host={int(i == 0)},last_call_timeout=1", *command[1:], *LENGTH]
            inside = ["ip", "netns", "exec", name, *launch, "--out", str(out)]
            agents.append(start(inside, tmp_path, f"host{i}", GLOO_SOCKET_IFNAME="cable"))
        wait_for_step(out, 40, agents)
        ip("-n", names[1], "link", "set", "cable", "down")
        cut = time.monotonic()
        while "cannot be reached" not in (tmp_path / "host0.log").read_text():  # --timeout 4
            assert time.monotonic() < cut + 30
            time.sleep(0.1)
        ip("-n", names[1], "link", "set", "cable", "up")
        for agent in agents:
            agent.wait(timeout=90)
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    logs = "".join((tmp_path / f"host{i}.log").read_text() for i in range(2))
    assert [agent.returncode for agent in agents] == [0, 0], logs
    assert "fastgan train: step " in logs and "another process has died or cannot be reached" in logs
    assert re.search(r"resuming .* at step \d+", logs)
    whole_run(out, 200)
