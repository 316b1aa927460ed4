"""Turns what was measured into pages: docs/benchmarks.md, and the tables of docs/gpu.md,
docs/metrics.md, docs/serving.md, docs/vocoder.md and the README.

python bench/report.py                                the pages
python bench/report.py --add bench.json [...]         results of `pytest bench/ --benchmark-json=bench.json` first kept here
python bench/report.py bench.json --out mine.md       a page of results that are not kept: those of your own machine

bench/results/CASE.json holds one bench: machine, versions, date, command, and the median seconds of every implementation.
CASE.MACHINE.json, a copy named by hand, stays when CASE.json is measured anew on another machine.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import gpu_report

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
DOCS = ROOT / "docs"
PAGE, GPU_PAGE, METRICS, README = DOCS / "benchmarks.md", DOCS / "gpu.md", DOCS / "metrics.md", ROOT / "README.md"
SERVING, VOCODER = DOCS / "serving.md", DOCS / "vocoder.md"
SAMPLES = ROOT / "bench" / "experiments" / "results" / "metric_samples.md"
OPEN, CLOSE = "<!-- {}: made by python bench/{} -->", "<!-- end of {} -->"
# The table of the README: what a reader would call it, the bench, the beginning of the case's name.
HEADLINES = (
    ("StyleGAN3's filtered leaky ReLU, 2x512x86x86", "filtered_lrelu", "forward up2 down2 2x512x86x86"),
    ("instance norm and ReLU, 1x64x256x256", "norm_act", "forward 1x64x256x256 relu"),
    ("upsampling by 2 with a filter, 8x256x64x64", "upfirdn2d", "forward up2 8x256x64x64"),
    ("bias, leaky ReLU and clamp, 8x256x64x64, with its gradient", "bias_act", "forward + backward 8x256x64x64"),
    ("the same with the gradient's gradient", "bias_act", "double backward 8x256x64x64"),
    ("CycleGAN generator, 256 pixels", "cyclegan", "ResNet-9 generator 256 px"),
)


def condensed(data: dict) -> dict[str, dict]:
    """{bench: what is kept of it} of the JSON of pytest-benchmark."""
    kept: dict[str, dict] = {}
    for entry in data["benchmarks"]:
        info = entry["extra_info"]
        if "median" not in info:
            continue
        stem = Path(entry["fullname"].split("::")[0]).stem.removeprefix("bench_")
        bench = kept.setdefault(stem, {"bench": stem, "date": data["datetime"][:10], **data["fastgan"], "rows": []})
        rounded = {name: float(f"{seconds:.4g}") for name, seconds in info["median"].items()}
        floor = info["floor"] and float(f"{info['floor']:.4g}")
        bench["rows"].append({**{k: info[k] for k in ("case", "allocator")}, "floor": floor, "median": rounded})
        bench["rows"][-1] |= {k: info[k] for k in ("first", "memory") if k in info}  # bench_serving
    return kept


def keep(bench: dict) -> Path:
    path = RESULTS / f"{bench['bench']}.json"
    head, rows = {k: v for k, v in bench.items() if k != "rows"}, bench["rows"]
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    path.write_text(json.dumps(head)[:-1] + ',\n "rows": [\n' + lines + "\n]}\n", encoding="utf-8")
    return path


def kept() -> list[dict]:
    """The benches of bench/results, by name, CASE.json before CASE.MACHINE.json; those of a GPU are `gpu_report`'s."""
    paths = sorted(RESULTS.glob("*.json"), key=lambda path: path.stem.split("."))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [bench for bench in found if "bench" in bench]


def times(ratio: float) -> str:
    """Three digits of a ratio."""
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def ratio(row: dict, name: str) -> str:
    return times(row["median"][name] / row["median"]["fastgan"]) if name in row["median"] else ""


