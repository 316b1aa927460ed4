"""Every figure that `fastgan eval` prints, as rows of a table: what is asked for is computed, from what it needs, and no more.

A recipe lists the names of its rows in `Recipe.metrics` and hands `compute` functions that make what rows need; each is
called once, when the first row needs it. Names and numbers are checked by `choose`, before anything is computed.

A metric of your own, which may need what any recipe provides (`Recipe.provided`): `samples`, `data`, `networks`, `recipe`,
`count`; of images also `real` and `fake`, their features (`fastgan.metrics.images.Features`).

    @fastgan.metrics.register("roughness", needs=("samples",), better="lower", about="mean step from pixel to pixel, 0 to 2")
    def roughness(samples):                              # [N, C, T] or [N, C, H, W], in [-1, 1]
        return samples.diff(dim=-1).abs().mean()

`fastgan eval RUN --metrics roughness` computes it for any recipe, a recipe that lists it in `metrics` always. A package brings a
`Row` by its entry point `fastgan.metrics`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastgan.metrics import fid, kid, latent, pairs, prdc, speech, text
from fastgan.metrics import meaning as meanings
from fastgan.metrics.meaning import Meaning
from fastgan.metrics.processes import place
from fastgan.names import did_you_mean
from fastgan.registry import Registry


class Row(NamedTuple):
    """`compute(*needs)` returns the values of `figures`, in their order, or the number where there is one figure, from at
    least `least` samples. `better`: "lower", "higher" or ""; `about`: a line of what they mean, with the unit. Those of fastgan's
    own rows are in `fastgan.metrics.meaning`."""

    name: str
    figures: tuple[str, ...]
    needs: tuple[str, ...]
    compute: Callable[..., Iterable[float] | float]
    least: int = 1
    better: str = ""
    about: str = ""


def _numbered(name: str, orders: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{name}-{n}" for n in orders)


def _mean_of(measure: Callable) -> Callable:
    return lambda output, target: [measure(output, target).mean()]


def _inception_score(logits) -> Iterable[float]:
    if not logits.shape[1]:
        raise ValueError("the extractor has no class logits")
    return fid.inception_score(logits)[:1]


_SETS = ("real", "fake")

TABLE = (
    # Of images: real, fake are `images.Features`; of a generator with styles: `latent`, of the samples' classes.
    Row("fd", ("fd",), _SETS, lambda real, fake: [fid.frechet_distance(real.statistics, fake.statistics)], 2),
    Row("fd-inf", ("fd-inf",), _SETS, lambda real, fake: [fid.frechet_infinity(real.statistics, fake.rows)], 5120),
    Row("kid", ("kid",), _SETS, lambda real, fake: kid.kernel_distance(real.rows, fake.rows)[:1], 2),
    Row("prdc", prdc.PRDC._fields, _SETS, lambda real, fake: prdc.prdc(real.rows, fake.rows), 6),
    Row("is", ("is",), ("fake",), lambda fake: _inception_score(fake.logits), 10),
    Row(
        "ppl",
        ("ppl",),
        ("styles", "perceptual", "count", "classes"),
        lambda g, f, n, c: latent.measure(g, f, n, equivariance=False, classes=c).values(),
    ),
    Row(
        "eq",
        ("eq_t", "eq_r"),
        ("transform", "count", "classes"),
        lambda g, n, c: latent.measure(g, None, n, classes=c).values(),
    ),
    # Of translated images.
    *(Row(f.__name__, (f.__name__,), ("output", "target"), _mean_of(f)) for f in (pairs.l1, pairs.psnr, pairs.ssim)),
    Row("cycle", ("cycle",), ("returned", "source"), _mean_of(pairs.l1)),
    # Of speech: what was made, and the recordings it was made of.
    Row("mel-l1", ("mel-l1",), ("made", "recorded", "mel"), lambda *given: [speech.mel_l1(*given)]),
    Row("stft", ("stft",), ("made", "recorded"), lambda *given: [speech.stft_distance(*given)]),
    Row("voicing", ("periodicity", "voicing"), ("made", "recorded", "rate"), speech.voicing),
    Row("pesq", ("pesq",), ("made", "recorded", "rate"), lambda *given: [speech.pesq(*given)]),
    Row("stoi", ("stoi",), ("made", "recorded", "rate"), lambda *given: [speech.stoi(*given)]),
    Row("fd-mel", ("fd-mel",), ("made", "recorded", "mel"), lambda *given: [speech.frechet_mel(*given)]),
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

METRICS = Registry("metric", "fastgan.metrics").own({row.name: (row, "") for row in TABLE})


def register(
    row: Row | str,
    needs: Sequence[str] = ("samples",),
    figures: Sequence[str] = (),
    least: int = 1,
    better: str = "",
    about: str = "",
) -> Any:
    """Offer a metric by name: a `Row`, or as a decorator of its `compute` with the name and the other fields of the row.

    figures: names of the values that it returns; its own name where there is one.

    Raises ValueError for a name of fastgan's own, and for a `better` that is neither "lower" nor "higher" nor "".
    """
    if isinstance(row, Row):
        better = row.better
    if better not in ("", "lower", "higher"):
        raise ValueError(f"better is {better!r}, expected 'lower', 'higher' or ''")
    if isinstance(row, Row):
        return METRICS.register(row.name, row)

    def decorate(compute: Callable) -> Callable:
        METRICS.register(row, Row(row, tuple(figures) or (row,), tuple(needs), compute, least, better, about))
        return compute

    return decorate


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
    "made": "speech made of recordings",
}


def rows(names: Iterable[str], extractor: str | None = None, asked: Iterable[str] | None = ()) -> list[Row]:
    """The rows of these names, and of those that users registered the ones that are `asked` for; fd-inf, which takes thrice as
    long as fd, where there is fd and it is asked for. What is computed from features is named for their `extractor`:
    fd_efflite0; by the published Inception network ("inception") it is fid, kid, ...

    Raises ValueError for a name that nobody registered, or where it stands for no row.
    """
    asked = {word.strip().lower() for word in asked or ()}
    names = (
        [*names, *(name for name in METRICS.added() if name.lower() in asked and name not in names)] if asked else names
    )
    if "fd" in names and any(word.startswith(("fd-inf", "fid-inf")) for word in asked):
        names = [*names, "fd-inf"]
    return [_named(_row(name), extractor) for name in names]


def meaning(figure: str) -> Meaning:
    """Of a figure, as `Recipe.evaluate` names it; an empty one where nobody says it."""
    for row in map(_row, METRICS.added()):
        if any(figure == name or figure.startswith(f"{name}_") for name in row.figures):
            return Meaning(row.better, row.about)
    return meanings.meaning(figure) or Meaning("", "")


def _row(name: str) -> Row:
    row = METRICS.resolve(name)
    if not isinstance(row, Row):
        raise ValueError(f"metric {name!r} is {row!r}, expected a fastgan.metrics.suite.Row")
    return row


def _named(row: Row, extractor: str | None) -> Row:
    if extractor is None or not {"real", "fake", "perceptual"} & set(row.needs):
        return row
    if extractor != "inception":
        return row._replace(figures=tuple(f"{figure}_{extractor}" for figure in row.figures))
    if row.name == "fd":
        return row._replace(name="fid", figures=("fid",))
    # 4 samples for each of 2,048 features, where efflite0 has 1,280.
    return row._replace(name="fid-inf", figures=("fid-inf",), least=8192) if row.name == "fd-inf" else row


class Chosen(NamedTuple):
    """A row and those of its figures that are wanted. `firm`: they were asked for by their own names, not among several rows
    whose figures' names begin alike."""

    row: Row
    figures: tuple[str, ...]
    firm: bool = True


