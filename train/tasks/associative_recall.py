"""Multi-query associative recall (Arora et al. 2023, "Zoology: measuring and improving recall in efficient
language models", section 4), generated as by the authors' `multiquery_ar`."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssociativeRecall(base.Stretchable):
    """Read pairs of a key and its value; when a key comes again, among fillers, say its value.

    With n tokens: 0 is the blank, 1..n/2-1 are keys, n/2..n-1 values. Those of a row all differ.

        xs: k_1 v_1 k_2 v_2 .. | . . k_2 . k_1 . ..        each key once more, at one of the even steps
        ys:                            v_2   v_1           what counts, in the loss and in the metric

    Which of the slots behind the pairs a query takes follows a power law: slot i, from 1, with a weight of
    i ** (power - 1), without replacement. Without memory a guess of the value is right with 2 / n. Figure 2
    of the paper has 8,192 tokens, and 4, 8, 16 or 64 pairs in 64, 128, 256 or 512 steps.

    xs, ys (batch, length) int32; classes are tokens.

    Options:
      length: steps; at least 4 for each pair, so that there are two slots for each query.
      max_length: the longest length that the compiled program can take; 0: just `length`, without padding.
      eval_length: `length` of the held-out examples; 0: as in training.
      pairs: how many keys are to be kept, each with its value.
      eval_pairs: `pairs` of the held-out examples; 0: as in training.
      vocabulary: number of tokens.
      power: 1 spreads queries evenly; near 0 most keys come again soon.
      random_fillers: what stands between the queries is any token, or the blank.
    """

    name: ClassVar[str] = "associative_recall"
    input_kind: ClassVar[str] = "tokens"
    per_step: ClassVar[bool] = True
    of_recall: ClassVar[bool] = True
    stretch: ClassVar[str] = "length"
    length: int = 64
    max_length: int = 0
    eval_length: int = 0
    pairs: int = 4
    eval_pairs: int = 0
    vocabulary: int = 64
    power: float = 0.01
    random_fillers: bool = False

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, pairs=1, eval_pairs=0, vocabulary=4)
        for option in ("pairs", "eval_pairs"):
            most = self.vocabulary // 2 - 1
            base.require(self, option, getattr(self, option) <= most, f"at most {most}, the number of keys")
        base.require(self, "length", self.length >= 4 * self.pairs, f"at least 4 * pairs = {4 * self.pairs}")
        pairs, length = self.eval_pairs or self.pairs, self.eval_length or self.length
        option = "eval_length" if self.eval_length else "eval_pairs"
        wanted = f"such that 4 * {pairs} pairs fit into {length} held-out steps"
        base.require(self, option, length >= 4 * pairs, wanted)
        number = isinstance(self.power, int | float) and not isinstance(self.power, bool)
        base.require(self, "power", number and 0 < self.power < 100, "above 0 and below 100")
        base.require(self, "random_fillers", isinstance(self.random_fillers, bool), "True or False")

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.vocabulary,
            output_size=self.vocabulary,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / (self.vocabulary - self.vocabulary // 2),
            time=self.longest,
            eval_time=self.eval_time,
        )

    def held_out(self, data):
        return super().held_out(data, pairs=self.eval_pairs or self.pairs, eval_pairs=0)

    def sample(self, key, batch_size, length=None):
        length = self.length if length is None else length
        key_keys, key_values, key_slots, key_fillers = jax.random.split(key, 4)
        middle, told = self.vocabulary // 2, 2 * self.pairs
        keys = 1 + _some(key_keys, batch_size, jnp.zeros(middle - 1), self.pairs)
        values = middle + _some(key_values, batch_size, jnp.zeros(self.vocabulary - middle), self.pairs)
        slot = jnp.arange((self.longest - told + 1) // 2)
        weights = jnp.where(told + 2 * slot < length, (self.power - 1) * jnp.log1p(slot), -jnp.inf)
        asked = told + 2 * _some(key_slots, batch_size, weights, self.pairs)

        def put(row, places, tokens):
            return row.at[places].set(tokens)

        shape = (batch_size, self.longest)
        fillers = jax.random.randint(key_fillers, shape, 0, self.vocabulary)
        xs = fillers if self.random_fillers else jnp.zeros(shape, jnp.int32)
        xs = xs.at[:, 0:told:2].set(keys).at[:, 1:told:2].set(values)
        xs = jax.vmap(put)(xs, asked, keys)
        xs = jnp.where(jnp.arange(self.longest) < length, xs, 0)
        ys = jax.vmap(put)(jnp.zeros(shape, jnp.int32), asked, values)
        counts = jax.vmap(put)(jnp.zeros(shape), asked, jnp.ones(keys.shape))
        return xs, ys, counts, counts

    def real_length(self, length):
        return length


def _some(key, rows: int, weights, count: int):
    """(rows, count) int32: `count` different indices in each row, drawn one after the other with these
    log-weights (n,), by the largest of them plus Gumbel noise (Vieira 2014)."""
    noise = jax.random.gumbel(key, (rows, len(weights)))
    return jax.lax.top_k(weights + noise, count)[1]
