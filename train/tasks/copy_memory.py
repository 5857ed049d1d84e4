"""Copy memory (Hochreiter & Schmidhuber 1997), in the form of Arjovsky et al. 2016, "Unitary evolution
recurrent neural networks", section 5.1."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyMemory(base.Stretchable):
    """Read `items` symbols, wait, and write them down in order after a delimiter.

    With m symbols: tokens 0..m-1 are the symbols, m is the blank, m+1 the delimiter.

        xs: s_1 .. s_items | length - 1 blanks | delimiter | items blanks
        ys: length + items blanks                          | s_1 .. s_items

    The loss covers all positions, the metric only the last `items`. Without memory the best answer is blanks
    and then a guess: accuracy 1 / symbols, cross-entropy items * ln(symbols) / (length + 2 * items).

    xs, ys (batch, length + 2 * items) int32.

    Options:
      length: steps from the end of the symbols to the delimiter, which is the last of them.
      max_length: the longest length that the compiled program can take; 0: just `length`, without padding.
      eval_length: `length` of the held-out examples; 0: as in training.
      symbols: number of different symbols.
      items: how many are to be kept.
    """

    name: ClassVar[str] = "copy_memory"
    input_kind: ClassVar[str] = "tokens"
    per_step: ClassVar[bool] = True
    of_recall: ClassVar[bool] = True
    stretch: ClassVar[str] = "length"
    length: int = 100
    max_length: int = 0
    eval_length: int = 0
    symbols: int = 8
    items: int = 10

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, symbols=2, items=1)

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.symbols + 2,
            output_size=self.symbols + 1,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / self.symbols,
            time=self.longest + 2 * self.items,
            eval_time=self.eval_time,
        )

    def sample(self, key, batch_size, length=None):
        length = self.length if length is None else length
        blank, delimiter = self.symbols, self.symbols + 1
        symbols = jax.random.randint(key, (batch_size, self.items), 0, self.symbols)
        step = jnp.arange(self.longest + 2 * self.items)
        answer = length + self.items  # the step at which the answer begins
        item = jnp.clip(step - answer, 0, self.items - 1)
        answering = (step >= answer) & (step < answer + self.items)
        ys = jnp.where(answering, symbols[:, item], blank)
        xs = jnp.full(ys.shape, blank).at[:, : self.items].set(symbols)
        xs = jnp.where(step == answer - 1, delimiter, xs)
        real = jnp.broadcast_to(step < answer + self.items, ys.shape)
        return xs, ys, real.astype(jnp.float32), (real & answering).astype(jnp.float32)

    def real_length(self, length):
        return length + 2 * self.items
