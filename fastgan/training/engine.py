"""The engine: runs any recipe from a fresh folder or a checkpoint to its last step, on one process or many.

A run is a function of its configuration and of the counters in the checkpoint (step, update, images): random generators
are seeded from them before each update, and the loader continues at the image it had reached. So there is no generator
state to save, and a run that was killed at any moment repeats the steps since its last checkpoint exactly (on a GPU to the
rounding of what cuDNN chooses; `--deterministic` fixes its choice).
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from fastgan._surroundings import apart
from fastgan.data import Loader
from fastgan.data.source import about
from fastgan.fields import shorten
from fastgan.training import checkpoint as ckpt
from fastgan.training import graphs, pieces, shard, state, transfer, yaml_file
from fastgan.training.batch import derive_seed
from fastgan.training.batch_norm import synchronise
from fastgan.training.distributed import World, choose_speed, join, listening
from fastgan.training.ema import EMA
from fastgan.training.errors import FORESEEN, Interrupted, TrainingError, explain
from fastgan.training.feed import Feed
from fastgan.training.lock import RunLock
from fastgan.training.log import Meter, measure, read_metrics, save_samples
from fastgan.training.recipe import RECIPES, Recipe, RecipeConfig, draw
from fastgan.training.run import (
    RunOptions,
    adapt,
    check_options,
    check_same,
    claim,
    data_options,
    facts_of,
    find_folder,
    left_out,
    restarted,
    resume_command,
    run_options,
    write_config,
)
from fastgan.training.settings import Settings
from fastgan.training.signals import StopSignal, number_of
from fastgan.training.sinks import Sink, Sinks
from fastgan.training.update import Updater


def reads_freely(device: torch.device) -> bool:
    """Whether reading a value waits for nothing; of a GPU it waits for all that was asked before."""
    return device.type == "cpu"


class Trainer:
    """Trains one recipe on one data set in one run folder.

    Args:
        recipe: a recipe class, for example `fastgan.recipes.get("dcgan")`.
        config: the recipe's options; its defaults if None.
        run: data, folder and everything around the recipe; the recipe's defaults if None.
        dataset: used instead of loading `run.data`, which takes its name unless another is given too: by such a name `--resume`
            and `fastgan eval` look for the data again, by its own they do not, as a part of a set may have the set's name.
        sinks: objects that are told of the run (`fastgan.training.sinks.Sink`), and names as in `run.log`, added to those. They
            are closed when the run ends, at its last step or before. Of many processes only rank 0 uses its.

    Attributes: `recipe`, `dataset`, `world`, `folder`, `step` (training steps done), `ema` (its `networks` are what samples are
    drawn from). Before `train`, of a run to be resumed too, step is 0 and networks and averages are as the recipe made them:
    `train` calls the recipe's `prepare`, or reads the checkpoint, into the same objects.

    Raises ValueError for options that do not fit the data, a folder that holds another run, or a sink of an unknown name;
    ImportError for a package that a sink needs; TypeError for an object that is no sink.
    """

    @apart
    def __init__(
        self,
        recipe: type[Recipe],
        config: RecipeConfig | None = None,
        run: RunOptions | None = None,
        *,
        dataset=None,
        sinks: Sequence[Sink | str] = (),
    ):
        config = config or recipe.Config()
        run = run_options(recipe)(**recipe.run_defaults) if run is None else adapt(recipe, run)
        self._given = ""  # what kind of object the data are that no name leads to
        if dataset is not None:
            own = str(getattr(dataset, "name", type(dataset).__name__))
            if run.data in (type(run).data, recipe.run_defaults.get("data"), own, ""):
                run, self._given = dataclasses.replace(run, data=own), type(dataset).__name__
        elif run.resume and run.data == "":
            raise ValueError(
                f"{run.out} was trained on an object of Python, to which no name leads: go on by fastgan.run with that object as "
                "its `dataset`, or on other data, data=NAME"
            )
        self.world: World = join(run.device, run.timeout)
        # Only rank 0's host needs to see the run folder, whose config.json may have set these.
        self.config, values = self.world.agree((config, vars(run)))
        self.run = run_options(recipe)(**values)
        check_options(recipe, self.config, self.run)
        self.run.log += tuple(sink for sink in sinks if isinstance(sink, str))
        self._sinks = Sinks(*((self.run.log, sinks) if self.world.main else ((), ())))
        folder = find_folder(recipe.name, self.run) if self.world.main else ""
        self.folder = Path(self.world.agree(str(folder)))
        self._lock = RunLock(self.folder)
        self._writer = ckpt.Writer(self.folder / "checkpoints", self.run.keep)
        options, name = data_options(recipe, self.run), self.run.data
        name = name if isinstance(name, str) else " | ".join(name)
        self.dataset = recipe.load_data(self.run.data, self.config, **options) if dataset is None else dataset
        torch.manual_seed(derive_seed(self.run.seed, "weights"))
        self._speed = choose_speed(self.run.deterministic, self.world.device)
        facts = facts_of(recipe, self.dataset, name)
        if dataset is None and getattr(self.run, "crop", "") == "stretch":
            facts["crop"] = "stretch"  # for pictures that the network is given later
        self.recipe = recipe(self.config, facts)
        self.recipe.dataset, self.recipe.in_training = dataset, True
        self.recipe.processes = self.world.size
        self._frozen = transfer.freeze(self.recipe, self.run)
        self._made = {name: ckpt.options_of(optimizer) for name, optimizer in self.recipe.optimizers.items()}
        pieces.check(self.recipe, self.run.grad_accum)
        if self.run.graphs:
            graphs.check(self.recipe, self.run, self.world)
        self._layout = torch.channels_last if self.run.channels_last else torch.contiguous_format
        if self.run.shard_generator:
            shard.check(self.recipe, self.run)
        self._sharded = self.run.shard_generator and self.world.size > 1
        # Samples and checkpoints are rank 0's work; of a split generator they need everybody's part.
        self._takes_part = self.world.main or self._sharded
        for name, network in self.recipe.networks.items():
            if not (self._sharded and name in recipe.averaged):
                network.to(self.world.device, memory_format=self._layout)
            if self.world.size > 1:
                synchronise(network, self.world)
        averaged = {name: self.recipe.networks[name] for name in recipe.averaged}
        self.ema = EMA(averaged, self.config.ema_halflife, fresh=not self.run.init_from)
        self._fitted: dict[str, transfer.Fitted] = {}
        self.step = self.update = self.images = 0
        self.seconds = 0.0
        self._signal = StopSignal()

    def __repr__(self) -> str:
        about = f"{self.recipe.name} on {self.recipe.data.get('name')}, step {self.step} of {self.config.steps}"
        return f"Trainer({str(self.folder)!r}: {about}, on {self.world.device})"

    @property
    def resume_command(self) -> str:
        """The shell command that continues this run."""
        return self._resume()

    def _resume(self, without: str = "") -> str:
        name = RECIPES.name_of(type(self.recipe), elsewhere=True)
        return resume_command(name, self.folder, self.run, self.world.size, self._given, without)

    @apart
    def train(self) -> Path:
        """Run to `config.steps`; returns the run folder.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP; a checkpoint has been written if a step was made.
            CheckpointError: what is to be resumed does not fit, or none of it is whole; nothing was changed.
            RunHeld: another process writes to the run; nothing was changed.
            TrainingError: a loss or gradient is not finite, the disk is full or the run folder gone, the data cannot be read,
                another process died, a loss cannot be compiled, or a sink cannot be opened.
        """
        try:
            self._begin()
            with self._signal:
                self._run()
        except KeyboardInterrupt as stop:
            number = number_of(stop)
            raise Interrupted(number, f"{signal.Signals(number).name}: {self._safe()}") from stop
        finally:
            self._lock.release()
        if self._signal.number and self.step < self.config.steps:
            message = f"{self._signal.name}: saved step {self.step}. Resume with:\n  {self.resume_command}"
            raise Interrupted(self._signal.number, message)
        return self.folder

    def _run(self) -> None:
        try:
            if self.world.main:
                each = f"{self.config.batch_size * self.world.size} {self.recipe.medium.unit}"
                what = f"{self.recipe.name} on {self.recipe.data.get('name')}, {self.config.steps:,} steps of {each}"
                lines = f"{what}, on {self.world.device}, into {self.folder}", f"data: {about(self.dataset)}"
                print(*filter(None, (*lines, self._loader.resume, self._speed)), sep="\n", flush=True)
                self._sinks.open(self.folder, self.step, self.recipe)
            with listening():
                self._loop()
        except FORESEEN as error:
            if isinstance(error, OSError):
                self._check_place()
            what, without, advice = explain(error, self.step + 1, self.config)
            raise TrainingError(f"{what}. {self._safe(without)}{advice}") from error
        finally:
            self._loader.close()
            with contextlib.suppress(Exception):  # an error on the way out must not hide the one that led here
                self._writer.close()
            self._sinks.close()

    def close(self) -> None:
        """Leave the process group, where there is one."""
        self.world.close()

    def _begin(self) -> None:
        """Networks and counters, from the newest checkpoint or by the recipe's preparation; then, as nothing can be refused
        any more, the folder."""
        recipe, world = self.recipe, self.world
        resume, loaded, seen = self.run.resume or restarted(), None, []
        if world.main and resume:
            seen = ckpt.list_checkpoints(self.folder / "checkpoints")
            loaded = ckpt.load_checkpoint(self.folder / "checkpoints") if seen else None
            if seen:
                check_same(self.folder, recipe, self.run)
        found = world.agree(loaded is not None)
        if not found:
            recipe.prepare(self.dataset)
            self.ema.restart()
            if self.run.init_from:
                source = transfer.read(self.run.init_from) if world.main else None
                self._fitted = transfer.begin(recipe, self.ema, state.share(world, source), self.run.init_optimizer)
                transfer.check_frozen(recipe, self._fitted, self._frozen)
        if self._sharded:
            networks = [*(recipe.networks[name] for name in recipe.averaged), *self.ema.networks.values()]
            shard.split(networks, recipe.optimizers.values(), world.device)
        self._updater = Updater(recipe, world, self.run)
        if found:
            loaded = state.share(world, loaded)
            state.unpack(loaded, recipe, self.ema, self._updater.scalers)
            for counter in state.COUNTERS:
                setattr(self, counter, loaded.state[counter])
            # Older checkpoints do not say how many images they have seen.
            recipe.begun = self.step, loaded.state.get("seen", recipe.seen(self.step))
            if self.step > self.config.steps:
                raise ValueError(f"steps is {self.config.steps}, and {self.folder} is at step {self.step} already")
        tensors = [t for network in recipe.networks.values() for t in network.state_dict().values()]
        world.broadcast([t for t in tensors if not shard.is_shard(t)])
        if self.step == 0:  # before the folder is made, as a recipe's samples may be none of its medium
            self._first = self._draw()
        share = dict(rank=world.rank, world_size=world.size, seed=self.run.seed, workers=self.run.workers)
        places = state.streams(loaded) if found else None
        self._loader = Loader(self.dataset, self.config.batch_size, start=self.images, states=places, **share)
        to_device, layout = recipe.medium.to_device, self._layout
        self._feed = Feed(self._loader, lambda item: to_device(item, world.device, layout), world.device)
        if world.main:
            self._claim(seen)
        self.folder = Path(world.agree(str(self.folder)))
        if resume and world.main:
            start = f"resuming {self.folder} at step {self.step}"
            print(start if found else f"{self.folder} holds no checkpoint yet: starting from step 0", flush=True)
            was = loaded.state.get("data") if found else None
            if isinstance(was, str) and was != str(about(self.dataset)):
                print(f"the data have changed, the run goes on with these; they were: {shorten(was)}", flush=True)
        self._writer.folder = self.folder / "checkpoints"
        self._saved = self.step if found else -1

    def _claim(self, seen: list[tuple[int, Path]]) -> None:
        """Make the folder ours and write into it what the run is. `seen`: the checkpoints among which one was read."""
        self._lock = claim(self.folder, self.recipe.name, self.run, seen)
        self.folder = self._lock.folder
        for sentence in left_out(self.folder, self.run):
            print(sentence, flush=True)
        if self._fitted or self._frozen:
            transfer.tell(self.folder, self.run, self._fitted, self._frozen)
        write_config(self.folder, self.recipe, self.run, self._given)
        settings = Settings(type(self.recipe), self.run, self.config)
        yaml_file.write(self.folder / "run.yaml", RECIPES.name_of(settings.kind), settings, self._given)

    def _loop(self) -> None:
        run, per_step = self.run, self.config.batch_size * self.world.size
        unit = self.recipe.medium.unit
        self._meter = meter = Meter(self._loader, self.world.device, unit, per_step, self.step, self.seconds)
        if self.step == 0:
            self._show(self._first)
            del self._first
        else:
            self._tell_missed()
        stop = False
        while self.step < self.config.steps and not stop:
            values, stop = self._train_step()
            if self.world.main and self._due(run.log_every, self.step):
                row = {name: float(value) for name, value in values.items()} | meter.row(self.step)
                self._sinks.write(self.step, row)
            if stop or self._due(run.checkpoint_every, self.step):
                self._save()
            if self._due(run.sample_every, self.step):
                self._show(self._draw())
            if run.metrics_every and self._due(run.metrics_every, self.step):
                self._evaluate()
        self._writer.wait()

    def _tell_missed(self) -> None:
        """Samples and figures of the checkpoint's step, which come after it, where a kill came first."""
        run, missed = self.run, (False, False)
        if self.world.main:
            shown = list((self.folder / "samples").glob(f"step-{self.step:08d}.*"))
            rows = read_metrics(self.folder / "metrics.jsonl")
            measured = any(row["step"] == self.step and "seconds" not in row for row in rows)
            missed = not shown, not measured
        show, measure = self.world.agree(missed)
        if show and self._due(run.sample_every, self.step):
            self._show(self._draw())
        if measure and run.metrics_every and self._due(run.metrics_every, self.step):
            self._evaluate()

    def _due(self, every: int, step: int) -> bool:
        return step % every == 0 or step == self.config.steps

    def _train_step(self) -> tuple[dict[str, torch.Tensor], bool]:
        """All updates of one step and the moving average; returns the logged values and whether to stop."""
        logs, stop, items, carried = {}, False, None, {}
        # What is logged or saved was looked at; where that is free a bad update is caught before it is made.
        often = self.run.log_every, self.run.checkpoint_every
        due = reads_freely(self.world.device) or any(self._due(every, self.step + 1) for every in often)
        for update in self.recipe.updates(self.step):
            if update.fresh or items is None:
                items, carried = self._next_batch(), {}
                self.images = self._feed.consumed
            asked = self._signal.number > 0
            look = due or (asked and self.world.size == 1)
            values, ends = self._updater(update, items, self.update, asked, look, carried)
            self.update += 1
            logs |= values
            stop = stop or ends
        self.step += 1
        seen = self.recipe.seen(self.step)
        self.ema.halflife = self.recipe.ema_halflife(seen)
        self.ema.update(self.config.batch_size * self.world.size, seen)
        return logs, stop

    def _next_batch(self) -> tuple[torch.Tensor, ...]:
        try:
            return next(self._feed)
        except Exception as error:  # whatever the data set raised in the loader's thread
            why = f"{type(error).__name__}: {error}"
            raise TrainingError(f"step {self.step + 1}: no batch of data ({why}). {self._safe()}") from error

    def _save(self) -> None:
        if self._saved == self.step:
            return
        self._saved = self.step
        # Each process has a place of its own in a stream; an indexed source is where `images` says.
        streams = self.world.collect(self._feed.state) if self._feed.state else []
        if not self._takes_part:
            return
        tensors, rest = state.pack(self.recipe, self.ema, self._updater.scalers, self._made)
        tensors = shard.gather(tensors, keep=self.world.main)
        if self.world.main:
            self._check_place()
            self.seconds = self._meter.seconds
            counters = {name: getattr(self, name) for name in state.COUNTERS}
            counters |= {"seen": self.recipe.seen(self.step), "data": str(about(self.dataset))}
            rest |= {"streams": streams} if streams else {}
            self._writer.save(self.step, tensors, {**counters, "seed": self.run.seed, **rest})

    def _draw(self) -> torch.Tensor | list[str] | None:
        if not self._takes_part:
            return None
        torch.manual_seed(derive_seed(self.run.seed, "samples"))
        return draw(self.recipe, self.ema.networks, list(range(self.run.samples)))

    def _show(self, samples: torch.Tensor | list[str] | None) -> None:
        if self.world.main:
            self._check_place()
            medium, path = self.recipe.medium, self.folder / "samples" / f"step-{self.step:08d}"
            facts = self.recipe.data | {"sample_columns": self.recipe.sample_columns}
            self._sinks.show(self.step, save_samples(samples, path, medium, facts))
            if excerpt := medium.excerpt(samples):
                print(excerpt, flush=True)

    def _evaluate(self) -> None:
        def say(message) -> None:
            if self.world.main:
                print(f"step {self.step}: {message}", flush=True)

        with shard.whole(self.ema.networks.values()):
            self._sinks.write(self.step, measure(self.recipe, self.ema.networks, self.run, say))

    def _check_place(self) -> None:
        """Files are written by name: into another folder, once the run's has gone."""
        if self.world.main and not self._lock.in_place():
            gone = f"{self.folder} was moved or deleted while the run wrote to it"
            where = "Where it is now, its last checkpoint can be resumed with --out"
            raise TrainingError(f"step {self.step}: {gone}. {where}")

    def _safe(self, without: str = "") -> str:
        if self.world.main and not self._lock.held:
            return "nothing was written"
        with contextlib.suppress(OSError):
            self._writer.wait()
        kept = ckpt.list_checkpoints(self.folder / "checkpoints")
        where = f"The last good checkpoint is {kept[-1][1]}" if kept else "There is no checkpoint yet"
        return f"{where}. Resume with:\n  {self._resume(without)}"
