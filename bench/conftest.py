"""The fixture every op bench uses: implementations interleaved in one run, compared before they are timed.

    pytest bench/                              every case, with the default and the tuned allocator
    pytest bench/ -k bias_act                  one op
    pytest bench/ --benchmark-disable          no timing: the correctness gates alone
    pytest bench/ --benchmark-json=bench.json  then: python bench/report.py bench.json --out bench.md
    pytest bench/ --device cuda                on a GPU, each case twice: "graph", replays of a CUDA graph, which is the time of
                                               the kernels alone (inputs that fit in the GPU's cache are read from there);
                                               "eager", with what the calls cost the CPU

Ratios are medians of the other over the median of fastgan: above 1, fastgan is faster.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from machine import Replay, processor, seconds_on_gpu

import fastgan
from fastgan.ops import conv_forms

BUDGET = 2.5  # seconds of measured time per case, over all implementations
# Seconds: a call that takes less is warmed up by WARM others; more, not at all, and measured three times. After a call of another
# implementation, one of 0.11 ms (upfirdn2d 8x3x128x128) takes 0.46, 0.26, 0.17, 0.14, 0.12 ms, and then 0.11.
QUICK, SLOW, WARM = 5e-3, 5.0, 8
ROWS, LOAD = pytest.StashKey[list](), pytest.StashKey[float]()


def pytest_addoption(parser):
    group = parser.getgroup("fastgan")
    group.addoption("--device", default="cpu", help="where the tensors live: cpu (default) or cuda")
    group.addoption("--threads", type=int, default=2, help="torch threads (default 2)")
    group.addoption(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that others use, --threads 1"
    )
    group.addoption(
        "--how", choices=["plain", "example", "freeze"], default="plain", help="bench_dropin.py: accelerate"
    )
    group.addoption("--peers", help="bench_serving: names with commas between; default: all but the compilers")
    group.addoption("--steady", action="store_true", help="bench_serving: without first images, a process for each")
    group.addoption("--files", help="bench_serving: a folder where exported networks stay")
    group.addoption("--allocator", choices=["both", "default", "tuned"], default="both", help="glibc settings on CPU")


def _machine(config) -> str:
    return torch.cuda.get_device_name() if config.getoption("--device") != "cpu" else processor()


def pytest_configure(config):
    config.stash[LOAD] = os.getloadavg()[0]


def pytest_benchmark_update_json(config, output_json):
    """What `report.py` says of the machine; pytest-benchmark's own facts do not tell one virtual machine from another."""
    output_json["fastgan"] = {
        "machine": _machine(config),
        "threads": config.getoption("--threads"),
        "clock": config.getoption("--clock"),
        "level": os.environ.get("FASTGAN_CPU_LEVEL"),
        "torch": torch.__version__,
        "commit": (output_json["commit_info"].get("id") or "unknown")[:9],
        "load": [round(config.stash[LOAD], 2), round(os.getloadavg()[0], 2)],
    }


def pytest_report_header(config):
    return f"bench: {_machine(config)}, {config.getoption('--threads')} threads, torch {torch.__version__}"


def pytest_generate_tests(metafunc):
    if "compare" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--allocator")
        if metafunc.config.getoption("--device") != "cpu":
            settings = ["graph", "eager"]  # no allocators there, but ways to launch
        else:
            settings = ["default", "tuned"] if wanted == "both" else [wanted]
        once = metafunc.config.getoption("--benchmark-disable")
        metafunc.parametrize("allocator", settings[:1] if once else settings, indirect=True)


def pytest_collection_modifyitems(items):
    # Tuning cannot be undone within a process: everything with the default allocator runs first.
    items.sort(key=lambda item: getattr(item, "callspec", None) is not None and "tuned" in item.callspec.id.split("-"))


@pytest.fixture
def device(request) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def allocator(request) -> str:
    if request.param == "tuned":
        fastgan.tune_cpu_allocator()
    return request.param


def _tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, tuple | list) else []


def _check(case: str, actual, expected, tolerance: float) -> None:
    actual, expected = _tensors(actual), _tensors(expected)
    assert len(actual) == len(expected) > 0, f"{case}: {len(actual)} results, expected {len(expected)}"
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.shape == e.shape, f"{case}: result {i} has shape {tuple(a.shape)}, expected {tuple(e.shape)}"
        scale = max(e.abs().max().item(), 1e-30)
        difference = (a.double() - e.double()).abs().max().item() / scale
        assert difference <= tolerance, f"{case}: result {i} is off by {difference:.2e} of its maximum"


