"""Linear recurrences c_t = a_t * c_{t-1} + b_t: three solvers and one derivative rule.

The recurrence is a bidiagonal linear system (I - A S) c = b, S the shift by one step. Its derivatives
are the same kind of system, and its transpose is the same recurrence run the other way: JAX needs only
to be told so (`lax.custom_linear_solve`), whatever the solver.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from cells.scans.strategies import Associative, Chunked, Kernel

CHUNK = 64  # steps solved in parallel by `chunked`


def run(a, b, carry, initial, valid, resets, reverse, solver):
    """`solve` with flags; see `sequential.run` for their meaning and what it returns."""
    return solve(*flagged(a, b, initial, valid, resets), carry, reverse, solver)


def flagged(a, b, initial, valid, resets):
    """The coefficients of steps of which some are resets and some are skipped."""
    if resets is not None:
        # The state before a reset is `initial`, whatever came before.
        a, b = jnp.where(resets, 0, a), jnp.where(resets, a * initial + b, b)
    if valid is not None:
        a, b = jnp.where(valid, a, 1), jnp.where(valid, b, 0)
    return a, b


def solve(a, b, first, reverse, solver):
    """c_t = a_t * c_{t-1} + b_t with c_{-1} = first; `reverse` runs from the last step to the first.

    Args:
      a, b: (time, batch, hidden_size).
      first: (batch, hidden_size).
      solver: one of the functions below.

    Returns:
      All the states, (time, batch, hidden_size).
    """
    start = -1 if reverse else 0
    return solved(a, b.at[start].add(_times(a[start], first)), reverse, solver, _shift)


def _shift(cs, reverse):
    """The states that the steps start from, of those that they end in: zeros at the first."""
    zero = jnp.zeros_like(cs[:1])
    return jnp.concatenate([cs[1:], zero] if reverse else [zero, cs[:-1]])


def solved(a, b, reverse, solver, shift):
    """The states from zeros, and the derivative rule; `shift` is S, (states, reverse) -> states."""
    return lax.custom_linear_solve(
        lambda cs: cs - a * shift(cs, reverse),
        b,
        solve=lambda _, b: solver(a, b, reverse),
        # The transposed system: l_t = a_{t+1} * l_{t+1} + b_t.
        transpose_solve=lambda _, b: solver(shift(a, not reverse), b, not reverse),
    )


def _times(a, c):
    """a * c, where a = 0 forgets even an infinite c, as a reset must."""
    return jnp.where(a == 0, 0, a * c)


def sequential(a, b, reverse):
    """One step after the other: least work, depth T."""

    def step(c, ab):
        c = _times(ab[0], c) + ab[1]
        return c, c

    return lax.scan(step, jnp.zeros_like(b[0]), (a, b), reverse=reverse)[1]


def _combine(left, right):
    """(a, b) of two stretches run one after the other: c -> a_r * (a_l * c + b_l) + b_r."""
    a_l, b_l = left
    a_r, b_r = right
    return _times(a_r, a_l), _times(a_r, b_l) + b_r


def associative(a, b, reverse):
    """All of time at once (Blelloch 1990): depth O(log T), O(T) work in O(log T) passes over memory."""
    return lax.associative_scan(_combine, (a, b), reverse=reverse)[1]


def chunked(a, b, reverse, chunk=64):
    """Chunks one after the other, in parallel inside: temporary memory of one chunk, depth T / chunk."""
    time = a.shape[0]
    chunks, chunk = cut(time, chunk)
    if reverse:
        a, b = a[::-1], b[::-1]
    # Padding with a = 1, b = 0 keeps the state; it is cut off again.
    padding = ((0, chunks * chunk - time), *[(0, 0)] * (a.ndim - 1))
    a, b = jnp.pad(a, padding, constant_values=1), jnp.pad(b, padding)

    def step(c, ab):
        products, sums = lax.associative_scan(_combine, ab)
        cs = _times(products, c) + sums
        return cs[-1], cs

    ab = tuple(x.reshape(chunks, chunk, *x.shape[1:]) for x in (a, b))
    cs = lax.scan(step, jnp.zeros_like(b[0]), ab)[1].reshape(a.shape)[:time]
    return cs[::-1] if reverse else cs


def cut(time, chunk: int):
    """(number of chunks, steps in one); a number of steps that is only known later takes whole chunks."""
    chunk = chunk if is_symbolic_dim(time) else min(chunk, time)
    return -(-time // chunk), chunk


def solver(strategy):
    """The one of these that a strategy means."""
    match strategy:
        case Associative():
            return associative
        case Chunked(chunk=chunk):
            return partial(chunked, chunk=chunk)
        case Kernel():
            from cells.scans import kernels

            return partial(kernels.solve, kernels.way(strategy))
    return sequential
