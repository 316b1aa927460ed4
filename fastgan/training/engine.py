"""The engine: runs any recipe from a fresh folder or a checkpoint to its last step, on one process or many.

A run is a function of its configuration and of the counters in the checkpoint (step, update, images): random generators are
seeded from them before each update, and the loader continues at the image it had reached. So there is no generator state to
save, and a run that was killed at any moment repeats the steps since its last checkpoint exactly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import time
from pathlib import Path

import torch

from fastgan.training import checkpoint as ckpt
from fastgan.training.batch import Batch, derive_seed
from fastgan.training.distributed import World, join
from fastgan.training.ema import EMA
from fastgan.training.log import MetricsLog, Progress, save_samples
from fastgan.training.recipe import Recipe, RecipeConfig
from fastgan.training.report import write_report
from fastgan.training.run import RunConfig, find_folder, write_config


class TrainingError(RuntimeError):
    """The run cannot go on; the message says why, what is safe on disk, and how to resume."""


class Interrupted(Exception):
    """A signal ended the run after a checkpoint was written. `signal` is its number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


def draw(recipe: Recipe, networks: dict, seeds: list[int], chunk: int = 64) -> torch.Tensor | list[str]:
    """Samples of `seeds` without gradients, `chunk` at a time: float [N, C, H, W] on the CPU, or texts."""
    with torch.no_grad():
        parts = [recipe.sample(networks, seeds[i : i + chunk]) for i in range(0, len(seeds), chunk)]
    return sum(parts, []) if isinstance(parts[0], list) else torch.cat([part.float().cpu() for part in parts])


