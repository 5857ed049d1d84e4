"""Cells that say themselves how all of time is computed (`Cell.over_time`), and what they do it with.

Before it, the steps of each row are put in the order in which they are taken, real ones first: a cell need
not know of `reverse` or of a mask with holes. After it the outputs go back to their inputs' places.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cells.scans import linear, products, sequential


def order(valid, reverse, time):
    """(batch, time) indices of the steps in the order in which they are taken, skipped ones last; None:
    as they are."""
    if valid is None:
        return jnp.arange(time)[None, ::-1] if reverse else None
    taken = valid[:, ::-1] if reverse else valid
    indices = jnp.argsort(~taken, axis=1, stable=True)
    return time - 1 - indices if reverse else indices


def arrange(x, indices):
    """The elements of x (batch, time, ...) in an order of `order`."""
    if x is None or indices is None:
        return x
    return jnp.take_along_axis(x, indices.reshape(indices.shape + (1,) * (x.ndim - 2)), axis=1)


class Steps(NamedTuple):
    """What `Cell.over_time` knows of the steps and can do with them. All arrays lead with time.

    valid: (time, batch) bool, the real steps, which come first; None: all are.
    resets: (time, batch) bool, steps that start from the initial carry, zeros; None: none.
    strategy: a value of `cells.scans.strategies`, how `solve` or `by_chunks` goes.
    fresh: whether the carry before the first step is known to be the initial one.
    """

    valid: Any
    resets: Any
    strategy: str
    fresh: bool = False

    product = staticmethod(products.multiply)  # type: ignore[misc]

    def solve(self, a, b, first):
        """c_t = a_t * c_{t-1} + b_t from c_{-1} = first: all states, kept at steps that are not real."""
        valid, resets = (None if x is None else x[..., None] for x in (self.valid, self.resets))
        solver = linear.solver(self.strategy)
        return linear.run(a, b, first, jnp.zeros_like(first), valid, resets, False, solver)

    def before(self, states, first):
        """The states that the steps start from."""
        resets = None if self.resets is None else self.resets[..., None]
        return sequential.previous(states, first, jnp.zeros_like(first), resets, False)

    def causal(self, now, past, pending, dilation=1):
        """A causal convolution, of what each input adds to each step.

        Args:
          now: (time, batch, k), to its own step.
          past: (time, batch, lags * k), to the steps dilation, 2 * dilation, ... later.
          pending: (batch, lags * dilation, k), what earlier inputs add to the first steps.

        Returns:
          The sums, like `now`, and what remains pending after the last real step.
        """
        time, batch, k = now.shape
        later = pending.shape[1]
        if not later:
            return now, pending
        t = jnp.arange(time + later)[:, None]
        ends = jnp.full(batch, time) if self.valid is None else self.valid.sum(0)
        start = jnp.full((time + later, batch), -1)  # the last reset at or before each step
        if self.resets is not None:
            marks = jnp.where(self.resets, t[:time], -1)
            start = lax.cummax(jnp.pad(marks, ((0, later), (0, 0)), constant_values=-1), axis=0)
        if self.valid is not None:
            past = jnp.where(self.valid[..., None], past, 0)
        sums = jnp.pad(jnp.swapaxes(pending, 0, 1), ((0, time), (0, 0), (0, 0)))
        sums = jnp.where((start < 0)[..., None], sums, 0)
        for lag, part in enumerate(jnp.split(past, later // dilation, axis=-1), 1):
            lag *= dilation
            shifted = jnp.pad(part, ((lag, later - lag), (0, 0), (0, 0)))
            sums += jnp.where((t - lag >= start)[..., None], shifted, 0)
        indices = ends[None, :, None] + jnp.arange(later)[:, None, None]
        return now + sums[:time], jnp.swapaxes(jnp.take_along_axis(sums, indices, axis=0), 0, 1)

    def by_chunks(self, body, carry, us):
        """Chunk after chunk: body(carry, us of the chunk, Chunk) -> carry, ys (steps, batch, ...)."""
        time, batch = jax.tree.leaves(us)[0].shape[:2]
        chunks, size = linear.cut(time, self.strategy.chunk)
        valid = jnp.ones((time, batch), bool) if self.valid is None else self.valid
        resets = jnp.zeros((time, batch), bool) if self.resets is None else self.resets

        def cut(x):
            x = jnp.pad(x, ((0, chunks * size - time),) + ((0, 0),) * (x.ndim - 1))
            return x.reshape(chunks, size, *x.shape[1:])

        def one(carry, inputs):
            us, valid, resets = inputs
            return body(carry, us, Chunk(valid[..., None], resets))

        carry, ys = lax.scan(one, carry, jax.tree.map(cut, (us, valid, resets)))
        return carry, ys.reshape(chunks * size, *ys.shape[2:])[:time]


class Chunk(NamedTuple):
    """Steps of a chunk: valid (steps, batch, 1), resets (steps, batch)."""

    valid: Any
    resets: Any

    def decays(self, log_decay):
        """What is left, at each step, of what came before; logarithms, -inf for nothing.

        Args:
          log_decay: (steps, batch, heads), of one step each.

        Returns:
          weights: (steps, steps, batch, heads), at step t of what step s <= t wrote.
          kept: (steps, batch, heads), of the state before the chunk.
          fresh: (steps, batch, heads), since the last reset; finite also where there was none.
        """
        t = jnp.arange(len(log_decay))
        start = lax.cummax(jnp.where(self.resets, t[:, None], -1), axis=0)  # (steps, batch)
        seen = ((t[:, None] >= t)[..., None] & (t[:, None] >= start[:, None]))[..., None]
        later = (t[:, None] > t)[..., None, None]
        # Sums of the steps between, not differences of sums from the start, which cancel.
        between = jnp.cumsum(jnp.where(later, log_decay[:, None], 0), axis=0)
        weights = jnp.where(seen, between, -jnp.inf)
        kept = jnp.where((start < 0)[..., None], jnp.cumsum(log_decay, axis=0), -jnp.inf)
        first = jnp.maximum(start, 0)[..., None]
        fresh = jnp.take_along_axis(between, first[:, None], axis=1)[:, 0]
        return weights, kept, fresh + jnp.take_along_axis(log_decay, first, axis=0)


def run(cell, params, carry, us, rest, valid, resets, strategy, fresh):
    """`over_time` of steps in the order of `order`: valid, resets (batch, time) or None."""
    if valid is not None and resets is not None:
        resets = resets & valid
    valid, resets = (None if x is None else x.T for x in (valid, resets))
    return cell.over_time(params, carry, us, rest, Steps(valid, resets, strategy, fresh))


def stepwise(cell, params, carry, xs, initial, valid, resets):
    """`lax.scan` over the textbook step: xs (time, batch, features), valid, resets (batch, time) or None."""

    def where(condition, then, otherwise):
        def pick(a, b):
            return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

        return jax.tree.map(pick, then, otherwise)

    def body(carry, inputs):
        x, ok, reset = inputs
        start = carry if reset is None else where(reset, initial, carry)
        new, y = cell.step(params, start, x)
        new = jax.tree.map(lambda n, c: n.astype(c.dtype), new, carry)
        return (new if ok is None else where(ok, new, carry)), y

    return lax.scan(body, carry, (xs, *(None if x is None else x.T for x in (valid, resets))))
