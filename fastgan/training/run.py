"""What a run is besides its recipe: where its data come from, where it writes, how often."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from fastgan import fields
from fastgan.data import DATA
from fastgan.data.speech import NAME as SPEECH
from fastgan.data.text import TEXT_NAMES
from fastgan.files import check_writable, complete
from fastgan.media import Image, Medium
from fastgan.options import Count, Natural, Range, check_ranges
from fastgan.training.checkpoint import CheckpointError, list_checkpoints, sweep
from fastgan.training.lock import RunHeld, RunLock
from fastgan.training.recipe import RECIPES, Recipe, RecipeConfig
from fastgan.untrusted import read_json
from fastgan.user_code import absolute

VERSION = 2  # of config.json; a file that names none is of version 1


@dataclass
class DataOptions:
    """What a run reads and writes, whatever the recipe."""

    data: str | tuple[str, str] = "emoji"
    """Data set: a name from `fastgan data list`, or the path of a folder or file as the recipe's kind of samples has them: a
    folder, zip, npz or npy of images, shards (.tar), hf:FOLDER, a text file with a sentence per line; two of them for
    translation."""
    out: str | None = None
    """Run folder. Default: runs/RECIPE-DATA, with a number added if it exists."""
    resume: bool = False
    """Continue a run from its newest whole checkpoint, with the options it was started with."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Decides every random draw: same seed, same machine, same weights."""


@dataclass
class HardwareOptions:
    """What a run is computed on, and how: time and memory."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16, fp16: run the losses under autocast; weights, optimisers and penalties stay float32."""
    grad_accum: Count = 1
    """Pieces of a batch that are computed one after the other: less memory, the same result. Refused where a recipe needs
    all images at once (batch normalisation, dropout, statistics of the batch)."""
    compile: bool = False
    """Compile whole updates, penalties included, in a minute or so. For convolutions on a CPU eager is as fast."""
    graphs: bool = False
    """On CUDA: replay each update, penalties and optimiser included, as a CUDA graph once it was made twice, for steps in which
    the GPU waits for the host. Refused with a reason where a recipe's steps cannot be replayed."""
    deterministic: bool = False
    """On CUDA: let cuDNN take only algorithms that repeat themselves. Without it the fastest are found by timing them, and are
    not the same in every run. On the CPU the same run always gives the same weights, bit for bit."""
    channels_last: bool = False
    """Keep images and convolutions in channels_last order: 2 to 8% faster on a CPU for DCGAN's discriminator."""
    shard_generator: bool = False
    """Keep 1/n of the generator, its average and its optimiser's state on each of n processes (FSDP2), for one that does
    not fit a device; a block is whole only while it computes. Same results and checkpoints, slower."""
    timeout: Annotated[float, Range(0, 10**9, without=(0,))] = 600.0
    """Seconds without an answer after which another process counts as dead."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Threads that assemble batches ahead of training, and decode the pictures of streams."""


@dataclass
class LogOptions:
    """What a run writes down, and how often."""

    log: tuple[str, ...] = ("jsonl", "tensorboard")
    """Where the run is logged: jsonl (metrics.jsonl, always written, named or not), tensorboard, wandb, trackio, a sink of a
    package, or MODULE:CLASS."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    sample_every: Count = 250
    """Steps between samples that are shown."""
    checkpoint_every: Count = 250
    """Steps between checkpoints; a killed run repeats at most this many, twice that if it dies while one is written."""
    metrics_every: Natural = 0
    """Steps between measurements (what `fastgan eval` prints), and at the end. 0: none."""
    metrics_samples: Count = 1000
    """Samples of a measurement during training."""
    keep: Count = 3
    """Checkpoints to keep."""
    samples: Annotated[int, Range(1, 65536)] = 64
    """How many samples a run shows at a time: those of seeds 0, 1, 2, ..."""


@dataclass
class TransferOptions:
    """What a new run begins with instead of networks that know nothing, and what of it stays as it is."""

    init_from: tuple[str, ...] = ()
    """Begin with the networks of another run (its folder, or its name in runs/), of a checkpoint in it, or of files: what fastgan
    convert wrote, fastgan pull fetched, or another project's snapshot; or fastgan:emoji. What does not fit is adapted or new, as
    is printed."""
    init_optimizer: bool = False
    """Take the optimisers' state of that run too, where all networks are taken as they are."""
    freeze_d: Natural = 0
    """Blocks of the discriminator that keep their weights, from the image on."""
    freeze_g: Natural = 0
    """Layers of the mapping network that keep their weights, from the latent on."""