class Trainer:
    """Trains one recipe on one data set in one run folder.

    Args:
        recipe: a recipe class, for example `fastgan.recipes.get("dcgan")`.
        config: the recipe's options; its defaults if None.
        run: data, folder and everything around the recipe; defaults if None.
        dataset: used instead of loading `run.data`.

    Attributes: `recipe`, `dataset`, `world`, `folder`, `step` (training steps done), `ema`.

    Raises ValueError for options that do not fit the data, or a folder that holds another run.
    """

    def __init__(
        self,
        recipe: type[Recipe],
        config: RecipeConfig | None = None,
        run: RunConfig | None = None,
        *,
        dataset=None,
    ):
        self.config, self.run = config or recipe.Config(), run or RunConfig()
        for name, value in (("steps", self.config.steps), ("batch_size", self.config.batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        for name in ("log_every", "sample_every", "checkpoint_every", "keep", "samples"):
            if getattr(self.run, name) < 1:
                raise ValueError(f"{name} is {getattr(self.run, name)}, expected at least 1")
        self.world: World = join(self.run.device)
        if dataset is None:
            options = ("resolution", "crop", "flip", "strict")
            dataset = recipe.load_data(self.run.data, self.config, **{k: getattr(self.run, k) for k in options})
        self.dataset = dataset
        torch.manual_seed(derive_seed(self.run.seed, "weights"))
        # cuDNN's fastest algorithms are not the same in every run; the contract is bit-for-bit resume.
        torch.backends.cudnn.deterministic = True
        self.recipe = recipe(self.config, recipe.describe(dataset))
        for network in self.recipe.networks.values():
            network.to(self.world.device)
        folder = find_folder(recipe.name, self.run) if self.world.main else ""
        self.folder = Path(self.world.agree(str(folder)))
        self.step = self.update = self.images = 0
        self.seconds = 0.0
        self._signal = 0
        self._health = torch.zeros((), device=self.world.device)
        self._items: tuple[torch.Tensor, ...] = ()

    @property
    def resume_command(self) -> str:
        """The shell command that continues this run."""
        many = f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', self.world.size)} -m "
        start = many if self.world.size > 1 else ""
        return f"{start}fastgan train {self.recipe.name} --out {shlex.quote(str(self.folder))} --resume"

    def train(self) -> Path:
        """Run to `config.steps`; returns the run folder.

        Raises:
            Interrupted: SIGINT or SIGTERM; a checkpoint has been written.
            TrainingError: a loss or gradient is not finite, or the disk is full.
        """
        self._begin()
        progress = log = None
        handlers = self._catch_signals()
        try:
            if self.world.main:
                log = MetricsLog(self.folder, self.step)
                progress = Progress(self.config.steps, self.step)
                progress.say(
                    f"{self.recipe.name}: {len(self.dataset)} items of {self.recipe.data.get('name')}, {self.folder}"
                )
            self._loop(log, progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TrainingError(f"the disk is full ({error}). {self._safe()}") from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._loader.close()
            with contextlib.suppress(Exception):  # an error on the way out must not hide the one that led here
                self._writer.wait()
            for thing in (progress, log):
                if thing is not None:
                    thing.close()
        if self._signal and self.step < self.config.steps:
            name = signal.Signals(self._signal).name
            raise Interrupted(self._signal, f"{name}: saved step {self.step}. Resume with:\n  {self.resume_command}")
        return self.folder

    def close(self) -> None:
        """Leave the process group, where there is one."""
        self.world.close()

    def _begin(self) -> None:
        """Folder, networks and counters: from the newest checkpoint, or by the recipe's preparation."""
        recipe = self.recipe
        checkpoints = self.folder / "checkpoints"
        if self.world.main:
            checkpoints.mkdir(parents=True, exist_ok=True)
            ckpt.sweep(checkpoints)
            write_config(self.folder, recipe, self.run)
        self.world.barrier()
        averaged = {name: recipe.networks[name] for name in recipe.averaged}
        found = ckpt.list_checkpoints(checkpoints) if self.run.resume else []
        if not found:
            recipe.prepare(self.dataset)
            if self.run.resume and self.world.main:
                print(f"{self.folder} holds no checkpoint yet: starting from step 0", flush=True)
        self.ema = EMA(averaged, self.config.ema_halflife)
        if found:
            self._restore(checkpoints)
        self.world.broadcast([t for network in recipe.networks.values() for t in network.state_dict().values()])
        from fastgan.data import Loader

        self._loader = Loader(
            self.dataset,
            self.config.batch_size,
            seed=self.run.seed,
            workers=self.run.workers,
            rank=self.world.rank,
            world_size=self.world.size,
            start=self.images,
        )
        self._writer = ckpt.Writer(checkpoints, self.run.keep)
        self._saved = self.step if found else -1

    def _restore(self, checkpoints: Path) -> None:
        quiet = None if self.world.main else (lambda text: None)
        loaded = ckpt.load_checkpoint(checkpoints, say=quiet)
        for name, network in self.recipe.networks.items():
            ckpt.load_network(network, loaded.under(f"network/{name}/"), name)
        for name, network in self.ema.networks.items():
            ckpt.load_network(network, loaded.under(f"ema/{name}/"), f"the average of {name}")
        for name, optimizer in self.recipe.optimizers.items():
            ckpt.unpack_optimizer(optimizer, loaded.under(f"optimizer/{name}/"), loaded.state["optimizers"][name])
        for counter in ("step", "update", "images", "seconds"):
            setattr(self, counter, loaded.state[counter])
        if self.world.main:
            print(f"resuming {self.folder} at step {self.step}", flush=True)

    def _loop(self, log: MetricsLog | None, progress: Progress | None) -> None:
        run, began, waited, shown = self.run, time.perf_counter(), 0.0, self.step
        if self.step == 0:
            self._sample(log)
        stop = False
        while self.step < self.config.steps and not stop:
            values, stop = self._train_step()
            due = self.step % run.log_every == 0 or self.step == self.config.steps
            if self.world.main and due:
                now = time.perf_counter()
                rate = (self.step - shown) * self.config.batch_size * self.world.size / (now - began)
                wait = (self._loader.wait_seconds - waited) / (now - began)
                self.seconds += now - began
                began, waited, shown = now, self._loader.wait_seconds, self.step
                row = {name: float(value) for name, value in values.items()}
                row |= {"speed/images_per_second": rate, "speed/data_wait_share": wait, "seconds": self.seconds}
                log.write(self.step, row)
                progress.show(self.step, row, rate)
            last = stop or self.step == self.config.steps
            if last or self.step % run.checkpoint_every == 0:
                self._save()
            if self.step == self.config.steps or self.step % run.sample_every == 0:
                self._sample(log)
        self._writer.wait()
        if self.world.main:
            write_report(self.folder)

    def _train_step(self) -> tuple[dict[str, torch.Tensor], bool]:
        """All updates of one step and the moving average; returns the logged values and whether to stop."""
        logs, stop = {}, False
        # Reading a value waits for a GPU; on the CPU it is free, and a bad update is caught before it is made.
        look = (
            self.world.device.type == "cpu" or (self.step + 1) % min(self.run.log_every, self.run.checkpoint_every) == 0
        )
        for update in self.recipe.updates(self.step):
            values, votes = self._update(update, look)
            logs |= values
            stop = stop or (look and float(votes) > 0)
        self.step += 1
        images = self.config.batch_size * self.world.size
        self.ema.update(images, self.step * images)
        return logs, stop

    def _update(self, update, look: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        device, world = self.world.device, self.world
        if update.fresh or not self._items:
            self._items = tuple(_to_device(item, device) for item in next(self._loader))
            self.images = self._loader.consumed
        batch = Batch(self._items, self.run.seed, self.update, world.rank, world.size)
        torch.manual_seed(derive_seed(self.run.seed, self.update, "rank", world.rank))
        optimizer = self.recipe.optimizers[update.optimizer]
        for name, other in self.recipe.optimizers.items():
            for group in other.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(name == update.optimizer)
        optimizer.zero_grad(set_to_none=True)
        values = update.loss(batch)
        values["loss"].backward()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        vote = torch.tensor(float(self._signal > 0), device=device)
        averaged = world.average(gradients, [*values.values(), vote])
        norm = torch.nn.utils.get_total_norm(gradients)
        self._health = self._health + averaged.sum() + norm
        if look and not torch.isfinite(self._health):
            found = ", ".join(f"{n} {float(v):.4g}" for n, v in zip(values, averaged, strict=False))
            raise TrainingError(
                f"step {self.step + 1}: the {update.optimizer}'s loss or gradient is not finite "
                f"({found}, gradient {float(norm):.4g}). {self._safe()}\nA lower --lr usually helps."
            )
        optimizer.step()
        self.update += 1
        named = {f"{update.optimizer}/{name}": v for name, v in zip(values, averaged, strict=False)}
        return {**named, f"{update.optimizer}/gradient": norm}, averaged[-1]

    def _save(self) -> None:
        if not self.world.main or self._saved == self.step:
            return
        tensors, optimizers = {}, {}
        for kind, networks in (("network", self.recipe.networks), ("ema", self.ema.networks)):
            for name, network in networks.items():
                tensors |= {f"{kind}/{name}/{key}": value for key, value in network.state_dict().items()}
        for name, optimizer in self.recipe.optimizers.items():
            packed, optimizers[name] = ckpt.pack_optimizer(f"optimizer/{name}/", optimizer)
            tensors |= packed
        counters = {name: getattr(self, name) for name in ("step", "update", "images", "seconds")}
        self._writer.save(self.step, tensors, {**counters, "seed": self.run.seed, "optimizers": optimizers})
        self._saved = self.step

    def _sample(self, log: MetricsLog | None) -> None:
        if self.world.main:
            torch.manual_seed(derive_seed(self.run.seed, "samples"))
            samples = draw(self.recipe, self.ema.networks, list(range(self.run.samples)))
            path = save_samples(samples, self.folder / "samples" / f"step-{self.step:08d}")
            if path.suffix == ".png":
                log.picture(self.step, path)
            write_report(self.folder)

    def _safe(self) -> str:
        with contextlib.suppress(OSError):
            self._writer.wait()
        kept = ckpt.list_checkpoints(self.folder / "checkpoints")
        where = f"The last good checkpoint is {kept[-1][1]}" if kept else "There is no checkpoint yet"
        return f"{where}. Resume with:\n  {self.resume_command}"

    def _catch_signals(self) -> dict:
        """The first SIGINT or SIGTERM asks to stop after this step; the next one acts as usual."""

        def ask(number, frame):
            self._signal = number
            signal.signal(number, before[number])

        before = {}
        with contextlib.suppress(ValueError):  # only the main thread may; elsewhere a run just cannot be interrupted
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, ask)
        return before


def _to_device(item: torch.Tensor, device: torch.device) -> torch.Tensor:
    from fastgan.data import to_float

    item = item.to(device, non_blocking=True)
    return to_float(item) if item.dtype == torch.uint8 else item
