"""Every figure that `fastgan eval` prints, as rows of a table: what is asked for is computed, from what it needs, and no more.

A recipe lists the names of its rows in `Recipe.metrics` and hands `compute` functions that make what rows need; each is
called once, when the first row needs it. Names and numbers are checked by `choose`, before anything is computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastgan.metrics import fid, kid, latent, pairs, prdc, text
from fastgan.metrics.processes import place
from fastgan.names import did_you_mean


class Row(NamedTuple):
    """`compute(*needs)` returns the values of `figures`, in their order, from at least `least` samples."""

    name: str
    figures: tuple[str, ...]
    needs: tuple[str, ...]
    compute: Callable[..., Iterable[float]]
    least: int = 1


def _numbered(name: str, orders: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{name}-{n}" for n in orders)


def _mean_of(measure: Callable) -> Callable:
    return lambda output, target: [measure(output, target).mean()]


_SETS = ("real", "fake")

TABLE = (
    # Of images: real, fake are `images.Features`; of a generator with styles: `latent`.
    Row("fd", ("fd",), _SETS, lambda real, fake: [fid.frechet_distance(real.statistics, fake.statistics)], 2),
    Row("kid", ("kid",), _SETS, lambda real, fake: kid.kernel_distance(real.rows, fake.rows)[:1], 2),
    Row("prdc", prdc.PRDC._fields, _SETS, lambda real, fake: prdc.prdc(real.rows, fake.rows), 6),
    Row("is", ("is",), ("fake",), lambda fake: fid.inception_score(fake.logits)[:1], 10),
    Row(
        "ppl",
        ("ppl",),
        ("styles", "perceptual", "count"),
        lambda g, f, n: latent.measure(g, f, n, equivariance=False).values(),
    ),
    Row("eq", ("eq_t", "eq_r"), ("transform", "count"), lambda g, n: latent.measure(g, None, n).values()),
    # Of translated images.
    *(Row(f.__name__, (f.__name__,), ("output", "target"), _mean_of(f)) for f in (pairs.l1, pairs.psnr, pairs.ssim)),
    Row("cycle", ("cycle",), ("returned", "source"), _mean_of(pairs.l1)),
    # Of texts: `evaluate_text`.
    Row("nll-gen", ("nll-gen",), ("model", "train", "ignored"), lambda *given: [text.nll(*given)]),
    Row("nll-test", ("nll-test",), ("model", "test", "ignored"), lambda *given: [text.nll(*given)]),
    Row(
        "nll-oracle",
        ("nll-oracle", "nll-oracle-real"),
        ("oracle", "generated", "test"),
        lambda oracle, generated, test: [text.nll(oracle, generated), text.nll(oracle, test.cpu())],
    ),
    Row("bleu", _numbered("bleu", (2, 3, 4, 5)), ("ours", "theirs"), lambda *given: text.bleu(*given).values()),
    Row("self-bleu", _numbered("self-bleu", (2, 3, 4, 5)), ("ours",), lambda ours: text.self_bleu(ours).values(), 2),
    Row("distinct", _numbered("distinct", (1, 2, 3, 4)), ("ours",), lambda ours: text.distinct_n(ours).values()),
    Row(
        "embedding-similarity",
        ("embedding-similarity",),
        ("ours", "theirs"),
        lambda *g: [text.embedding_similarity(*g)],
    ),
)

# What not every run has.
_ABSENT = {
    "real": "an extractor",
    "fake": "an extractor",
    "styles": "a generator with mapping and synthesis",
    "perceptual": "extractor efflite0",
    "transform": "a generator that says where each pixel is drawn",
    "target": "true counterparts of the images",
    "returned": "translators in both directions",
    "oracle": "the data set oracle",
}


def rows(names: Iterable[str], extractor: str | None = None) -> list[Row]:
    """The rows of these names. What is computed from features is named for their `extractor`: fd_efflite0; by the published
    Inception network ("inception") it is fid, kid, ..."""
    table = {row.name: row for row in TABLE}
    return [_named(table[name], extractor) for name in names]


def _named(row: Row, extractor: str | None) -> Row:
    if extractor is None or not {"real", "fake", "perceptual"} & set(row.needs):
        return row
    if extractor != "inception":
        return row._replace(figures=tuple(f"{figure}_{extractor}" for figure in row.figures))
    return row._replace(name="fid", figures=("fid",)) if row.name == "fd" else row


Choice = list[tuple[Row, tuple[str, ...]]]


def choose(offered: Sequence[Row], asked: Iterable[str] | None, count: int) -> Choice:
    """Those of the `offered` rows that are `asked` for, each with the figures that are: by a row's name, or by how figures'
    names begin; None is all. `count`: how many samples there will be.

    Raises ValueError for a name that nothing has, and for fewer samples than what is asked for needs.
    """
    if count < 1:
        raise ValueError(f"samples is {count}, expected at least 1")
    if asked is None:
        return [(row, row.figures) for row in offered]
    chosen: dict[str, set[str]] = {}
    for word in asked:
        word = word.strip().lower()
        named = [(row, row.figures) for row in offered if row.name == word]
        begun = [(row, [f for f in row.figures if word and f.startswith(word)]) for row in offered]
        found = named or [(row, figures) for row, figures in begun if figures]
        if not found:
            known = [name for row in offered for name in dict.fromkeys((row.name, *row.figures))]
            listed = ", ".join(
                row.name + (f" ({', '.join(row.figures)})" if row.figures[1:] else "") for row in offered
            )
            raise ValueError(f"metrics is {word!r}, expected some of {listed}{did_you_mean(word, known)}")
        for row, figures in found:
            if count < row.least:
                raise ValueError(f"samples is {count}, expected at least {row.least} for {row.name}")
            chosen.setdefault(row.name, set()).update(figures)
    return [(row, tuple(f for f in row.figures if f in chosen[row.name])) for row in offered if row.name in chosen]


def compute(
    choice: Choice, facts: Mapping[str, Callable[[], Any]], count: int, strict: bool, told: set[str] | None = None
) -> dict[str, float]:
    """Figures by name. facts: functions that make what rows need, by its name.

    strict: ValueError for a row that cannot be computed. Otherwise it is left out, in silence where `facts` lack what it needs,
    else with a warning, unless that was `told` before; all others are computed.
    """
    absent = {row.name: [name for name in row.needs if name not in facts] for row, _ in choice}
    for name, needs in absent.items():
        if needs and strict:
            raise ValueError(f"{name} cannot be measured: it needs {_ABSENT[needs[0]]}")
    made: dict[str, tuple[Any, Exception | None]] = {}

    def fact(name: str) -> Any:
        if name not in made:
            try:
                made[name] = facts[name](), None
            except (ValueError, OSError, ImportError) as error:  # not tried again by the next row
                made[name] = None, error
        value, error = made[name]
        if error is not None:
            raise error
        return value

    found: dict[str, float] = {}
    failed: dict[str, list[str]] = {}
    for row, figures in choice:
        if absent[row.name]:
            continue
        try:
            if count < row.least:
                raise ValueError(f"needs at least {row.least} samples, got {count}")
            values = zip(row.figures, row.compute(*map(fact, row.needs)), strict=True)
        except (ValueError, OSError, ImportError) as error:
            if strict:
                raise ValueError(f"{row.name}: {error}") from error
            failed.setdefault(str(error), []).append(row.name)
            continue
        found |= {figure: float(value) for figure, value in values if figure in figures}
    for reason, names in failed.items():
        message = f"not measured: {', '.join(names)} ({reason})"
        if place()[0] == 0 and message not in (told or ()):
            warnings.warn(message, stacklevel=2)
        if told is not None:
            told.add(message)
    return found