Choice = list[Chosen]


def choose(offered: Sequence[Row], asked: Iterable[str] | None, count: int) -> Choice:
    """Those of the `offered` rows that are `asked` for, each with the figures that are: by a row's name, or by how figures'
    names begin, which may be those of several rows; None is all. `count`: how many samples there will be.

    Raises ValueError for a name that nothing has, and for fewer samples than what is asked for needs.
    """
    if count < 1:
        raise ValueError(f"samples is {count}, expected at least 1")
    if asked is None:
        return [Chosen(row, row.figures) for row in offered]
    chosen: dict[str, set[str]] = {}
    firm: set[str] = set()
    for word in asked:
        word = word.strip().lower()
        named = [(row, row.figures) for row in offered if row.name.lower() == word]
        begun = [(row, [f for f in row.figures if word and f.lower().startswith(word)]) for row in offered]
        found = named or [(row, figures) for row, figures in begun if figures]
        if not found:
            more = [name for name in METRICS.added() if name not in [row.name for row in offered]]
            known = [*(name for row in offered for name in dict.fromkeys((row.name, *row.figures))), *more]
            listed = [row.name + (f" ({', '.join(row.figures)})" if row.figures[1:] else "") for row in offered]
            raise ValueError(
                f"metrics is {word!r}, expected some of {', '.join(listed + more)}{did_you_mean(word, known)}"
            )
        for row, figures in found:
            if count < row.least:
                raise ValueError(f"samples is {count}, expected at least {row.least} for {row.name}")
            chosen.setdefault(row.name, set()).update(figures)
        if named or len(found) == 1:
            firm |= {row.name for row, _ in found}
    return [
        Chosen(row, tuple(f for f in row.figures if f in chosen[row.name]), row.name in firm)
        for row in offered
        if row.name in chosen
    ]


