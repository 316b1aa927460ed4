"""The synthetic oracle of SeqGAN (Yu et al. 2017, section 5.1): a random LSTM that is the true distribution."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fastgan.ops.categorical import sample_categorical
from fastgan.untrusted import BadFile, clip, read_tensors, torch_file


class Oracle(nn.Module):
    """LSTM language model with every weight drawn from N(0, 1), whose likelihood of any sentence is exact.

    A generator trained on its samples can be judged by ``fastgan.metrics.text.nll(oracle, generated)``, NLL_oracle. The
    number depends on the drawn weights: compare only under one oracle, and beside the value of its own samples.
    """

    def __init__(self, vocabulary: int = 5000, hidden: int = 32, embedding: int = 32, seed: int = 0):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)
        random = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=random, device="cpu"))
        # One bias in the original cell; two drawn from N(0, 1) would add up to N(0, 2).
        nn.init.zeros_(self.lstm.bias_hh_l0)
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path) -> "Oracle":
        """From a ``state_dict`` of this class in a .safetensors file, or saved by ``torch.save`` (tensors only).

        Raises FileNotFoundError, and ValueError for a file with other content.
        """
        path = Path(path)
        try:
            state = read_tensors(path)[0] if path.suffix == ".safetensors" else torch_file.load(path)
        except BadFile as error:
            raise ValueError(f"{path}: no readable weights of an oracle ({error})") from error
        try:
            return cls._from_state(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_seqgan(cls, arrays: Sequence) -> "Oracle":
        """From the 15 arrays of the original's parameter list.

        Embedding [V, E], then input, recurrent and bias weights ([E, H], [H, H], [H]) of the input, forget and output
        gates and of the cell, then output weight [H, V] and bias [V].
        """
        if len(arrays) != 15:
            raise ValueError(f"arrays: expected 15, got {len(arrays)}")
        tensors = [torch.as_tensor(a, dtype=torch.float32) for a in arrays]
        embedding, *gates, weight, bias = tensors
        i, f, o, c = (gates[k : k + 3] for k in range(0, 12, 3))
        order = (i, f, c, o)  # torch's
        state = {
            "embedding.weight": embedding,
            "lstm.weight_ih_l0": torch.cat([g[0].T for g in order]),
            "lstm.weight_hh_l0": torch.cat([g[1].T for g in order]),
            "lstm.bias_ih_l0": torch.cat([g[2] for g in order]),
            "lstm.bias_hh_l0": torch.zeros(4 * len(i[2])),
            "output.weight": weight.T.contiguous(),
            "output.bias": bias,
        }
        return cls._from_state(state)

    @classmethod
    def _from_state(cls, state: dict[str, Tensor]) -> "Oracle":
        """Shapes are compared before anything is built, so that memory stays that of ``state``."""
        sides = {"embedding.weight": "VE", "output.weight": "VH", "output.bias": "V", "lstm.weight_ih_l0": "GE"}
        sides |= {"lstm.weight_hh_l0": "GH", "lstm.bias_ih_l0": "G", "lstm.bias_hh_l0": "G"}
        if not isinstance(state, dict) or state.keys() != sides.keys():
            found = ", ".join(map(clip, list(state)[:10])) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"oracle weights: expected {', '.join(sides)}; found {found}")
        sizes: dict[str, int] = {}
        for name, letters in sides.items():
            shape = list(state[name].shape) if isinstance(state[name], Tensor) else None
            expected = [sizes.setdefault(letter, side) for letter, side in zip(letters, shape or (), strict=False)]
            # Elements of stride 0 would be many without a byte in the file.
            if shape is None or len(shape) != len(letters) or shape != expected or not state[name].is_contiguous():
                raise ValueError(
                    f"oracle weights: {name} has shape {shape}, expected [{', '.join(letters)}] with {sizes}"
                )
        if sizes["G"] != 4 * sizes["H"] or 0 in sizes.values():
            raise ValueError(f"oracle weights: G = 4 H gates of H units, expected in {sizes}")
        oracle = cls(sizes["V"], sizes["H"], sizes["E"])
        oracle.load_state_dict(state)
        return oracle

    def log_prob(self, tokens: Tensor) -> Tensor:
        """log p(token | tokens before it) of ``tokens`` (int64 [N, L]): float32 [N, L]. Sentences start from token 0."""
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], dim=1)
        hidden, _ = self.lstm(self.embedding(before))
        logits = self.output(hidden)
        return logits.gather(2, tokens[..., None])[..., 0] - logits.logsumexp(2)

    @torch.no_grad()
    def sample(self, count: int, length: int = 20, seed: int = 0, batch_size: int = 1000) -> Tensor:
        """``count`` sentences, int64 [count, length] on the CPU; the same seed gives the same sentences."""
        device = self.embedding.weight.device
        random = torch.Generator(device).manual_seed(seed)
        batches = []
        for start in range(0, count, batch_size):
            token = torch.zeros(min(batch_size, count - start), 1, dtype=torch.int64, device=device)
            state, tokens = None, []
            for _ in range(length):
                hidden, state = self.lstm(self.embedding(token), state)
                token = sample_categorical(self.output(hidden), random)
                tokens.append(token)
            batches.append(torch.cat(tokens, dim=1).cpu())
        return torch.cat(batches) if batches else torch.zeros(0, length, dtype=torch.int64)
