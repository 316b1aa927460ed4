"""The tables of docs/gpu.md, made of what `.ci/gpu` brought back: bench/results/NAME.call1.json, NAME.call2.json, ..."""

import json
from pathlib import Path

NONE = "*No result of a GPU is in `bench/results` yet.*"


def calls(folder: Path) -> list[dict]:
    """The results of `.ci/gpu`, by the files' names; of a GPU only: a rehearsal's numbers mean nothing."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.call*.json"))]
    return [call for call in found if call["device"] == "cuda"]


def numbers(measured: list[dict], step: str) -> dict:
    """What a step measured, by case; the last call that has it wins."""
    return next(
        (m["steps"][step]["numbers"] for m in reversed(measured) if m["steps"].get(step, {}).get("numbers")), {}
    )


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def cell(error: str) -> str:
    """The beginning of an error, within a table."""
    return error.split("\n")[0][:60].replace("|", "/")


def states(measured: list[dict]) -> str:
    """What ran: each step, how it ended, in how many seconds; of how many cases or tests, how many failed."""
    lines = ["| call | step | state | seconds | cases | failed | images/s |", "|" + "---|" * 7]
    for call in measured:
        for name, step in call["steps"].items():
            counted = step if "tests" in step else step.get("numbers", {})
            cells = [call["call"], name, step["state"], step["seconds"], counted.get("tests", counted.get("cases", ""))]
            cells += [len(counted["failed"]) if "failed" in counted else "", step.get("images/s", "")]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def predicted(measured: list[dict]) -> str:
    """Each kernel, forward: ps per element, and its share of the floor, as predicted from the machine code and as measured."""
    lines = ["| kernel | dtype | ps per element | share of the floor | predicted |", "|---|---|---|---|---|"]
    for case, row in numbers(measured, "times").items():
        if not case.endswith(" forward"):
            continue
        name, dtype = case.removesuffix(" forward").rsplit(" ", 1)
        shown = [cell(row["error"]), ""] if "error" in row else [f"{row['ps']:.2f}", share(row.get("share"))]
        lines.append(f"| {' | '.join([name, dtype, *shown, share(row.get('predicted'))])} |")
    return "\n".join(lines)


def host(measured: list[dict]) -> str:
    """Microseconds of the CPU for an eager call on a small tensor."""
    lines = ["| op | fastgan | torch | fastgan, + backward | torch, + backward |", "|---|---|---|---|---|"]
    for name, row in numbers(measured, "host").items():
        cells = [f"{row[f'{who} {way}']:.0f}" for way in ("forward", "+ backward") for who in ("fastgan", "torch")]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def without_launch(folder: Path) -> str:
    """The same where the launch of a Triton kernel costs nothing: what `bench/bench_host_cost.py` printed."""
    file = folder / "host_noop.json"
    if not file.exists():
        return NONE
    kept = json.loads(file.read_text(encoding="utf-8"))
    lines = [
        kept["about"],
        "",
        "| op | fastgan | torch | fastgan, + backward | torch, + backward |",
        "|---|---|---|---|---|",
    ]
    for name in [way.removeprefix("forward ") for way in kept["rows"] if way.startswith("forward ")]:
        if "+" not in name:
            ways = (kept["rows"][f"{way} {name}"] for way in ("forward", "forward + backward"))
            lines.append(f"| {name} | {' | '.join(f'{us:.1f}' for row in ways for us in row.values())} |")
    return "\n".join(lines)


def inductor(measured: list[dict]) -> str:
    """Six cases beside torch.compile of their references, float32, forward."""
    lines = ["| case | fastgan, ps per element | torch.compile | times |", "|---|---|---|---|"]
    for name, row in numbers(measured, "inductor").items():
        both = [row["fastgan"], row["inductor"]]
        cells = [f"{ps:.2f}" if isinstance(ps, float) else cell(ps) for ps in both]
        times = f"{both[1] / both[0]:.3g}" if all(isinstance(ps, float) for ps in both) else ""
        lines.append(f"| {' | '.join([name, *cells, times])} |")
    return "\n".join(lines)


def modelled(folder: Path) -> str:
    """What `bench/predicted.py` says of sm_90: instructions and bytes per output, time, the limit, bounds of a change, warps at
    once, and what conflicts of banks cost."""
    file = folder / "predicted.json"
    if not file.exists():
        return NONE
    head = ["kernel", "instructions per output", "bound", "bytes", "ps per output", "share of the floor", "limited by"]
    head += ["warps", "conflicts"]
    lines = ["`python bench/predicted.py`:", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    kept = json.loads(file.read_text(encoding="utf-8"))
    for case, row in kept["rows"].items():
        if case.endswith(" sm_90"):
            cells = [
                case.removesuffix(" sm_90"),
                *(f"{row[k]:g}" for k in ("instructions", "bound", "bytes", "ps", "share")),
            ]
            cells += [row["limit"], *(f"{row[k]:g}" if k in row else "" for k in ("warps", "conflicts"))]
            lines.append(f"| {' | '.join(cells)} |")
    least = kept.get("arithmetic", {})
    if least:
        head = [
            "the least arithmetic, sums in float32",
            "of",
            "instructions per output",
            "ps per output",
            "of the floor",
        ]
        lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for case, row in least.items():
        cells = [case, row["parts"], *(f"{row[k]:g}" for k in ("instructions", "ps", "of the floor"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {
    "steps": (states, ""),
    "predicted against measured": (predicted, "times"),
    "host cost": (host, "host"),
    "torch.compile": (inductor, "inductor"),
}


def tables(folder: Path) -> dict[str, str]:
    """{name: Markdown} of every table of docs/gpu.md."""
    measured = calls(folder)
    made = {"model": modelled(folder), "host cost without launch": without_launch(folder)}
    for name, (table, step) in TABLES.items():
        there = measured and (not step or numbers(measured, step))
        made[name] = f"{origin(measured)}\n\n{table(measured)}" if there else NONE
    return made


def origin(measured: list[dict]) -> str:
    """Machine, versions, date, commit and command of each call."""
    facts = ("machine", "date", "command")
    return "; ".join(
        f"{', '.join(m[fact] for fact in facts)}, torch {m['torch']}, triton {m['triton']}, commit {m['commit']}"
        for m in measured
    )
