"""fastgan eval."""

import dataclasses
import itertools
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan.cli.options import UsageError, need_extra, parse, purpose, trust_data
from fastgan.cli.table import show

_SAMPLES, _PUBLISHED = 2000, 50_000  # by default; of the field's articles


@dataclass(kw_only=True)
class Options:
    run: Path
    """Run folder, as `fastgan train` made it, or fastgan:emoji, which comes with the package, or a folder of `fastgan push` or
    `pull`, which needs --data unless it was trained on a data set of `fastgan data list`."""
    samples: int | None = None
    """How many samples to draw. Default: 2000; with --paper 50000."""
    metrics: str | None = None
    """Compute only these, separated by commas: fd (fid with --extractor inception), fd-inf, kid, prdc, is, ppl, eq; bleu,
    self-bleu, distinct, nll, ... of texts; l1, psnr, ssim, cycle of translations; those of your own that the recipe's code or a
    package registers; or how names of figures begin. Default: all that the recipe lists and that can be computed."""
    paper: bool = False
    """The published protocol: the Fréchet distance alone, of 50,000 samples, in Inception's 2,048 features unless --extractor
    says otherwise, against --reference or else all pictures of the data set."""
    extractor: str | None = None
    """Features of images: efflite0 (the default; works offline), inception, which FID is named for, dinov2, clip (OpenAI's
    weights), openclip (LAION's and DataComp's), or one of your own: a registered name, mypackage.features:make or
    path/mine.py:make."""
    weights: Path | None = None
    """A local file of the published weights: dinov2, clip and openclip need it; of inception instead of a download."""
    reference: Path | None = None
    """Measure against the mean and covariance in this file, mu and sigma of an .npz or .safetensors, instead of a data set."""
    data: tuple[str, ...] | None = None
    """Measure against this data set instead of the run's own: a name, a path, or code as module:function; two for
    translation."""
    recipe: str | None = None
    """The recipe that the run was trained with, where it is not one that is registered: mypackage.recipes:Mine or
    path/mine.py:Mine. Its code is imported; RUN alone chooses no code."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    out: Path | None = None
    """The .json to write the figures to. Default: metrics.json in the folder, emoji-metrics.json of fastgan:emoji."""


def evaluate(argv: list[str]) -> int:
    """Metrics of a run: fastgan eval RUN [--samples N] [--metrics NAME,NAME] [--out FILE]"""
    need_extra()
    from fastgan.cli.sample import place
    from fastgan.files import writable
    from fastgan.media import Image
    from fastgan.models import embedded
    from fastgan.recipes import find_run
    from fastgan.training.checkpoint import CheckpointError
    from fastgan.training.distributed import find_device
    from fastgan.training.packed import PACKED

    options = parse(Options, argv, "fastgan eval", purpose(evaluate))
    of_features = "--extractor" if options.extractor else "--weights" if options.weights else ""
    options = _protocol(options)
    asked = None if options.metrics is None else options.metrics.split(",")
    if options.out is not None and (options.out.is_dir() or not writable(options.out.parent)):
        raise UsageError(f"--out {options.out} cannot be written")
    device = find_device(options.device)
    file = embedded.locate(options.run)
    if not file.exists():
        raise UsageError(f"{options.run}: no such folder; expected a run, as fastgan train makes it")
    try:
        if (file.suffix == ".safetensors" and file.is_file()) or (file / PACKED).is_file():
            recipe, networks, step, run = _packed(options, device)
            folder, _, name = place(options.run)
        else:
            recipe, networks, step, run = _trained(options, device)
            folder, name = find_run(options.run), ""
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    if options.data is not None:
        trust_data(options.data, argv)
        run |= _of_another(options.data, recipe, run)
    if of_features and not issubclass(recipe.medium, Image) and type(recipe).evaluate.__module__.startswith("fastgan."):
        raise UsageError(f"{of_features} is of images, and {recipe.name} makes {recipe.medium.unit}: leave it out")
    if options.paper or options.reference is not None:
        _need_drawn_images(recipe, "--paper" if options.paper else "--reference")
        run["reference"] = options.reference
    notes: list[str] = []

    def note(message: Warning, *where, **more) -> None:
        notes.append(str(message))
        print(f"fastgan eval: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = note
        columns = recipe.evaluate(
            networks, run, options.samples, extractor=options.extractor, weights=options.weights, metrics=asked
        )
    _print(columns)
    counts = {label: recipe.measured.get(label, options.samples) for label in columns}
    same = len(set(counts.values())) == 1
    found = {"samples": next(iter(counts.values())) if same else counts, "step": step}
    found |= ({"data": options.data} if options.data else {}) | ({"notes": notes} if notes else {})
    found |= ({"features": recipe.features} if recipe.features else {}) | columns
    return _write(found, options.out or folder / f"{name}metrics.json", asked=options.out is not None)


def _of_another(data: tuple[str, ...], recipe, run: dict[str, Any]) -> dict[str, Any]:
    """What changes in the options of a `run` that is measured against another data set: that is brought to the size, the channels
    or the rate of the run's own, unless its loader is a user's."""
    from fastgan.data import registered

    asked = {"data": data if data[1:] else data[0], "data_asked": True}
    if any(registered.loader(name) for name in data):
        return asked
    taken = {field.name for field in dataclasses.fields(recipe.medium.Options)} - {"split"}
    return asked | {name: recipe.data[name] for name in taken & recipe.data.keys() if run.get(name) is None}


def _print(columns: dict[str, dict[str, float]]) -> None:
    from fastgan.metrics import suite

    names = list(dict.fromkeys(itertools.chain.from_iterable(columns.values())))
    if not names:
        raise UsageError("no figure could be computed")
    rows = []
    for name in names:
        better, about = suite.meaning(name)
        cells = [f"{values[name]:.4f}" if name in values else "-" for values in columns.values()]
        rows.append([name, *cells, better, about])
    show(["figure", *(f">{label}" for label in columns), "better", "meaning"], rows)


def _write(found: dict[str, Any], out: Path, asked: bool) -> int:
    """The exit code: figures that were printed are worth more than a file that nobody `asked` for."""
    from fastgan.files import complete, to_json

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with complete(out) as temporary:
            temporary.write_text(to_json(found, 1) + "\n", encoding="utf-8")
    except OSError as error:
        print(
            f"fastgan eval: {out} could not be written ({error.strerror}); --out FILE chooses another", file=sys.stderr
        )
        return int(asked)
    return 0


def _protocol(options: Options) -> Options:
    """With what is left open chosen: by --paper as published, else the defaults."""
    from fastgan.metrics import images

    if options.reference is not None:
        if options.data is not None:
            raise UsageError("--reference takes the place of a data set: leave one of --reference and --data out")
        if not options.reference.is_file():
            raise UsageError(
                f"--reference {options.reference}: no such file; expected .npz or .safetensors with mu and sigma"
            )
    if not options.paper:
        return dataclasses.replace(
            options,
            samples=_SAMPLES if options.samples is None else options.samples,
            extractor=options.extractor or "efflite0",
        )
    if options.samples not in (None, _PUBLISHED):
        raise UsageError(f"--samples is {options.samples}, and --paper draws {_PUBLISHED}: leave one of the two out")
    if options.metrics is not None:
        raise UsageError(f"--metrics is {options.metrics!r}, and --paper computes the Fréchet distance: leave one out")
    extractor = options.extractor or "inception"
    metric = "fid" if images.title(extractor, options.weights) == "inception" else "fd"
    return dataclasses.replace(options, samples=_PUBLISHED, metrics=metric, extractor=extractor)


def _need_drawn_images(recipe, option: str) -> None:
    from fastgan.media import Image
    from fastgan.recipes import Recipe

    if type(recipe).evaluate is not Recipe.evaluate or not issubclass(recipe.medium, Image):
        raise UsageError(
            f"{option} is for recipes that draw images from latents, and {recipe.name} is evaluated otherwise"
        )


def _trained(options: Options, device):
    """(recipe, networks, step, options of the run)."""
    from fastgan.recipes import load_run, read_run
    from fastgan.training.checkpoint import load_checkpoint

    saved = read_run(options.run, options.recipe)
    newest = load_checkpoint(options.run)  # once: a run that is being trained writes others meanwhile
    recipe, networks = load_run(newest.path, device, options.recipe)
    return recipe, networks, newest.step, saved.options()


def _packed(options: Options, device):
    """The same of a shared folder, its file, or a generator of the package: they say on what they were trained, by name."""
    from fastgan.models import embedded
    from fastgan.recipes import Recipe
    from fastgan.sampling import load_generator
    from fastgan.training.packed import PACKED, read_packed
    from fastgan.training.run import is_known

    recipe, networks = load_generator(options.run, device, options.recipe)
    if not isinstance(recipe, Recipe):
        raise UsageError(
            f"{options.run} holds a converted network; eval measures runs, and what fastgan push made of them"
        )
    file = embedded.locate(options.run)
    found = read_packed(file / PACKED if file.is_dir() else file)
    given = found is not None and "given" in found[0]
    names = tuple(recipe.data["name"].split(" | "))
    if options.data is None and options.reference is None and (given or not all(map(is_known, names))):
        what = "an object of Python" if given else "pictures or files of others"
        raise UsageError(f"{options.run} was trained on {' | '.join(names)}, {what}: name the data by --data")
    run = _of_another(names, recipe, {}) | {"data_asked": options.reference is None}
    return recipe, networks, found and found[0]["step"], run
