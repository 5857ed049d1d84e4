"""Selective copying (Gu & Dao 2023, "Mamba", section 4.1.1), the denoising task of Jing et al. 2019, "Gated
orthogonal recurrent units: on learning to forget"."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveCopying(base.Stretchable):
    """Keep the `items` symbols that stand at random places among noise, and write them down in order.

    With m symbols: tokens 0..m-1 are the symbols, m is the noise, m+1 asks for the next symbol.

        xs: noise, s_1 .. s_items among it | items times m+1
        ys:                                | s_1 .. s_items      what counts, in the loss and in the metric

    Unlike in `copy_memory` no step of a fixed number holds a symbol, so that no filter of fixed weights can
    pick them. The paper has 4,096 steps, 16 items and 16 tokens. Without memory accuracy is 1 / symbols.

    xs, ys (batch, length + items) int32.

    Options:
      length: steps before the first answer, symbols and noise.
      max_length: the longest length that the compiled program can take; 0: just `length`, without padding.
      eval_length: `length` of the held-out examples; 0: as in training.
      symbols: number of different symbols.
      items: how many are to be kept.
    """

    name: ClassVar[str] = "selective_copying"
    input_kind: ClassVar[str] = "tokens"
    per_step: ClassVar[bool] = True
    of_recall: ClassVar[bool] = True
    stretch: ClassVar[str] = "length"
    length: int = 64
    max_length: int = 0
    eval_length: int = 0
    symbols: int = 14
    items: int = 4

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, symbols=2, items=1)
        for option in ("length", "eval_length"):
            length = getattr(self, option) or self.length
            base.require(self, option, length >= self.items, f"at least items = {self.items}")

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.symbols + 2,
            output_size=self.symbols,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / self.symbols,
            time=self.longest + self.items,
            eval_time=self.eval_time,
        )

    def sample(self, key, batch_size, length=None):
        length = self.length if length is None else length
        noise, question = self.symbols, self.symbols + 1
        key_symbols, key_places = jax.random.split(key)
        symbols = jax.random.randint(key_symbols, (batch_size, self.items), 0, self.symbols)
        step = jnp.arange(self.longest + self.items)
        order = jax.random.uniform(key_places, (batch_size, len(step)))
        places = jax.lax.top_k(jnp.where(step < length, order, -1), self.items)[1]
        places = jnp.sort(places, axis=1)
        xs = jnp.where((step >= length) & (step < length + self.items), question, noise)
        xs = jax.vmap(lambda row, places, symbols: row.at[places].set(symbols), (None, 0, 0))(
            xs, places, symbols
        )
        answering = xs == question
        ys = jnp.where(answering, symbols[:, jnp.clip(step - length, 0, self.items - 1)], 0)
        counts = answering.astype(jnp.float32)
        return xs, ys, counts, counts

    def real_length(self, length):
        return length + self.items
