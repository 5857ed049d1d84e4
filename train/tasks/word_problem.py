"""Word problems of finite groups: parity and its non-commutative relatives, for tracking a state.

Liu 2023, "Transformers learn shortcuts to automata"; Merrill 2024, "The illusion of state in state-space
models"; Grazzi 2025, "Unlocking state-tracking in linear RNNs through negative eigenvalues"; for words of
different lengths Deletang 2023, "Neural networks and the Chomsky hierarchy".
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from cells.registry import nearest
from train.tasks import base

# Generators, as permutations: p[i] is where i goes. z60 is as large as a5, and solvable.
GENERATORS = {
    "z2": [(1, 0)],
    "s3": [(1, 0, 2), (1, 2, 0)],
    "z60": [(*range(1, 60), 0)],
    "a5": [(1, 2, 0, 3, 4), (1, 2, 3, 4, 0)],
    "s5": [(1, 0, 2, 3, 4), (1, 2, 3, 4, 0)],
}
TOKENS = ("elements", "generators")
ANSWERS = ("all", "last")


def then(p: tuple, q: tuple) -> tuple:
    """The product of two permutations: first `p`, then `q`."""
    return tuple(q[i] for i in p)


@functools.cache
def elements(group: str) -> list[tuple]:
    """All permutations of a group, in lexicographic order: the identity is number 0."""
    generators = GENERATORS[group]
    new = found = {tuple(range(len(generators[0])))}
    while new:
        new = {then(p, q) for p in new for q in generators} - found
        found = found | new
    return sorted(found)


@functools.cache
def multiplication(group: str) -> np.ndarray:
    """(order, order) int32: the number of "first row, then column"."""
    number = {p: i for i, p in enumerate(elements(group))}
    return np.array([[number[then(p, q)] for q in elements(group)] for p in elements(group)], np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordProblem(base.Stretchable):
    """Read elements of a group; say after each the product of all so far.

        xs: g_1     g_2           g_3 ...
        ys: g_1     g_1 g_2       g_1 g_2 g_3 ...      every step counts, or the last alone

    With group "z2" it is parity: the answer is the number of ones so far, modulo 2. Tokens are drawn
    uniformly. Where they are all the elements (Merrill 2024), the product is uniform given any of the
    tokens but not all: no window, and no part of the past, tells anything of the answer, which is right with
    1 / order without memory. Where they are the identity and the generators alone (Liu 2023), there are
    fewer transitions to learn (3 order in place of order^2), but the first answers are few and easy. The
    baseline is the best answer that is always the same one.

    xs, ys (batch, length) int32: numbers of tokens and of `elements`.

    Options:
      group: "z2" (2 elements), "s3" (6), "z60" (60, commutative), "a5" (60, not solvable), "s5" (120, not
        solvable).
      tokens: "elements", or "generators": token 0 is the identity, token i the i-th of GENERATORS.
      length: steps.
      max_length: the longest length that the compiled program can take; 0: just `length`, without padding.
      eval_length: `length` of the held-out examples; 0: as in training.
      min_length: words have lengths drawn uniformly from it to `length`; 0: all have `length`.
      eval_min_length: `min_length` of the held-out words; 0: as in training.
      answers: which steps count, "all" or the "last" of each word.
    """

    name: ClassVar[str] = "word_problem"
    input_kind: ClassVar[str] = "tokens"
    per_step: ClassVar[bool] = True
    stretch: ClassVar[str] = "length"
    shortest: ClassVar[int] = 2
    group: str = "z2"
    tokens: str = "elements"
    length: int = 16
    max_length: int = 0
    eval_length: int = 0
    min_length: int = 0
    eval_min_length: int = 0
    answers: str = "all"

    def __post_init__(self):
        super().__post_init__()
        base.at_least(self, min_length=0, eval_min_length=0)
        for option, most in (("min_length", "length"), ("eval_min_length", "eval_length")):
            longest = getattr(self, most) or self.length
            base.require(self, option, getattr(self, option) <= longest, f"at most {most} = {longest}")
        if self.eval_length and not self.eval_min_length:
            wanted = f"at least min_length = {self.min_length}, or eval_min_length to be set"
            base.require(self, "eval_length", self.eval_length >= self.min_length, wanted)
        for option, known in (("group", GENERATORS), ("tokens", TOKENS), ("answers", ANSWERS)):
            value = getattr(self, option)
            base.require(self, option, value in known, f"known; {nearest(value, known)}")
        apart = self.group != "z2" or self.tokens == "elements"
        base.require(self, "tokens", apart, "'elements' for z2, which has no more than its generator")

    @property
    def stands_for(self) -> np.ndarray:
        """The element that each token stands for, (tokens,) int32."""
        order = len(elements(self.group))
        if self.tokens == "elements":
            return np.arange(order, dtype=np.int32)
        return np.array([0, *(elements(self.group).index(g) for g in GENERATORS[self.group])], np.int32)

    def spec(self, data):
        order = len(elements(self.group))
        return base.Spec(
            inputs=self.input_kind,
            input_size=len(self.stands_for),
            output_size=order,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.99,
            baseline=1 / order if self.tokens == "elements" else self.constant(),
            time=self.longest,
            eval_time=self.eval_time,
        )

    def constant(self) -> float:
        """How often the best answer that is always the same one is right on held-out words."""
        product = multiplication(self.group)[:, self.stands_for]
        moves = np.eye(len(product))[product].mean(axis=1)  # where a token leads, (order, order)
        longest = self.eval_length or self.length
        least = self.eval_min_length or self.min_length or longest
        so_far, total, counted = np.eye(len(product))[0], 0.0, 0.0
        for step in range(1, longest + 1):
            so_far = so_far @ moves
            words = (step >= least) if self.answers == "last" else longest - max(step, least) + 1
            total, counted = total + words * so_far, counted + words
        return float(np.max(total) / counted)

    def held_out(self, data):
        least = self.eval_min_length or self.min_length
        return super().held_out(data, min_length=least, eval_min_length=0)

    def sample(self, key, batch_size, length=None):
        stands_for, product = jnp.asarray(self.stands_for), jnp.asarray(multiplication(self.group))
        lengths = jnp.full(batch_size, self.length if length is None else length, jnp.int32)
        if self.min_length:
            key, key_lengths = jax.random.split(key)
            lengths = jax.random.randint(key_lengths, (batch_size,), self.min_length, lengths + 1)
        step = jnp.arange(self.longest)
        real = step < lengths[:, None]
        xs = jnp.where(real, jax.random.randint(key, real.shape, 0, len(stands_for)), 0)

        def multiply(so_far, element):
            so_far = product[so_far, element]
            return so_far, so_far

        # Step by step: an associative scan takes longer to compile, and on a CPU to run.
        ys = jax.lax.scan(multiply, jnp.zeros(batch_size, jnp.int32), stands_for[xs].T)[1].T
        counts = (real if self.answers == "all" else step == lengths[:, None] - 1).astype(jnp.float32)
        return xs, ys, counts, counts, *([lengths] if self.min_length else [])

    def real_length(self, length):
        return length
