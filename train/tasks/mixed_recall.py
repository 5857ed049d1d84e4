"""Mixed recall: short and long dependencies in one sequence, so that a cell needs units of both kinds.

What Cho et al. 2014 ("Learning phrase representations using RNN encoder-decoder", section 2.3) expect of a
GRU's units, some for what was just seen and some for what was seen long ago, asks for such a task.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedRecall(base.Synthetic):
    """A symbol, then `gap` random fillers, then the query: say at a filler the one `lag` steps before it, at
    the query the symbol.

    With m symbols and d fillers: tokens 0..m-1 are the symbols, m..m+d-1 the fillers, m+d the query. Classes
    are tokens. The query's answer weighs as much as all the fillers' together, in the loss and in the metric:
    an accuracy of 0.99 is one of at least 0.98 in each. The first `lag` fillers have no answer; what stands
    there has weight 0.

    xs, ys (batch, gap + 2) int32.

    Options:
      gap: fillers between the symbol and the query: the long dependency spans gap + 1 steps.
      lag: steps of the short dependency.
      symbols: number of different symbols.
      distractors: number of different fillers.
    """

    name: ClassVar[str] = "mixed_recall"
    input_kind: ClassVar[str] = "tokens"
    per_step: ClassVar[bool] = True
    gap: int = 30
    lag: int = 1
    symbols: int = 8
    distractors: int = 8

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, gap=2, lag=1, symbols=2, distractors=2)
        base.require(self, "lag", self.lag < self.gap, f"below gap = {self.gap}")

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.symbols + self.distractors + 1,
            output_size=self.symbols + self.distractors,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=(1 / self.symbols + 1 / self.distractors) / 2,
            time=self.gap + 2,
        )

    def sample(self, key, batch_size):
        key_symbol, key_fillers = jax.random.split(key)
        query = self.symbols + self.distractors
        symbol = jax.random.randint(key_symbol, (batch_size, 1), 0, self.symbols)
        fillers = jax.random.randint(key_fillers, (batch_size, self.gap), self.symbols, query)
        xs = jnp.concatenate([symbol, fillers, jnp.full((batch_size, 1), query)], axis=1)
        ys = jnp.roll(xs, self.lag, axis=1)
        ys = ys.at[:, : self.lag + 1].set(0).at[:, -1].set(symbol[:, 0])
        weights = jnp.zeros(ys.shape).at[:, self.lag + 1 : -1].set(1 / (self.gap - self.lag))
        weights = weights.at[:, -1].set(1)
        return xs, ys, weights, weights