@pytest.fixture
def compare(request, benchmark, record, allocator, device):
    """compare(case, step, reference=f, fastgan=g, ...) checks, then times, one workload in several implementations.

    case: what the row of the table says, with shapes.
    step(f): one iteration with implementation f; returns the tensors to compare. For a backward pass it calls
        torch.autograd.grad itself, so that a compiled f is used as a user of torch.compile would use it.
    reference, fastgan: the implementations; `compiled=True` adds torch.compile(reference).
    others: more baselines, by name.
    unchecked: baselines that do less, and so give another result: a part of the work, a step without its penalty.
    tolerance: greatest difference from the reference, as a share of the greatest reference value.
    floor: seconds that the memory traffic or arithmetic needs at this machine's measured peak, if known.
    budget: seconds of measured time; more where a ratio has to be known to a few hundredths.
    """
    torch.set_num_threads(request.config.getoption("--threads"))
    # Where others use the cores too, a long call waits for them and a short one does not: by the wall their ratio is too high.
    clock = time.process_time if request.config.getoption("--clock") == "cpu" else time.perf_counter
    torch.backends.cudnn.allow_tf32 = False  # for the comparison; timed is torch's default

    def run(
        case: str,
        step: Callable,
        *,
        reference: Callable,
        fastgan: Callable,
        compiled: bool = True,
        others: dict[str, Callable] | None = None,
        unchecked: dict[str, Callable] | None = None,
        tolerance: float = 2e-5,
        floor: float | None = None,
        budget: float = BUDGET,
    ) -> None:
        replays: dict[Callable, Replay] = {}
        last: dict[Callable, float] = {}  # seconds that a call took

        def timed(f) -> float:
            if allocator == "graph":
                if f not in replays:
                    replays[f] = Replay([lambda: step(f)])
                return replays[f].seconds()
            before = last.get(f, 1.0)
            # Else a call pays for the caches and the heap that another implementation left behind.
            for _ in range(WARM if before < QUICK else int(before < SLOW)):
                step(f)
            if device.type == "cuda":
                return seconds_on_gpu(lambda: step(f))
            start = clock()
            result = step(f)
            del result
            last[f] = clock() - start
            return last[f]

        expected = step(reference)
        for name, f in {"fastgan": fastgan, **(others or {})}.items():
            _check(f"{case}, {name}", step(f), expected, tolerance)
        if benchmark.disabled:
            benchmark.pedantic(lambda: None, rounds=1)
            return
        baselines = {"reference": reference, **(others or {}), **(unchecked or {})}
        if compiled:
            torch._dynamo.reset()
            baselines["torch.compile"] = torch.compile(reference)
            _check(f"{case}, torch.compile", step(baselines["torch.compile"]), expected, tolerance)
        del expected
        torch.backends.cudnn.allow_tf32 = True
        theirs, ours = sum(map(timed, baselines.values())), timed(fastgan)
        once = theirs + ours
        rounds = int(min(60, max(3 if once > SLOW else 5, budget / once / 2)))
        # A page that the hypervisor has to find again makes a call of 10 ms one of 60: few samples of a short call are none.
        repeats = 3 if rounds < 20 and 10 * ours < theirs else 1
        times: dict[str, list[float]] = {name: [] for name in [*baselines, "fastgan"]}

        def baselines_first():
            if len(times["fastgan"]) % repeats == 0:
                for name, f in baselines.items():
                    times[name].append(timed(f))

        def ours_then():
            times["fastgan"].append(timed(fastgan))

        benchmark.pedantic(ours_then, setup=baselines_first, rounds=rounds * repeats)
        record(case, times, allocator=allocator, floor=floor)

    return run


@pytest.fixture
def record(request, benchmark):
    """record(case, times, ...): a row of the summary and of the JSON from seconds measured by the bench itself.

    times: seconds by implementation, among them "fastgan".
    """

    def row(case: str, times: dict[str, list[float]], *, allocator: str = "both", floor: float | None = None) -> None:
        if benchmark.disabled:
            return
        median = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
        benchmark.extra_info.update(case=case, allocator=allocator, floor=floor, median=median)
        request.config.stash.setdefault(ROWS, []).append((request.node.path.stem, benchmark.extra_info))

    return row


@contextlib.contextmanager
def _references():
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(conv_forms, "serving", lambda w, form: None))  # torch's convolutions
        for name in ("bias_act", "filtered_lrelu", "modulated_conv2d", "norm_act", "upfirdn2d", "grad_penalty"):
            op = getattr(fastgan.ops, name)

            def reference(*args, op=op, **options):
                return op(*args, **{**options, "impl": "reference"})

            for module in [m for path, m in sys.modules.items() if path.startswith("fastgan.")]:
                for attribute in [a for a, value in vars(module).items() if value is op]:
                    stack.enter_context(patch.object(module, attribute, reference))
        yield


@pytest.fixture
def by_references():
    """by_references(f): f() with impl="reference" in every op that has one, wherever in fastgan it was imported by name.

    So a whole network runs on the references and torch's convolutions; a modulated convolution is then the grouped one.
    """

    def run(f):
        with _references():
            return f()

    return lambda f: lambda: run(f)


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("fastgan against its baselines (median ms; ratio above 1: fastgan is faster)")
    for stem, info in rows:
        median = info["median"]
        against = "  ".join(
            f"{name} {1e3 * t:.2f} ({t / median['fastgan']:.2f}x)" for name, t in median.items() if name != "fastgan"
        )
        floor = f"  floor {median['fastgan'] / info['floor']:.2f}x" if info["floor"] else ""
        name = f"{stem.removeprefix('bench_')}: {info['case']} [{info['allocator']}]"
        terminalreporter.write_line(f"{name}: fastgan {1e3 * median['fastgan']:.2f}  {against}{floor}")
