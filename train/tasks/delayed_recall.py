"""Delayed recall: one symbol, a gap, a question. The cleanest measure of how far a cell remembers.

The latch problem of Bengio, Simard & Frasconi 1994 ("Learning long-term dependencies with gradient descent is
difficult"), with more symbols and the moment of the answer marked.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class DelayedRecall(base.Stretchable):
    """A symbol, then `gap` random fillers, then the query: which symbol was it?

    With m symbols and d distractors: tokens 0..m-1 are the symbols, m..m+d-1 the fillers, m+d the query.

    xs (batch, gap + 2) int32. ys (batch,) int32.

    Options:
      gap: number of steps between the symbol and the query.
      max_gap: the longest gap that the compiled program can take; 0: just `gap`, without padding.
      eval_gap: `gap` of the held-out examples; 0: as in training.
      symbols: number of different symbols.
      distractors: number of different fillers; 1 is a constant blank.
    """

    name: ClassVar[str] = "delayed_recall"
    input_kind: ClassVar[str] = "tokens"
    stretch: ClassVar[str] = "gap"
    gap: int = 100
    max_gap: int = 0
    eval_gap: int = 0
    symbols: int = 8
    distractors: int = 8

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, symbols=2, distractors=1)

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.symbols + self.distractors + 1,
            output_size=self.symbols,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / self.symbols,
            time=self.longest + 2,
            eval_time=self.eval_time,
        )

    def sample(self, key, batch_size, gap=None):
        gap = self.gap if gap is None else gap
        key_symbol, key_fillers = jax.random.split(key)
        query = self.symbols + self.distractors
        symbol = jax.random.randint(key_symbol, (batch_size,), 0, self.symbols)
        fillers = jax.random.randint(key_fillers, (batch_size, self.longest), self.symbols, query)
        xs = jnp.concatenate([symbol[:, None], fillers, jnp.full((batch_size, 1), query)], axis=1)
        xs = jnp.where(jnp.arange(self.longest + 2) == gap + 1, query, xs)
        ones = jnp.ones(batch_size)
        return xs, symbol, ones, ones

    def real_length(self, gap):
        return gap + 2