@dataclass
class RunOptions(TransferOptions, LogOptions, HardwareOptions, DataOptions):
    """The options of a run, whatever the recipe and its medium."""


# As the help and run.yaml list them.
GROUPS = {"run": DataOptions, "hardware": HardwareOptions, "log": LogOptions, "transfer": TransferOptions}


@dataclass
class RunConfig(Image.Options, RunOptions):
    """The options of a run on images."""


@functools.cache
def _run_class(medium: type[Medium]) -> type[RunOptions]:
    if medium is Image:
        return RunConfig
    made = dataclasses.make_dataclass(f"{medium.__name__}Run", [], bases=(medium.Options, RunOptions))
    made.__doc__ = f"The options of a run on {medium.unit}."
    return made


def run_options(recipe: type[Recipe]) -> type[RunOptions]:
    """The dataclass of the options that a run of `recipe` has: those of `RunOptions` and of its medium."""
    return _run_class(recipe.medium)


def data_options(recipe: type[Recipe], run: RunOptions) -> dict[str, Any]:
    """The options of the recipe's medium, as `load_data` takes them."""
    return {field.name: getattr(run, field.name) for field in dataclasses.fields(recipe.medium.Options)}


def facts_of(recipe: type[Recipe], dataset: Any, name: str) -> dict[str, Any]:
    """What the recipe needs to know of its data, by the `name` that they were asked for unless they say another.

    Raises ValueError for what config.json could not keep, or what is not as the recipe's `Facts` say.
    """
    where, facts = f"{recipe.name}: describe()", recipe.describe(dataset)
    if not isinstance(facts, Mapping):
        raise ValueError(f"{where} gave {fields.clip(facts)}, expected a dict of facts by name")
    facts = {"name": name, **facts}
    try:
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: {error}; expected finite numbers, strings, lists and dicts, as config.json keeps it"
        ) from error
    fields.record(recipe.Facts or recipe.medium.Facts, facts, where)
    return facts


def check_same(folder: Path, recipe: Recipe, run: RunOptions) -> None:
    """CheckpointError where the data of the run in `folder` were others than those of `recipe` by what its networks are made
    for, or its options that are `kept`: weights learnt of one vocabulary, of classes in one order, or of one mel spectrogram
    would fit the other's and mean something else. So it is where `run` says that it began with other networks, or that other
    parts of them are frozen, which have no state of an optimiser."""
    config = read_config(folder)
    saved, now = config["data"], json.loads(json.dumps(recipe.data))
    any_classes = () if getattr(recipe.config, "conditional", False) else ("num_classes", "class_names")
    for name in (saved.keys() & now.keys()) - {"name", *any_classes}:
        if saved[name] != now[name]:
            was, is_now = fields.clip(saved[name]), fields.clip(now[name])
            more = f" was {was} and is {is_now}" if was != is_now else " is another"
            raise CheckpointError(
                f"{folder}: the data have changed since this run began: {name}{more}. Give it those that it was trained on, or "
                "begin another with --init-from"
            )
    for name in recipe.kept:
        was, is_now = config["config"].get(name), getattr(recipe.config, name)
        if name in config["config"] and was != is_now:
            raise CheckpointError(
                f"{folder}: its networks were trained with {name}={was}, not {is_now}: leave the option out, or begin another "
                "run with --init-from"
            )
    for name in ("init_from", "freeze_d", "freeze_g"):
        was, is_now = config["run"].get(name), json.loads(json.dumps(getattr(run, name)))
        if name in config["run"] and was != is_now and (is_now or name != "init_from"):
            raise CheckpointError(
                f"{folder}: it began with {name}={fields.clip(was)}, not {fields.clip(is_now)}: leave the option out, or begin"
                " another run"
            )


