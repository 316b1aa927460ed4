"""Text generators: p(sentence) as a product over tokens. The LSTM of SeqGAN (Yu et al., 2017, section 3.3) is here,
the relational memory of RelGAN in `text_memory`, a decoder-only Transformer in `text_transformer`; the discriminators
are in `text_discriminator`.

Every generator can be read in two ways that agree to rounding: `hidden` takes whole sentences at once, for likelihoods
and their gradients; `begin` and `step` take one token at a time and carry a state (LSTM: h and c; relational: its
memory; Transformer: keys and values), for sampling. A state is a tuple of tensors whose first dimension is the batch,
so that rollouts continue many sentences from where they are by repeating rows, and never read a prefix again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan.fields import at_least
from fastgan.models.network import Network
from fastgan.ops.categorical import sample_categorical
from fastgan.ops.gumbel_softmax import gumbel_softmax

State = tuple[Tensor, ...]
# Added to the logit of a token that is never generated: exp(-1e4) is 0 in every float type, and no NaN can come of it.
NEVER = -1e4


@dataclass(frozen=True)
class TokenConfig:
    """What every generator needs to know about its tokens.

    Sentences have `length` positions and tokens 0 .. `vocabulary` - 1. Reading starts from token `start`. After token
    `end` (None: sentences fill every position) only `pad` follows. Where there is an `end`, `pad` and `start` are
    never generated themselves.
    """

    vocabulary: int = 5000
    length: int = 20
    start: int = 0
    end: int | None = None
    pad: int | None = None

    def __post_init__(self):
        for name, most in (("vocabulary", 1 << 24), ("length", 1 << 16)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"text: {name} is {getattr(self, name)}, expected 1 to {most}")
        if (self.end is None) != (self.pad is None):
            raise ValueError("text: end and pad belong together; give both or neither")
        if self.end is not None and self.end in (self.start, self.pad):
            raise ValueError(
                f"text: end is {self.end}, start {self.start} and pad {self.pad}: these are never generated; expected another end"
            )
        for name in ("start", "end", "pad"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocabulary:
                raise ValueError(f"text: {name} is {token}, expected a token in 0..{self.vocabulary - 1}")


class Generator(Network):
    """Base of the generators. A subclass has an `embedding`, an `output` (Linear to the vocabulary), and implements
    `hidden`, `begin` and `step`.
    """

    def __init__(self, config: TokenConfig):
        super().__init__()
        self.config = config
        never = torch.zeros(config.vocabulary)
        if config.end is not None:
            never[[config.pad, config.start]] = NEVER
        self.register_buffer("never", never, persistent=False)

    def hidden(self, before: Tensor) -> Tensor:
        """Features [N, L, H] after reading tokens `before` (int64 [N, L])."""
        raise NotImplementedError

    def begin(self, count: int) -> State:
        """The state before any token, for `count` sentences."""
        raise NotImplementedError

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token per sentence (int64 [N]): features [N, H] and the next state."""
        raise NotImplementedError

    def predict(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of the next token from features [..., H]."""
        return F.linear(hidden, self.output.weight, self.output.bias + self.never)

    def shift(self, tokens: Tensor) -> Tensor:
        """What precedes each token of a sentence: `start`, then the sentence without its last token."""
        return torch.cat([torch.full_like(tokens[:, :1], self.config.start), tokens[:, :-1]], dim=1)

    def logits(self, tokens: Tensor) -> Tensor:
        """[N, L, V]: at each position of `tokens` (int64 [N, L]), the prediction from the tokens before it."""
        return self.predict(self.hidden(self.shift(tokens)))

    def log_prob(self, tokens: Tensor) -> Tensor:
        """log p(token | tokens before it), [N, L]; where `tokens` is `pad` the number has no meaning."""
        logits = self.logits(tokens)
        return -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)

    def nll_loss(self, tokens: Tensor) -> Tensor:
        """Mean negative log-likelihood per token that is no padding: the loss of maximum likelihood training."""
        ignore = -100 if self.config.pad is None else self.config.pad
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), tokens.flatten(), ignore_index=ignore)

    def draw(self, hidden: Tensor, last: Tensor, temperature: float = 1.0, uniform: Tensor | None = None) -> Tensor:
        """The next token, int64 [N], drawn from softmax(logits / temperature); `pad` where `last` ended the
        sentence.
        """
        logits = self.predict(hidden)
        token = sample_categorical(logits if temperature == 1 else logits / temperature, uniform=uniform)
        return token if self.config.end is None else torch.where(self.ended(last), self.config.pad, token)

    def ended(self, last: Tensor) -> Tensor:
        """bool [N]: nothing but padding follows token `last`."""
        return (last == self.config.end) | (last == self.config.pad)

    @torch.no_grad()
    def sample(self, count: int, *, temperature: float = 1.0, uniform: Tensor | None = None) -> Tensor:
        """`count` sentences, int64 [count, length].

        `uniform` ([count, length], in [0, 1)) fixes the draws: row i of the result then depends on row i of it alone.
        Without it they come from torch's global generator.
        """
        state = self.begin(count)
        token = torch.full((count,), self.config.start, device=self.never.device)
        tokens = []
        for position in range(self.config.length):
            hidden, state = self.step(token, state)
            token = self.draw(hidden, token, temperature, None if uniform is None else uniform[:, position])
            tokens.append(token)
        return torch.stack(tokens, dim=1)

    def sample_soft(self, count: int, temperature: float) -> tuple[Tensor, Tensor]:
        """Differentiable sentences: y [count, L, V] = softmax((logits + Gumbel noise) / temperature), and their
        tokens.

        The token read next is the argmax of y, an exact draw from softmax(logits) at any temperature; gradients flow
        through y and the memory, not through that choice (Nie et al., 2019, eq. 4). Its softmax is over all tokens,
        also where a sentence has ended: there y is `pad`, without gradient.
        """
        config, state = self.config, self.begin(count)
        token = torch.full((count,), config.start, device=self.never.device)
        soft, tokens = [], []
        for _ in range(config.length):
            hidden, state = self.step(token, state)
            y = gumbel_softmax(self.predict(hidden), temperature)
            chosen = y.detach().argmax(dim=1)
            if config.end is not None:
                over = self.ended(token)
                chosen = torch.where(over, config.pad, chosen)
                y = torch.where(over[:, None], F.one_hot(chosen, config.vocabulary).to(y.dtype), y)
            token = chosen
            soft.append(y)
            tokens.append(token)
        return torch.stack(soft, dim=1), torch.stack(tokens, dim=1)

    @torch.no_grad()
    def rollouts(self, tokens: Tensor, count: int) -> Tensor:
        """`count` independent completions of every proper prefix: int64 [L - 1, count, N, L] from `tokens` [N, L].

        Entry [t] continues the first t + 1 tokens. The given sentences are read once; at position t the completions of
        all prefixes up to t advance together, (t + 1) count N rows in one step, each prefix's from the state that the
        reading left behind. Recomputing every prefix costs L (L - 1) steps of count N rows; this costs L (L - 1) / 2.
        """
        n, length = tokens.shape
        out = tokens.expand(length - 1, count, n, length).clone()
        given = self.begin(n)
        token = torch.full_like(tokens[:, 0], self.config.start)
        active: State = ()
        for t in range(length - 1):
            _, given = self.step(token if t == 0 else tokens[:, t - 1], given)
            # Rows that start here have read the tokens before t; reading token t itself is the first step they share.
            fresh = tuple(part.repeat(count, *[1] * (part.dim() - 1)) for part in given)
            active = tuple(torch.cat(parts) for parts in zip(active, fresh, strict=True)) if active else fresh
            last = out[: t + 1, :, :, t].reshape(-1)
            hidden, active = self.step(last, active)
            out[: t + 1, :, :, t + 1] = self.draw(hidden, last).view(t + 1, count, n)
        return out


@dataclass(frozen=True)
class LSTMConfig(TokenConfig):
    """SeqGAN's generator; the paper's synthetic experiment uses 32 and 32."""

    embedding: int = 32
    hidden: int = 32

    def __post_init__(self):
        super().__post_init__()
        at_least("text", self, embedding=1, hidden=1)


class LSTMGenerator(Generator):
    """One LSTM layer; all weights start from N(0, 0.1^2), biases at 0 (Yu et al., 2017, section 5.2)."""

    Config = LSTMConfig

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
        self.output = nn.Linear(config.hidden, config.vocabulary)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else nn.init.zeros_(parameter)

    def hidden(self, before: Tensor) -> Tensor:
        return self.lstm(self.embedding(before))[0]

    def begin(self, count: int) -> State:
        zeros = self.output.weight.new_zeros(count, self.config.hidden)
        return zeros, zeros

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        lstm = self.lstm
        weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
        state = torch.lstm_cell(self.embedding(token), state, *weights)
        return state[0], state
