"""One optimiser step: the loss in pieces and in the chosen precision, gradients averaged once, checked, applied."""

from __future__ import annotations

import torch

from fastgan.training.batch import Batch, derive_seed
from fastgan.training.compiled import Step, compiled_step, gradient_step
from fastgan.training.distributed import World
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
    gradients, penalties included; the first call of each takes a minute.

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

    def __call__(
        self,
        update: Update,
        items: tuple[torch.Tensor, ...],
        number: int,
        stop: bool,
        look: bool,
        carried: dict[str, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Make one update.

        Args:
            items: this process's batch, on its device.
            number: of the update in the run; with the seed and the rank it decides every random draw.
            stop: this process asks to stop.
            look: read the health of this update and those before, which waits for a GPU.
            carried: what updates on the same items have kept; this one's is added.

        Returns: the logged values, means over processes, and the mean of `stop`. Raises NotFinite, PeerLost.
        """
        optimizer = self.recipe.optimizers[update.optimizer]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._choose(parameters)
        values = self._backward(update, parameters, items, number, carried)
        gradients = [p.grad for p in parameters if p.grad is not None]
        vote = torch.tensor(float(stop), device=self.world.device)
        # Shards are means already; the square of their norm travels with the rest.
        shards = [local(g) for g in gradients if is_shard(g)]
        gradients = [g for g in gradients if not is_shard(g)]
        squares = [torch.nn.utils.get_total_norm(shards).square()] if shards else []
        averaged = self.world.average(gradients, [*values.values(), *squares, vote], self.recipe.running)
        scaler = self.scalers.get(update.optimizer)
        if scaler:
            scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        if shards:
            norm = (norm.square() + averaged[-2] * self.world.size).sqrt()
        logs = {f"{update.optimizer}/{name}": v for name, v in zip(values, averaged, strict=False)}
        logs[f"{update.optimizer}/gradient"] = norm
        self._health = self._health + averaged.sum() + (0 if scaler else norm)
        if look:
            self._check(update, logs, scaler)
        if scaler:
            logs[f"{update.optimizer}/scale"] = torch.tensor(scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        return logs, averaged[-1]

    def _choose(self, parameters: list[torch.Tensor]) -> None:
        for optimizer in self.recipe.optimizers.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    def _backward(
        self,
        update: Update,
        parameters: list[torch.Tensor],
        items: tuple[torch.Tensor, ...],
        number: int,
        carried: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Fill `.grad`; returns the loss's values. Both are means over the pieces, and `.grad` has the loss's scale."""
        step, pieces = self._step(update, parameters), 1 if update.whole else self.run.grad_accum
        state = State(self.recipe.networks, self.recipe.running, pieces)
        weight = torch.tensor(1 / pieces, device=self.world.device)
        if update.optimizer in self.scalers:
            weight = self.scalers[update.optimizer].scale(weight)
        total: dict[str, torch.Tensor] = {}
        summed: list[torch.Tensor | None] = []
        kept: dict[str, list[torch.Tensor]] = {}
        for i in range(pieces):
            state.begin(i)
            torch.manual_seed(derive_seed(self.run.seed, number, "rank", self.world.rank))
            batch = Batch(items, self.world, self.run.seed, number, i, pieces, carried)
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
        # Piece i has images i, i + pieces, ...: in turn they make the whole again.
        carried |= {name: torch.stack(parts, 1).flatten(0, 1) for name, parts in kept.items()}
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient
        return total

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

    def _check(self, update: Update, logs: dict[str, torch.Tensor], scaler) -> None:
        if not torch.isfinite(self._health):
            found = ", ".join(f"{name.rpartition('/')[2]} {float(v):.4g}" for name, v in logs.items())
            raise NotFinite(f"the {update.optimizer}'s loss or gradient is not finite ({found})")
        if scaler and scaler.get_scale() < 1:
            raise NotFinite(
                f"the {update.optimizer}'s gradients overflow float16 even at a loss scale of {scaler.get_scale():g}; "
                "use --precision bf16 or fp32"
            )
