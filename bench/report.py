"""Turns the JSON of `pytest bench/ --benchmark-json=bench.json` into a Markdown table and a plot.

python bench/report.py bench.json [--out bench.md] [--plot bench.png]
"""

import argparse
import json
import sys
from pathlib import Path


def rows(data: dict) -> list[dict]:
    """One dictionary per compared case: op, case, allocator, median seconds by implementation."""
    found = []
    for entry in data["benchmarks"]:
        info = entry["extra_info"]
        if "median" in info:
            op = Path(entry["fullname"].split("::")[0]).stem.removeprefix("bench_")
            found.append({"op": op, **info})
    return found


def markdown(data: dict, table: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in table for name in row["median"] if name != "fastgan"))
    cpu = data["machine_info"].get("cpu", {}).get("brand_raw", data["machine_info"].get("processor", "?"))
    lines = [
        f"{cpu}; medians in ms; in brackets the ratio to fastgan (above 1: fastgan is faster).",
        "",
        "| op | case | allocator | fastgan | " + " | ".join(names) + " | fastgan / floor |",
        "|" + "---|" * (5 + len(names)),
    ]
    for row in table:
        own = row["median"]["fastgan"]
        cells = [
            f"{1e3 * row['median'][n]:.2f} ({row['median'][n] / own:.2f}x)" if n in row["median"] else "" for n in names
        ]
        floor = f"{own / row['floor']:.2f}x" if row["floor"] else ""
        head = f"| {row['op']} | {row['case']} | {row['allocator']} | {1e3 * own:.2f} | "
        lines.append(head + " | ".join(cells) + f" | {floor} |")
    return "\n".join(lines) + "\n"


def plot(table: list[dict], path: Path) -> None:
    """Horizontal bars: how many times faster than the reference and than torch.compile, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = [f"{row['op']}: {row['case']} [{row['allocator']}]" for row in table]
    figure, axes = plt.subplots(figsize=(10, 1 + 0.35 * len(table)), layout="constrained")
    for offset, name, colour in ((0.2, "reference", "tab:grey"), (-0.2, "torch.compile", "tab:orange")):
        ratios = [row["median"].get(name, float("nan")) / row["median"]["fastgan"] for row in table]
        axes.barh([i + offset for i in range(len(table))], ratios, height=0.38, label=f"over {name}", color=colour)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="times faster", yticks=range(len(table)), yticklabels=labels)
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--out", type=Path, default=Path("bench.md"), help="the Markdown table (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("bench.png"), help="the plot (default: %(default)s)")
    arguments = parser.parse_args()
    data = json.loads(arguments.json.read_text())
    table = rows(data)
    if not table:
        sys.exit(f"{arguments.json} holds no compared case: was it written with --benchmark-disable?")
    arguments.out.write_text(markdown(data, table))
    plot(table, arguments.plot)
    print(f"{len(table)} cases -> {arguments.out}, {arguments.plot}")


if __name__ == "__main__":
    main()