def adapt(recipe: type[Recipe], run: RunOptions) -> RunOptions:
    """`run` as one of `recipe`: the options of its medium at their defaults where `run` is of another.

    Raises ValueError for an option that the recipe's medium does not have and that is not at its default.
    """
    wanted = run_options(recipe)
    if type(run) is wanted:
        return run
    known = {field.name for field in dataclasses.fields(wanted)}
    for field in dataclasses.fields(run):
        value = getattr(run, field.name)
        if field.name not in known and value != field.default:
            raise ValueError(
                f"{field.name} is {value!r}, but {recipe.name} trains on {recipe.medium.unit}, which have no {field.name}"
            )
    return wanted(**{name: value for name, value in vars(run).items() if name in known})


def read_options(recipe: type[Recipe], values: Any, where: str) -> RunOptions:
    """The options in config.json, without sinks that are code (`named_code`). Until files had a version, they held those of
    images whatever the recipe.

    Raises `fastgan.fields.Mismatch` that names `where` and the field.
    """
    if isinstance(values, dict):
        others = {field.name for field in dataclasses.fields(Image.Options)}
        others -= {field.name for field in dataclasses.fields(run_options(recipe))}
        values = {name: value for name, value in values.items() if name not in others}
    options = fields.build(run_options(recipe), values, where)
    options.log, _ = part_log(options.log)
    options.channels_last &= issubclass(recipe.medium, Image)  # it was taken, and did nothing, before version 0.2
    return options