def compute(
    choice: Choice, facts: Mapping[str, Callable[[], Any]], count: int, strict: bool, told: set[str] | None = None
) -> dict[str, float]:
    """Figures by name. facts: functions that make what rows need, by its name.

    strict: ValueError for a row that cannot be computed and is `firm`, or where no row can. Otherwise it is left out, with a
    warning, unless that was `told` before; without one where `facts` lack what it needs and it was not asked for. All others are
    computed.
    """
    told = set() if told is None else told
    failed: dict[str, list[str]] = {}
    absent = {row.name: [name for name in row.needs if name not in facts] for row, *_ in choice}
    for row, _, firm in choice if strict else ():
        if needs := absent[row.name]:
            what = _ABSENT.get(needs[0]) or f"{needs[0]!r}, and this recipe provides {', '.join(facts)}"
            if firm:
                raise ValueError(f"{row.name} cannot be measured: it needs {what}")
            failed.setdefault(f"it needs {what}", []).append(row.name)
    made: dict[str, tuple[Any, Exception | None]] = {}

    def fact(name: str) -> Any:
        if name not in made:
            try:
                made[name] = facts[name](), None
            except Exception as error:  # not tried again by the next row
                made[name] = None, error
        value, error = made[name]
        if error is not None:
            raise error
        return value

    found: dict[str, float] = {}
    for row, figures, firm in choice:
        if absent[row.name]:
            continue
        try:
            if count < row.least:
                raise ValueError(f"needs at least {row.least} samples, got {count}")
            values = _values(row, row.compute(*map(fact, row.needs)))
        except Exception as error:  # whatever a user's row raises, the run is worth more than its figures
            known = isinstance(error, ValueError | OSError | ImportError)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            if strict and firm:
                raise ValueError(f"{row.name}: {why}") from error
            failed.setdefault(why, []).append(row.name)
            continue
        found |= {figure: value for figure, value in values.items() if figure in figures}
    if strict and failed and not found:
        raise ValueError("; ".join(f"{', '.join(names)}: {reason}" for reason, names in failed.items()))
    for reason, names in failed.items():
        message = f"not measured: {', '.join(names)} ({reason})"
        if place()[0] == 0 and message not in told:
            warnings.warn(message, stacklevel=2)
        told.add(message)
    return found


def _values(row: Row, computed: Any) -> dict[str, float]:
    """By figure."""
    if (not row.figures[1:] and not isinstance(computed, Iterable)) or getattr(computed, "ndim", 1) == 0:
        computed = [computed]
    values = [float(value) for value in computed]
    if len(values) != len(row.figures):
        raise ValueError(f"{len(values)} values for {len(row.figures)} figures, {', '.join(row.figures)}")
    return dict(zip(row.figures, values, strict=True))
