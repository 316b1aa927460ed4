"""docs/experiments.md: every script here puts its table between its own two marks."""

from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments.md"


def put(script: str, text: str) -> None:
    """`text` as what `script`, a path, has measured. SystemExit where the page has no place for it."""
    name = Path(script).name
    opening, closing = f"<!-- python bench/experiments/{name} -->\n", f"<!-- end of {name} -->\n"
    before, start, rest = PAGE.read_text(encoding="utf-8").partition(opening)
    _, end, after = rest.partition(closing)
    if not (start and end):
        raise SystemExit(f"{PAGE} has no place for {name}: expected the lines {opening.strip()} and {closing.strip()}")
    PAGE.write_text(f"{before}{start}{text}{end}{after}", encoding="utf-8")
