"""The adding problem (Hochreiter & Schmidhuber 1997, "Long short-term memory", experiment 4)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adding(base.Stretchable):
    """Each step shows a value in U[0, 1) and a marker; the answer is the sum of the two marked values.

    One marker falls in the first half of the sequence, one in the second. Always answering 1 gives a mean
    squared error of 1/6, the variance of the sum.

    xs (batch, length, 2) float32: value, marker (0 or 1). ys (batch, 1) float32.

    Options:
      length: number of steps.
      max_length: the longest length that the compiled program can take; 0: just `length`, without padding.
      eval_length: `length` of the held-out examples; 0: as in training.
    """

    name: ClassVar[str] = "adding"
    input_kind: ClassVar[str] = "features"
    stretch: ClassVar[str] = "length"
    shortest: ClassVar[int] = 2
    length: int = 200
    max_length: int = 0
    eval_length: int = 0

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=2,
            output_size=1,
            per_step=self.per_step,
            pooling="last",
            loss="squared_error",
            metric="mse",
            threshold=0.01,
            baseline=1 / 6,
            time=self.longest,
            eval_time=self.eval_time,
        )

    def sample(self, key, batch_size, length=None):
        length = self.length if length is None else length
        key_values, key_first, key_second = jax.random.split(key, 3)
        values = jax.random.uniform(key_values, (batch_size, self.longest))
        first = jax.random.randint(key_first, (batch_size,), 0, length // 2)
        second = jax.random.randint(key_second, (batch_size,), length // 2, length)
        markers = jax.nn.one_hot(first, self.longest) + jax.nn.one_hot(second, self.longest)
        xs = jnp.stack([values, markers], axis=-1)
        ys = (values * markers).sum(axis=1, keepdims=True)
        ones = jnp.ones(batch_size)
        return xs, ys, ones, ones

    def real_length(self, length):
        return length
