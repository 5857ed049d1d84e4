"""Copy memory (Hochreiter & Schmidhuber 1997), in the form of Arjovsky et al. 2016, "Unitary evolution
recurrent neural networks", section 5.1."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyMemory(base.Synthetic):
    """Read `items` symbols, wait, and write them down in order after a delimiter.

    With m symbols: tokens 0..m-1 are the symbols, m is the blank, m+1 the delimiter.

        xs: s_1 .. s_items | length - 1 blanks | delimiter | items blanks
        ys: length + items blanks                          | s_1 .. s_items

    The loss covers all positions, the metric only the last `items`. Without memory the best answer is blanks
    and then a guess: accuracy 1 / symbols, cross-entropy items * ln(symbols) / (length + 2 * items).

    xs, ys (batch, length + 2 * items) int32.

    Options:
      length: steps from the end of the symbols to the delimiter, which is the last of them.
      symbols: number of different symbols.
      items: how many are to be kept.
    """

    name: ClassVar[str] = "copy_memory"
    length: int = 100
    symbols: int = 8
    items: int = 10

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, length=1, symbols=2, items=1)

    def spec(self, data):
        return base.Spec(
            inputs="tokens",
            input_size=self.symbols + 2,
            output_size=self.symbols + 1,
            per_step=True,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / self.symbols,
            time=self.length + 2 * self.items,
        )

    def sample(self, key, batch_size):
        blank, delimiter = self.symbols, self.symbols + 1
        symbols = jax.random.randint(key, (batch_size, self.items), 0, self.symbols)
        blanks = jnp.full((batch_size, self.length + self.items), blank)
        xs = jnp.concatenate([symbols, blanks.at[:, self.length - 1].set(delimiter)], axis=1)
        ys = jnp.concatenate([blanks, symbols], axis=1)
        weights = jnp.ones(ys.shape)
        scored = weights.at[:, : -self.items].set(0)
        return xs, ys, weights, scored