def part_log(log: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sinks that a file names: those that are looked up, and those that are code, which no file may import; who wants them says
    so himself."""
    return tuple(name for name in log if ":" not in name), tuple(name for name in log if ":" in name)


def left_out(folder: Path, run: RunOptions) -> list[str]:
    """Sentences about the sinks of the run in `folder` that are code and that `run`, which resumes it, does not name."""
    try:
        log = fields.conform(read_config(folder)["run"].get("log", ()), tuple[str, ...], "log")
    except (CheckpointError, fields.Mismatch):
        return []
    named = {absolute(name) for name in run.log}
    code = [fields.clip(name) for name in part_log(log)[1] if absolute(name) not in named]
    return [f"{folder} was logged to {name} too, which is code: to go on so, name it with --log" for name in code]


def resume_command(name: str, folder: Path, run: RunOptions, processes: int, given: str = "", without: str = "") -> str:
    """The shell command that continues a run of the recipe `name`, from any folder. It says what is code: config.json may not.
    For a class or data (`given`) that only this process has, the call. without: an option to switch off."""
    data = [run.data] if isinstance(run.data, str) else run.data
    data = list(map(absolute, data)) if any(map(DATA.typed, data)) else []
    log = list(map(absolute, run.log)) if part_log(run.log)[1] else []
    alone = name.startswith("__main__:") or "<locals>" in name  # of a notebook or a function: no other process finds it
    if alone or given:
        words = [re.split("[.:]", name)[-1] if alone else repr(name), f"out={str(folder)!r}", "resume=True"]
        words += ["dataset=..."] if given else [f"data={tuple(data) if data[1:] else data[0]!r}"] if data else []
        words += [f"log={log}"] if log else []
        words += [f"{without}=False"] if without else []
        return f"fastgan.run({', '.join(words)})"
    many = f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', processes)} -m "
    words = [
        name,
        "--out",
        str(folder),
        "--resume",
        *(["--data"] if data else []),
        *data,
        *(["--log"] if log else []),
        *log,
        *([f"--no-{without}"] if without else []),
    ]
    return f"{many if processes > 1 else ''}fastgan train {shlex.join(words)}"


def check_options(recipe: type[Recipe], config: RecipeConfig, run: RunOptions) -> None:
    """ValueError that names the first option that makes no sense, whatever the data, or is of another type; NumPy's numbers
    become Python's, as config.json holds these alone."""
    for options in (config, run):
        check_ranges(options)
        fields.check(recipe.name, options)
    if run.channels_last and not issubclass(recipe.medium, Image):
        raise ValueError(
            f"channels_last=True is the order of images in memory, and {recipe.name} trains on {recipe.medium.unit}: leave it out"
        )
    if config.batch_size % run.grad_accum:
        raise ValueError(f"grad_accum is {run.grad_accum}, expected a divisor of batch_size, {config.batch_size}")
    if run.init_optimizer and not run.init_from:
        raise ValueError("init_optimizer=True says more about init_from, which is not there")
    names = [run.data] if isinstance(run.data, str) else run.data
    named = [*(("data", name) for name in names), *(("init_from", name) for name in run.init_from)]
    for option, value in (("out", run.out), *named):
        if value == "":
            raise ValueError(f"{option} is '', expected a name")
    if len(names) > 1 and not recipe.pairs:
        raise ValueError(
            f"data is {tuple(names)}, two data sets, and {recipe.name} trains on one; cyclegan and pix2pix take two"
        )


def restarted() -> bool:
    """True where torchrun has started this process anew after a failure (`--max-restarts`): the run then continues."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def find_folder(recipe: str, run: RunOptions) -> Path:
    """The run folder, of which nothing is changed.

    Raises ValueError if it holds a run that was not asked to resume, or none to resume, or cannot be written to; RunHeld
    if another process writes to it.
    """
    new = not (run.resume or restarted())
    if run.out:
        folder = Path(run.out)
        if new:
            _check_free(folder)
        elif run.resume and not (folder / "config.json").exists():
            raise ValueError(f"--resume: {folder} holds no run")
    elif new or not (folder := _newest(recipe, run)):
        folder = next(folder for folder in _defaults(recipe, run) if not (folder / "config.json").exists())
    check_writable(folder)
    if run.out or not new:
        RunLock(folder).check()
    return folder


def claim(folder: Path, recipe: str, run: RunOptions, seen: Sequence[tuple[int, Path]] = ()) -> RunLock:
    """Make the run folder and lock it; if its name was not given and it has been taken since, then the next one of that name.

    seen: the checkpoints among which one was read, of a run that is resumed.

    Raises RunHeld, also where there are others by now, and ValueError as `find_folder` does.
    """
    new = not (run.resume or restarted())
    for choice in [folder] if run.out or not new else _defaults(recipe, run):
        lock = RunLock(choice)
        try:
            if new:
                _check_free(choice)
            lock.hold()
            if new:
                _check_free(choice)  # it may have come before the lock did
            break
        except (RunHeld, ValueError):
            lock.release()
            if run.out or not new:
                raise
    checkpoints = lock.folder / "checkpoints"
    if not new and list_checkpoints(checkpoints) != list(seen):
        lock.release()
        raise RunHeld(f"{lock.folder}: another process has trained it further in the meantime; resume it again")
    checkpoints.mkdir(exist_ok=True)
    sweep(checkpoints)
    return lock


# What a run would write over, or take for its own, in a folder without config.json.
_RECORDS = ("run.yaml", "metrics.jsonl", "report.html", "transfer.json", "wandb.id", "trackio.id")
_WRITTEN = (*_RECORDS, "checkpoints/step-*", "samples/step-*")


def _check_free(folder: Path) -> None:
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} already holds a run: add --resume to continue it, or choose another --out")
    for path in itertools.chain.from_iterable(map(folder.glob, _WRITTEN)):
        if path.is_file() or path.parent != folder:
            raise ValueError(f"{path} is there, and a run in {folder} would write such a file: choose another --out")


def _base(recipe: str, run: RunOptions) -> str:
    sets = [run.data] if isinstance(run.data, str) else run.data
    return re.sub(r"[^\w.-]+", "-", "-".join([recipe, *(Path(name).stem for name in sets)])).strip("-")


def _defaults(recipe: str, run: RunOptions) -> Iterator[Path]:
    """Folders of a run whose --out is not given: runs/RECIPE-DATA, then with -2, -3, ..."""
    base = _base(recipe, run)
    return (Path("runs") / (base if i == 1 else f"{base}-{i}") for i in itertools.count(1))


def _newest(recipe: str, run: RunOptions) -> Path | None:
    """The last run of that name. Raises ValueError where one is to be resumed and there is none."""
    base = _base(recipe, run)
    found = [p for p in Path("runs").glob("*/config.json") if re.fullmatch(re.escape(base) + r"(-\d+)?", p.parent.name)]
    if run.resume and not found:
        raise ValueError(f"--resume: there is no runs/{base}; name the run's folder with --out")
    return max(found, key=lambda p: p.stat().st_mtime).parent if found else None


def write_config(folder: Path, recipe: Recipe, run: RunOptions, given: str = "") -> None:
    """Write config.json: what a resumed run starts from, and what sampling rebuilds the networks from. given: the kind of the
    object that the data were, where `run.data` is no more than its name."""
    run = adapt(type(recipe), run)
    names = [run.data] if isinstance(run.data, str) else run.data
    saved = {
        "version": VERSION,
        "recipe": RECIPES.name_of(type(recipe)),
        "config": dataclasses.asdict(recipe.config),
        "run": dataclasses.asdict(dataclasses.replace(run, out=str(folder), resume=False)),
        "data": recipe.data,
        "headline": recipe.headline,  # for whoever shows the run and has no recipe
    }
    if any(_in_folder(_working_folder(), name) != name for name in names):
        saved["data_in"] = _working_folder()
    if given:
        saved["given"] = given
    saved["sha256"] = _digest(saved)
    with complete(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(saved, indent=1, allow_nan=False), encoding="utf-8")


def _digest(saved: dict[str, Any]) -> str:
    """SHA-256 of all of config.json but itself, however it is laid out."""
    rest = {name: value for name, value in saved.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _working_folder() -> str:
    """Empty where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _in_folder(folder: str, name: str) -> str:
    """The data set `name` as a path below `folder` where it is one: a relative path that exists there, or whose pattern of shards
    begins with one. Any other name as it is."""
    prefix = "hf:" * name.startswith("hf:")
    path = name.removeprefix(prefix)
    start, pattern, _ = path.partition("{")
    there = os.path.join(folder, os.path.dirname(start) if pattern else start)
    if is_known(name) or not path or os.path.isabs(path) or path.startswith("~") or not os.path.exists(there):
        return name
    return prefix + os.path.join(folder, path)


def is_known(name: str) -> bool:
    """Whether `name` is that of a data set of `fastgan data list`, or a part of one, and no path."""
    head = name.partition(":")[0]
    return "/" not in head and (head in DATA or head in (SPEECH, *TEXT_NAMES))


class ConfigFile(TypedDict):
    """config.json, as `write_config` writes it; `recipe` as `fastgan.recipes.get` resolves it."""

    recipe: str
    config: dict[str, Any]
    run: dict[str, Any]
    data: dict[str, Any]


def read_config(folder: Path) -> ConfigFile:
    """What config.json holds; its options are checked by whoever knows their types. A data set that was named by a relative path
    is that of the folder where the run was started, as long as it is there. A file without a checksum is from an older version.

    Raises CheckpointError that names the file, also for one of a later version.
    """
    path = folder / "config.json"
    try:
        saved = read_json(path)
        version = saved.get("version", 1) if isinstance(saved, dict) else 1
        if type(version) is not int or not 1 <= version <= VERSION:
            raise CheckpointError(
                f"{path} is of version {fields.clip(version)}; this fastgan reads versions up to {VERSION}, a newer one may"
            )
        saved = fields.record(ConfigFile, saved, str(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no run folder: {error}") from error
    if "sha256" in saved and saved["sha256"] != _digest(saved):
        raise CheckpointError(
            f'{path} does not match its SHA-256: it is damaged, or was edited. To take it as it is, remove its "sha256"'
        )
    data, folder = saved["run"].get("data"), saved.get("data_in")
    if isinstance(folder, str) and folder != _working_folder():
        if isinstance(data, str):
            saved["run"]["data"] = _in_folder(folder, data)
        elif isinstance(data, list):
            saved["run"]["data"] = [_in_folder(folder, name) if isinstance(name, str) else name for name in data]
    return saved
