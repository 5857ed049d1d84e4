"""Multiple shooting: s_t = f_t(s_{t-1}) solved in windows of steps that run at once (Kiehl 1994)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cells.scans import linear, sequential


class Problem(NamedTuple):
    """A recurrence over time.

    step: (state, inputs of a step) -> next state, what to keep of the step.
    linearize: (state, inputs, tangents of the state, with one more leading axis) -> next state, its tangents.
    first: the state before the first step taken, leaves (batch, H).
    inputs: a tuple, leaves (time, batch, k) or None; the last two are valid and resets.
    initial: the state after a reset; both functions have it as one more input.
    reverse: from the last step to the first.
    is_affine: whether each step is, so that one iteration with exact tangents solves it.
    """

    step: Callable
    linearize: Callable
    first: Any
    inputs: tuple
    initial: Any
    reverse: bool
    is_affine: bool = False


def solve(problem, window, block, exact, iterations, tolerance, damping):
    """Finds the states that windows start from, so that each ends where the next one starts.

    Args:
      window: steps in a window.
      block: units in each block of the Jacobians: of each state's units there by all of these; 0: Jacobians
        are whole matrices.
      exact: whether `linearize` is, rather than an approximation.
      iterations, tolerance, damping: as in `cells.scans.newton.Newton`.

    Returns:
      The last state, what `step` kept, leaves (time, batch, ...), and (iterations, residual, converged).
    """
    steps = jax.tree.leaves(problem.inputs)[0].shape[:2]
    windows = _Windows(*steps, window, problem.reverse)
    layout = _Layout(block, problem.first)
    inputs, first, initial = sequential.varying_alike(
        (windows.cut(problem.inputs), layout.pack(problem.first), windows.tile(problem.initial))
    )
    dtype = first.dtype
    tolerance = tolerance or (1e-12 if dtype.itemsize == 8 else 1e-6)

    once = exact and problem.is_affine  # one iteration solves it

    def run(body, starts):
        starts = layout.unpack(starts.reshape(-1, *starts.shape[2:]))
        return lax.scan(lambda carry, x: body(carry, (*x, initial)), starts, inputs)

    def run_with_tangents(starts):
        state = layout.unpack(starts.reshape(-1, *starts.shape[2:]))
        linear = sequential.varying_alike((state, layout.identity(state)))
        (ends, tangents), _ = lax.scan(
            lambda carry, x: (problem.linearize(carry[0], (*x, initial), carry[1]), None), linear, inputs
        )
        jacobians = jnp.moveaxis(jax.vmap(layout.pack)(tangents), 0, -1)
        return windows.split(layout.pack(ends)), windows.split(jacobians)

    def iterate(loop):
        k, starts, residual, damp, _ = loop
        ends, jacobians = run_with_tangents(starts)
        wanted = jnp.concatenate([first[None], ends[:-1]])
        gaps = wanted - starts
        jacobians = jnp.concatenate([jnp.zeros_like(jacobians[:1]), jacobians[:-1]])
        moves = _recur(jacobians * (1 - damp), gaps)
        # A window that Newton's method throws out of range starts where the one before it ended.
        sound = jnp.isfinite(moves).all(-1, keepdims=True)
        moves = jnp.where(sound, moves, gaps)
        new = wanted + (moves - gaps)
        new = jnp.where(jnp.isfinite(new), new, 0)
        size = jnp.abs(new).max()
        moved = jnp.abs(moves).max() / jnp.where(size > 0, size, 1)
        solved = sound.all() if once else jnp.isfinite(moved)
        moved = jnp.where(solved, moved, jnp.inf)
        if not exact:
            damp = jnp.where(moved > residual, (1 + damp) / 2, jnp.maximum(2 * damp - 1, damping))
        return k + 1, new, moved, damp, moved <= tolerance

    starts = jnp.concatenate([first[None], jnp.zeros((windows.count - 1, *first.shape), dtype)])
    loop = (jnp.zeros((), int), starts, jnp.full((), jnp.inf, dtype), jnp.full((), damping, dtype))
    loop, _ = sequential.varying_alike(((*loop, jnp.zeros((), bool)), (first, inputs)))
    if windows.count == 1:
        k, starts, residual, converged = loop[0], starts, jnp.zeros_like(loop[2]), ~loop[4]
    elif once:
        k, starts, moved, *_ = iterate(loop)
        converged, residual = jnp.isfinite(moved), jnp.where(jnp.isfinite(moved), 0, moved)
    else:
        k, starts, residual, _, converged = lax.while_loop(
            lambda loop: ~loop[4] & (loop[0] < iterations), iterate, loop
        )
    last, kept = run(problem.step, starts)
    last = jax.tree.map(lambda x: windows.split(x)[-1], last)
    return last, jax.tree.map(windows.join, kept), (k, residual, converged)


class _Windows:
    """Windows as rows of a larger batch: (time, batch, ...) <-> (window, count * batch, ...)."""

    def __init__(self, time, batch, window, reverse):
        self.time, self.batch, self.window, self.reverse = time, batch, window, reverse
        self.count = -(-time // window)

    def cut(self, inputs):
        *rest, valid, resets = inputs
        padding = self.count * self.window - self.time
        if padding and valid is None:
            valid = jnp.ones((self.time, self.batch, 1), bool)

        def cut(x):
            x = jnp.pad(x[::-1] if self.reverse else x, ((0, padding),) + ((0, 0),) * (x.ndim - 1))
            x = jnp.swapaxes(x.reshape(self.count, self.window, *x.shape[1:]), 0, 1)
            return x.reshape(self.window, -1, *x.shape[3:])

        return jax.tree.map(cut, (*rest, valid, resets))

    def join(self, x):
        x = jnp.swapaxes(x.reshape(self.window, self.count, self.batch, *x.shape[2:]), 0, 1)
        x = x.reshape(-1, *x.shape[2:])[: self.time]
        return x[::-1] if self.reverse else x

    def split(self, x):
        return x.reshape(self.count, self.batch, *x.shape[1:])

    def tile(self, tree):
        return jax.tree.map(lambda x: jnp.tile(x, (self.count,) + (1,) * (x.ndim - 1)), tree)


class _Layout:
    """A state, leaves (rows, H), as one array with the axis of Jacobians last: (rows, n), all its numbers; of
    blocks (rows, H / block, n), those of all leaves in a block."""

    def __init__(self, block, state):
        self.block = block
        leaves, self.structure = jax.tree.flatten(state)
        self.ends = np.cumsum([block or x.shape[-1] for x in leaves])
        self.n = int(self.ends[-1])

    def pack(self, state):
        leaves = jax.tree.leaves(state)
        if self.block:
            leaves = [x.reshape(*x.shape[:-1], x.shape[-1] // self.block, self.block) for x in leaves]
        return jnp.concatenate(leaves, -1)

    def unpack(self, x):
        leaves = jnp.split(x, self.ends[:-1], axis=-1)
        if self.block:
            leaves = [x.reshape(*x.shape[:-2], x.shape[-2] * self.block) for x in leaves]
        return jax.tree.unflatten(self.structure, leaves)

    def identity(self, state):
        """One tangent for each of n directions."""
        like = self.pack(state)
        eye = jnp.eye(self.n, dtype=like.dtype).reshape(self.n, *[1] * (like.ndim - 1), self.n)
        return jax.vmap(self.unpack)(jnp.broadcast_to(eye, (self.n, *like.shape)))


def _recur(jacobians, gaps):
    """x_w = J_w x_{w-1} + g_w from 0: J (windows, ..., n, n), g (windows, ..., n)."""
    if gaps.shape[-1] == 1:
        return linear.associative(jacobians[..., 0], gaps, False)

    def combine(left, right):
        moved = jnp.einsum("...ij,...j->...i", right[0], left[1], precision="highest")
        return jnp.matmul(right[0], left[0], precision="highest"), moved + right[1]

    return lax.associative_scan(combine, (jacobians, gaps))[1]