def provenance(bench: dict) -> str:
    level = f"FASTGAN_CPU_LEVEL={bench['level']} " if bench.get("level") else ""
    command = f"{level}pytest bench/bench_{bench['bench']}.py --threads {bench['threads']} --clock {bench['clock']}"
    before, after = bench["load"]
    return (
        f"{bench['machine']}, torch {bench['torch']}, {bench['date']}, commit {bench['commit']}, load {before:.1f} before and"
        f" {after:.1f} after: `{command}`"
    )


def section(bench: dict) -> list[str]:
    """One bench: how many times as fast as the others, one row for each case and allocator."""
    head = ["case", "allocator", "fastgan, ms", "eager", "torch.compile", "others", "of the floor"]
    lines = [f"## {bench['bench']}", "", provenance(bench), "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in bench["rows"]:
        own, floor = row["median"]["fastgan"], row["floor"]
        others = [name for name in row["median"] if name not in ("fastgan", "reference", "torch.compile")]
        cells = [
            row["case"],
            row["allocator"],
            f"{1e3 * own:.4g}",
            ratio(row, "reference"),
            ratio(row, "torch.compile"),
        ]
        cells += [", ".join(f"{name} {ratio(row, name)}" for name in others), times(own / floor) if floor else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


HEAD = """# Benchmarks

How many times as fast fastgan is as another implementation of the same, on a CPU in float32: above 1, fastgan is faster.
GPU figures are on the page [GPU status](gpu.md).

- *eager*: the same formulas in PyTorch's operations. *torch.compile*: those, compiled. *Others* are named as in the bench.
- *of the floor*: fastgan's time over the least that the memory traffic or the arithmetic takes at this machine's measured peak.
  Those of an EPYC under load were timed by the wall beside other programs: they may be too long, the ratio too low.
- *allocator*: `tuned` is `fastgan.tune_cpu_allocator()`, which `fastgan train` calls; eager is faster with it as well.
- Each case first checks that both sides give the same numbers. Implementations take turns in one process; figures are medians.
- *FASTGAN_CPU_LEVEL=avx2*: fastgan, and the floor, with AVX2 alone; the others with all that the machine has.
- *load*: processes that wanted a core, of two. `--clock cpu` counts the time that the processor worked for the bench alone, since
  by the wall a long call waits for the others and a short one does not. Caches and memory are shared: take ratios to 20%.

The page is made of `bench/results/*.json`. Yours:

```bash
pip install -e '.[bench]'
pytest bench/bench_bias_act.py --benchmark-json=bench.json
python bench/report.py bench.json --out mine.md
```
"""


def page(benches: list[dict]) -> str:
    return "\n".join([HEAD, *(line for bench in benches for line in section(bench))]).rstrip() + "\n"


def headlines(benches: list[dict]) -> str:
    lines = ["| | times eager | command |", "|---|---|---|"]
    for title, stem, case in HEADLINES:
        rows = [row for bench in benches if bench["bench"] == stem for row in bench["rows"]]
        row = next((r for r in rows if r["case"].startswith(case) and r["allocator"] != "tuned"), None)
        if row is None:
            raise SystemExit(f"bench/results/{stem}.json has no case {case!r} with the default allocator")
        lines.append(f"| {title} | {ratio(row, 'reference')} | `pytest bench/bench_{stem}.py` |")
    return "\n".join(lines)


def serving(benches: list[dict]) -> str:
    """Milliseconds of every way to run a generator, the quickest of a row in bold; a table for each machine."""
    found = [bench for bench in benches if bench["bench"] == "serving"]
    if not found:
        return "`pytest bench/bench_serving.py` measures it on your machine; bench/results holds no figures yet."
    return "\n\n".join(map(serving_table, found))


def serving_table(bench: dict) -> str:
    names = dict.fromkeys(["fastgan", *(name for row in bench["rows"] for name in row["median"])])
    title = {"reference": "eager"}
    lines = [f"Milliseconds. {provenance(bench)}", ""]
    lines += [
        f"| network | allocator | {' | '.join(title.get(n, n) for n in names)} | best other / fastgan | fastgan / floor |"
    ]
    lines += ["|" + "---|" * (len(names) + 4)]
    ratios = []
    for row in bench["rows"]:
        median = row["median"]
        best = min(median.values())
        times_of = {
            n: f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}" for n, seconds in median.items()
        }
        cells = [times_of.get(n, "") for n in names]
        cells = [f"**{cell}**" if median.get(n) == best else cell for n, cell in zip(names, cells, strict=True)]
        others = [seconds for name, seconds in median.items() if name != "fastgan"]
        if others and "fastgan" in median:
            ratios.append(min(others) / median["fastgan"])
            cells.append(times(ratios[-1]))
        else:
            cells.append("")
        cells.append(f"{median['fastgan'] / row['floor']:.2f}" if row["floor"] else "")
        lines.append(f"| {row['case']} | {row['allocator']} | {' | '.join(cells)} |")
    if len(ratios) > 1:
        lines += ["", f"Best other / fastgan, geometric mean of the rows: {times(statistics.geometric_mean(ratios))}."]
    return "\n".join([*lines, *first_images([row for row in bench["rows"] if "first" in row], names, title)])


def one(benches: list[dict], stem: str) -> str:
    """The section of one bench, without its title."""
    return "\n".join(line for bench in benches if bench["bench"] == stem for line in section(bench)[2:])


def first_images(rows: list[dict], names, title: dict) -> list[str]:
    """Seconds to the first image, and MiB at most, of a process for each."""
    if not rows:
        return []
    lines = [
        "",
        "Seconds from the network, or its file, to the first image, and peak memory of the process in MiB:",
        "",
    ]
    lines += [f"| network | {' | '.join(title.get(n, n) for n in names)} |", "|" + "---|" * (len(names) + 1)]
    for row in rows:
        first, memory = row["first"], row["memory"]
        cells = [f"{first[n]:.2g} s, {memory[n] / 2**20:.0f}" if n in first else "" for n in names]
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    return lines


def between(text: str, name: str, made: str, script: str = "report.py") -> str:
    """`text` with what `made` says between the two marks of `name`, which `script` makes."""
    opening, closing = OPEN.format(name, script), CLOSE.format(name)
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (start and end):
        raise SystemExit(f"no place for {name}: expected the lines {opening} and {closing}")
    return f"{before}{start}\n\n{made.strip()}\n\n{end}{after}"


def pages() -> dict[Path, str]:
    """What the pages have to be."""
    benches, samples = kept(), SAMPLES.read_text(encoding="utf-8").partition("\n")[2]  # without its title
    places = {
        GPU_PAGE: gpu_report.tables(RESULTS),
        METRICS: {"samples": samples},
        README: {"ratios": headlines(benches)},
        SERVING: {"serving": serving(benches)},
        VOCODER: {"vocoder": one(benches, "vocoder")},
    }
    made = {PAGE: page(benches)}
    for path, parts in places.items():
        made[path] = path.read_text(encoding="utf-8")
        for name, part in parts.items():
            made[path] = between(made[path], name, part)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="*", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--add", action="store_true", help="keep them in bench/results, in place of earlier ones")
    parser.add_argument("--out", type=Path, help="the Markdown page of them, if they are not kept")
    arguments = parser.parse_args()
    if bool(arguments.json) != bool(arguments.add or arguments.out) or (arguments.add and arguments.out):
        parser.error("results (.json) go with one of --add and --out")
    benches = [b for path in arguments.json for b in condensed(json.loads(path.read_text(encoding="utf-8"))).values()]
    if arguments.json and not benches:
        sys.exit("no compared case: were they written with --benchmark-disable?")
    if arguments.out:
        arguments.out.write_text(page(benches), encoding="utf-8")
        return print(f"{sum(len(b['rows']) for b in benches)} cases -> {arguments.out}")
    for bench in benches:
        print(f"{len(bench['rows'])} cases -> {keep(bench).relative_to(ROOT)}")
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
