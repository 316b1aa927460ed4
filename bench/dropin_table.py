"""The table of docs/drop-in.md, of what bench_dropin.py printed.

python bench/dropin_table.py                  the page, of bench/results/dropin.txt
python bench/dropin_table.py out.txt ...      the rows of these outputs first put in there, in the place of older ones
"""

import re
import sys
from math import exp, log
from pathlib import Path

from dropin_networks import NETWORKS
from report import between

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "bench" / "results" / "dropin.txt", ROOT / "docs" / "drop-in.md"
COLUMNS = [("eval", "plain"), ("train", "plain"), ("eval", "example"), ("train", "example"), ("eval", "freeze")]
HEADS = ["eval", "train", "eval, example", "train, example", "eval, freeze"]

USUAL = {name: size for name, (_, _, size) in NETWORKS.items()}  # the means are of these

Row = tuple[str, ...]  # name, size, mode, how, milliseconds or "untouched", gain, copy, "slower" or "", pieces


def rows(text: str) -> dict[Row, Row]:
    found = {}
    for line in re.findall(r"^\|(.*)\|", text, re.M):
        cells = tuple(cell.strip() for cell in line.split("|"))
        if len(cells) == 9 and (cells[2], cells[3]) in COLUMNS:
            found[cells[:4]] = cells
    return found


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row[4] == "untouched":
        return "as it was"
    copied = row[6].split()[0]
    return f"{row[5]} ({copied})" + ", slower" * bool(row[7])


def gain(row: Row) -> float:
    return 1.0 if row[4] == "untouched" else float(row[5].split()[0])


def table(found: dict[Row, Row]) -> str:
    lines = ["| network | pixels | " + " | ".join(HEADS) + " |", "|---" * (2 + len(HEADS)) + "|"]
    for name, size in dict.fromkeys(key[:2] for key in found):
        cells = [cell(found.get((name, size, *column))) for column in COLUMNS]
        lines.append(f"| {name} | {size} | " + " | ".join(cells) + " |")
    for title, large in (("geometric mean, 64 pixels", False), ("geometric mean, usual size", True)):
        cells = []
        for column in COLUMNS:
            gains = [
                gain(row)
                for (name, size, *how), row in found.items()
                if tuple(how) == column and name in USUAL and size.split()[0] == str(USUAL[name] if large else 64)
            ]
            mean = exp(sum(map(log, gains)) / len(gains)) if gains else None
            cells.append("" if mean is None else f"**{mean:.2f}** of {len(gains)}")
        lines.append(f"| {title} | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(text: str, found: dict[Row, Row]) -> str:
    return between(text, "networks", table(found), "dropin_table.py")


def main(outputs: list[str]) -> None:
    found = rows(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for output in outputs:
        found |= rows(Path(output).read_text(encoding="utf-8"))
    KEPT.write_text("".join(f"| {' | '.join(row)} |\n" for row in found.values()), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
