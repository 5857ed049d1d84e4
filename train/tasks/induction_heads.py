"""Induction heads (Olsson 2022, "In-context learning and induction heads") as a task of their own: Gu & Dao
2023, "Mamba", section 4.1.2, after Dao 2022, "Hungry hungry hippos"."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class InductionHeads(base.Stretchable):
    """A special token stands once among random ones, and again at the end: which token came after it?

    With m symbols: tokens 0..m-1 are the symbols, m is the special one. Its place is uniform over all but
    the last two. Without memory a guess is right with 1 / symbols. The paper trains on 256 steps and tests
    on 64 to 2^20: `eval_length`.

    xs (batch, length) int32. ys (batch,) int32.

    Options:
      length: steps, the special token at the end among them.
      max_length: the longest length that the compiled program can take; 0: just `length`, without padding.
      eval_length: `length` of the held-out examples; 0: as in training.
      symbols: number of different tokens beside the special one; the paper has 16 tokens in all.
    """

    name: ClassVar[str] = "induction_heads"
    input_kind: ClassVar[str] = "tokens"
    of_recall: ClassVar[bool] = True
    stretch: ClassVar[str] = "length"
    shortest: ClassVar[int] = 3
    length: int = 256
    max_length: int = 0
    eval_length: int = 0
    symbols: int = 15

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, symbols=2)

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.symbols + 1,
            output_size=self.symbols,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / self.symbols,
            time=self.longest,
            eval_time=self.eval_time,
        )

    def sample(self, key, batch_size, length=None):
        length = self.length if length is None else length
        key_symbols, key_place = jax.random.split(key)
        symbols = jax.random.randint(key_symbols, (batch_size, self.longest), 0, self.symbols)
        place = jax.random.randint(key_place, (batch_size, 1), 0, length - 2)
        step = jnp.arange(self.longest)
        xs = jnp.where((step == place) | (step == length - 1), self.symbols, symbols)
        ones = jnp.ones(batch_size)
        return xs, jnp.take_along_axis(symbols, place + 1, axis=1)[:, 0], ones, ones

    def real_length(self, length):
        return length
