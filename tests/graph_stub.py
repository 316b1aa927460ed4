"""CUDA graphs on the CPU: what a function computes is recorded operation by operation, and a replay runs these operations alone,
from the same memory into the same memory. None of the function's Python runs again, so whatever the host decided or read is as
old as in a graph on a GPU; graphs write over each other's results; and what would stop a capture there stops it here: a value
read on the host, a tensor made from numbers of the host."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.item.default, aten.equal.default, aten.nonzero.default}
READS |= {aten.is_nonzero.default, aten.masked_select.default}
MADE = {aten.lift_fresh.default}  # torch.tensor([1, 2]): on a GPU a copy that waits


def tensors(tree) -> list[torch.Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, torch.Tensor)]


class Recording(TorchDispatchMode):
    """Runs what it records, and takes back what that wrote into memory that was there before."""

    def __init__(self):
        super().__init__()
        self.steps, self.found, self.made, self.memory = [], {}, set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in READS or (function in MADE and args[0].device.type == "cpu"):
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        kwargs = kwargs or {}
        flat, spec = tree_flatten((args, kwargs))
        for x in flat:
            if isinstance(x, torch.Tensor):
                key = x.untyped_storage().data_ptr()
                if key not in self.made and key not in self.found:
                    self.found[key] = (x.untyped_storage(), x.untyped_storage().clone())
        result = function(*args, **kwargs)
        for x in tensors(result):
            if (key := x.untyped_storage().data_ptr()) not in self.found and key not in self.made:
                self.made.add(key)
                self.memory.append(x)
        self.steps.append((function, flat, spec, result))
        return result

    def undo(self) -> None:
        for storage, before in self.found.values():
            storage.copy_(before)

    @torch.no_grad()
    def spoil(self) -> None:
        """What another graph does, as their memory is one."""
        for x in self.memory:
            if x.is_floating_point():
                x.detach().fill_(float("nan"))

    def replay(self) -> None:
        with torch.no_grad():
            for function, flat, spec, result in self.steps:
                args, kwargs = tree_unflatten(flat, spec)
                for old, new in zip(tensors(result), tensors(function(*args, **kwargs)), strict=True):
                    if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                        old.copy_(new)


class Stub:
    """Stands in for `fastgan.cuda_graph.Cuda`. `captured` counts over all."""

    captured = replayed = 0

    def __init__(self, device):
        assert device.type == "cpu"
        self._all = []

    @staticmethod
    def why_not(device) -> str:
        return ""

    def aside(self, function):
        return function()

    def capture(self, function):
        recording = Recording()
        state = torch.get_rng_state()
        with recording:
            result = function()
        recording.undo()
        torch.set_rng_state(state)
        Stub.captured += 1
        self._all.append(recording)

        def replay():
            Stub.replayed += 1
            for other in self._all:
                if other is not recording:
                    other.spoil()
            recording.replay()

        return replay, result
