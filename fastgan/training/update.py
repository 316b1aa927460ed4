"""One optimiser step: the loss in pieces and in the chosen precision, gradients averaged once, checked, applied."""

from __future__ import annotations

import torch

from fastgan.training.batch import Batch, derive_seed
from fastgan.training.compiled import Step, compiled_step, gradient_step
from fastgan.training.distributed import World
from fastgan.training.graphs import Graphs, Result
from fastgan.training.pieces import State
from fastgan.training.recipe import Recipe, Update
from fastgan.training.run import RunOptions
from fastgan.training.shard import backward_step, is_shard, local

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFinite(RuntimeError):
    """A loss or gradient is infinite or NaN; nothing of this update has reached the weights, on the CPU."""


class Updater:
    """Runs the updates of `recipe`.

    Losses see the batch in `run.grad_accum` pieces of equal size, one after the other, so that memory is a piece's;
    their mean, and the mean of the gradients, is that of the whole batch (`fastgan.training.pieces`). With `run.precision`
    bf16 or fp16 the loss runs under autocast; fp16's is multiplied by a scale that halves where a gradient overflows (that
    step is left out) and grows again, one per optimiser. With `run.compile` each loss is compiled together with its
    gradients, penalties included; the first call of each takes a minute. With `run.graphs` each update, its optimiser's step
    included, becomes a CUDA graph (`fastgan.training.graphs`).

    Attributes: `scalers`, by optimiser, empty unless fp16.
    """

    def __init__(self, recipe: Recipe, world: World, run: RunOptions):
        self.recipe, self.world, self.run = recipe, world, run
        self.dtype = DTYPES[run.precision]
        self.scalers = {}
        if run.precision == "fp16":
            self.scalers = {name: torch.amp.GradScaler(world.device.type) for name in recipe.optimizers}
        self._steps = {}
        self._health = torch.zeros((), device=world.device)
        self._graphs = Graphs(recipe, world, run) if run.graphs else None

    def __call__(
        self,
        update: Update,
        items: tuple[torch.Tensor, ...],
        number: int,
        stop: bool,
        look: bool,
        carried: dict[str, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], bool]:
        """Make one update.

        Args:
            items: this process's batch, on its device.
            number: of the update in the run; with the seed and the rank it decides every random draw.
            stop: this process asks to stop.
            look: read the health of this update and those before, and who asks to stop, which waits for a GPU.
            carried: what updates on the same items have kept; this one's is added.

        Returns: the logged values, means over processes, which the next update may overwrite, and whether to stop. Raises
        NotFinite, PeerLost, CannotCapture.
        """
        optimizer = self.recipe.optimizers[update.optimizer]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._seed = derive_seed(self.run.seed, number, "rank", self.world.rank)
        torch.manual_seed(self._seed)
        if self._graphs is None:
            pieces = 1 if update.whole else self.run.grad_accum
            places = (self.world, self.run.seed, number)
            batches = [Batch(items, *places, i, pieces, carried) for i in range(pieces)]
            logs, kept, stop = self._gradients(update, parameters, batches, stop, look)
            if look:
                self._check(update, logs)
            self._apply(update, logs)
        else:  # one process alone, which asks nobody whether to stop

            def whole(batch: Batch) -> Result:
                logs, kept, _ = self._gradients(update, parameters, [batch], False, False)
                self._apply(update, logs)
                return logs, kept

            logs, kept = self._graphs(update, whole, items, number, carried)
            if look:
                self._check(update, logs)
        carried |= kept
        return logs, stop

    def _gradients(
        self, update: Update, parameters: list[torch.Tensor], batches: list[Batch], stop: bool, look: bool
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], bool]:
        """Fill `.grad` with the means over pieces and processes; (logged values, what was kept, whether to stop)."""
        self._choose(parameters)
        values, kept = self._backward(update, parameters, batches)
        gradients = [p.grad for p in parameters if p.grad is not None]
        alone = self.world.size == 1
        votes = [] if alone else [torch.full((), float(stop), device=self.world.device)]
        # Shards are means already; the square of their norm travels with the rest.
        shards = [local(g) for g in gradients if is_shard(g)]
        gradients = [g for g in gradients if not is_shard(g)]
        squares = [torch.nn.utils.get_total_norm(shards).square()] if shards else []
        averaged = self.world.average(gradients, [*values.values(), *squares, *votes], self.recipe.running)
        scaler = self.scalers.get(update.optimizer)
        if scaler:
            scaler.unscale_(self.recipe.optimizers[update.optimizer])
        norm = torch.nn.utils.get_total_norm(gradients)
        if shards:
            norm = (norm.square() + averaged[len(values)] * self.world.size).sqrt()
        logs = {f"{update.optimizer}/{name}": v for name, v in zip(values, averaged, strict=False)}
        logs[f"{update.optimizer}/gradient"] = norm
        self._health += averaged.sum() + (0 if scaler else norm)
        return logs, kept, stop if alone else look and float(averaged[-1]) > 0

    def _apply(self, update: Update, logs: dict[str, torch.Tensor]) -> None:
        optimizer, scaler = self.recipe.optimizers[update.optimizer], self.scalers.get(update.optimizer)
        if scaler:
            logs[f"{update.optimizer}/scale"] = torch.tensor(scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()

    def _choose(self, parameters: list[torch.Tensor]) -> None:
        for optimizer in self.recipe.optimizers.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    def _backward(
        self, update: Update, parameters: list[torch.Tensor], batches: list[Batch]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Fill `.grad`; returns the loss's values and what it kept. Values and gradients are means over the pieces, and
        `.grad` has the loss's scale."""
        step, pieces = self._step(update, parameters), len(batches)
        state = State(self.recipe.networks, self.recipe.running, pieces)
        weight = torch.full((), 1 / pieces, device=self.world.device)
        if update.optimizer in self.scalers:
            weight = self.scalers[update.optimizer].scale(weight)
        total: dict[str, torch.Tensor] = {}
        summed: list[torch.Tensor | None] = []
        kept: dict[str, list[torch.Tensor]] = {}
        for i, batch in enumerate(batches):
            state.begin(i)
            if i:
                torch.manual_seed(self._seed)
            values, gradients = step(batch, weight=weight)
            for name, tensor in batch.keeps.items():
                kept.setdefault(name, []).append(tensor)
            state.end()
            if i == 0:
                summed = list(gradients)
            else:
                for have, more in zip(summed, gradients, strict=True):
                    if more is not None:
                        have += more
            for name, value in values.items():
                total[name] = total.get(name, 0) + value / pieces
        state.close()
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient
        # Piece i has images i, i + pieces, ...: in turn they make the whole again.
        return total, {name: torch.stack(parts, 1).flatten(0, 1) for name, parts in kept.items()}

    def _step(self, update: Update, parameters: list[torch.Tensor]) -> Step:
        key = update.optimizer, update.loss
        if key not in self._steps:
            make = compiled_step if self.run.compile else gradient_step
            if any(map(is_shard, parameters)):
                make = backward_step
            self._steps[key] = make(self._loss(update), parameters)
        return self._steps[key]

    def _loss(self, update: Update):
        if self.dtype is None:
            return update.loss

        def loss(batch: Batch) -> dict[str, torch.Tensor]:
            with torch.autocast(self.world.device.type, dtype=self.dtype):
                return update.loss(batch)

        return loss

    def _check(self, update: Update, logs: dict[str, torch.Tensor]) -> None:
        scaler = self.scalers.get(update.optimizer)
        if not torch.isfinite(self._health):
            found = ", ".join(f"{name.rpartition('/')[2]} {float(v):.4g}" for name, v in logs.items())
            raise NotFinite(f"the {update.optimizer}'s loss or gradient is not finite ({found})")
        if scaler and scaler.get_scale() < 1:
            raise NotFinite(
                f"the {update.optimizer}'s gradients overflow float16 even at a loss scale of {scaler.get_scale():g}; "
                "use --precision bf16 or fp32"
            )
