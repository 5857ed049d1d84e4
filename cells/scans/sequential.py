"""`lax.scan` over time, for any cell, with the recurrent weights' gradients taken out of the loop.

Plain autodiff adds up each recurrent weight's gradient step by step, a whole matrix T times. Two ways
around it live here:

* `_backward`, for a `HandDifferentiated` cell: a reverse scan emits the gradient of each step's input, and
  one matmul after it makes each weight's gradient. It is what reverse mode runs.
* `_tangent`, for any cell: every product of a weight with the state, a_t = h_t U, counts as an input of
  the scan with tangent h_t dU. Forwards that is one matmul before the tangent scan; transposed, one
  matmul after the backward scan. It is what forward mode and higher orders run, and what reverse mode
  runs for any other cell.

Both are one linear map and its transpose; `lax.custom_linear_solve` is how JAX is told so.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cells.scans import products


def run(cell, weights, carry, us, initial, valid, resets, reverse):
    """Runs a cell's `recur` over time-major inputs; see `cells.scan` for the meaning of the arguments.

    Args:
      weights: from `cell.recurrent_weights`.
      us: pytree of (time, batch, k) from `cell.project`.
      initial: carry after a reset.
      valid, resets: (time, batch, 1) bool or None.

    Returns:
      The carry after each step, leaves (time, batch, hidden_size).
    """
    return _run((cell, reverse), weights, carry, us, (initial, valid, resets))


def previous(states, carry, initial, resets, reverse):
    """The carry that each step starts from, given the one after each step and the first one."""

    def shift(states, first):
        pieces = [states[1:], first[None]] if reverse else [first[None], states[:-1]]
        return jnp.concatenate(pieces)

    before = jax.tree.map(shift, states, carry)
    return before if resets is None else _where(resets, initial, before)


def varying_alike(tree):
    """Under `shard_map`: arrays that are equal on all devices join those that differ between them."""

    def axes(x):
        aval = jax.typeof(x)
        return aval.vma if hasattr(aval, "vma") else aval.mat.varying  # jax before and from 0.12

    union = frozenset().union(*map(axes, jax.tree.leaves(tree)))

    def vary(x):
        missing = tuple(sorted(union - axes(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, tree)


def _where(condition, then, otherwise):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), then, otherwise)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(static, weights, carry, us, flags):
    return _forward(static, weights, carry, us, flags)[0]


@_run.defjvp
def _run_jvp(static, primals, tangents):
    tangents = tangents[:3]  # the flags have none
    if not static[0].gradient_by_hand:
        states, tangent = _tangent(static, *primals)
        return states, tangent(*tangents)
    states, saved = _forward(static, *primals)
    _, tangent = _tangent(static, *primals)
    backward = partial(_backward, static, *primals, states, saved)
    return states, _with_transpose(tangent, backward, tangents, states)


def _with_transpose(f, transpose, xs, like):
    """f(*xs) for a linear f whose transpose is known: the solution y of y - f(xs) = 0."""

    def solve(_, b):
        xs, ys = b
        return xs, jax.tree.map(jnp.add, f(*xs), ys)

    def transpose_solve(_, b):
        xs, ys = b
        return jax.tree.map(jnp.add, xs, transpose(ys)), ys

    def matvec(solution):
        xs, ys = solution
        return _tied((xs, jax.tree.map(jnp.subtract, ys, f(*xs))))

    # Its transposition, of whatever order, wants every part of the right-hand side to depend on what is
    # differentiated: the parts are tied to each other before it and, for the transposed system, after it.
    b = _tied((xs, jax.tree.map(jnp.zeros_like, like)))
    return _tied(lax.custom_linear_solve(matvec, b, solve, transpose_solve))[1]


def _tied(tree):
    """The same arrays, each with a term of all others that is never chosen."""
    tie = sum(jnp.real(x).ravel()[0].astype(jnp.float32) for x in jax.tree.leaves(tree))
    return jax.tree.map(lambda x: jnp.where(False, tie.astype(x.dtype), x), tree)


def product_shapes(cell, weights, carry, u):
    """Shape and dtype of each weight's product with the state, in one step."""
    shapes = {}

    def product(name, weight, h):
        a = products.product(weight, h)
        shapes[name] = jax.ShapeDtypeStruct(a.shape, a.dtype)
        return a

    jax.eval_shape(lambda: cell.recur({n: partial(product, n, w) for n, w in weights.items()}, carry, u))
    return shapes


def _forward(static, weights, carry, us, flags):
    """All states, and what each step keeps for the backward pass."""
    cell, reverse = static
    initial, valid, resets = flags
    w = {name: partial(products.product, weight) for name, weight in weights.items()}

    def body(carry, inputs):
        u, ok, reset = inputs
        start = carry if reset is None else _where(reset, initial, carry)
        new, saved = cell.recur(w, start, u)
        carry = new if ok is None else _where(ok, new, carry)
        return carry, (carry, saved)

    return lax.scan(body, carry, (us, valid, resets), reverse=reverse)[1]


def _backward(static, weights, carry, us, flags, states, saved, d_states):
    """The gradient of `_forward`'s states -> d_weights, d_carry, d_us."""
    cell, reverse = static
    initial, valid, resets = flags
    before = previous(states, carry, initial, resets, reverse)
    w = {name: products.transposed(weight, cell.hidden_size) for name, weight in weights.items()}

    def body(d_carry, inputs):
        d_state, before, after, u, kept, ok, reset = inputs
        d_after = jax.tree.map(jnp.add, d_carry, d_state)
        d_new = d_after if ok is None else _where(ok, d_after, jax.tree.map(jnp.zeros_like, d_after))
        d_before, d_u = cell.backward(w, before, after, u, kept, d_new)
        zeros = jax.tree.map(jnp.zeros_like, d_before)
        if reset is not None:
            d_before = _where(reset, zeros, d_before)
        if ok is not None:
            d_before = _where(ok, d_before, d_after)
            d_u = _where(ok, d_u, jax.tree.map(jnp.zeros_like, d_u))
        return d_before, d_u

    inputs = (d_states, before, states, us, saved, valid, resets)
    d_carry = jax.tree.map(jnp.zeros_like, carry)
    d_carry, d_us = lax.scan(body, d_carry, inputs, reverse=not reverse)
    multiplied = cell.products(before, states, saved, d_us)
    d_weights = {name: products.gradient(weight, *multiplied[name]) for name, weight in weights.items()}
    return d_weights, d_carry, d_us


def _tangent(static, weights, carry, us, flags):
    """All states, and the map from tangents of weights, carry and us to the states'."""
    cell, reverse = static
    initial, valid, resets = flags

    def scan(carry, us, offsets):
        def body(carry, inputs):
            u, offset, ok, reset = inputs
            seen = {}

            def product(name, weight, h):
                seen[name] = h
                return products.product(weight, h) + offset[name]

            w = {name: partial(product, name, weight) for name, weight in weights.items()}
            start = carry if reset is None else _where(reset, initial, carry)
            new, _ = cell.recur(w, start, u)
            carry = new if ok is None else _where(ok, new, carry)
            return carry, (carry, seen)

        return lax.scan(body, carry, (us, offsets, valid, resets), reverse=reverse)[1]

    first = jax.tree.map(lambda u: u[0], us)
    time = len(jax.tree.leaves(us)[0])
    shapes = product_shapes(cell, weights, carry, first)
    zeros = {name: jnp.zeros((time, *a.shape), a.dtype) for name, a in shapes.items()}
    zeros, _ = varying_alike((zeros, carry))
    states, pushforward, seen = jax.linearize(scan, carry, us, zeros, has_aux=True)

    def tangent(d_weights, d_carry, d_us):
        d_products = {}
        for name, d_weight in d_weights.items():
            d_products[name] = products.product(d_weight, seen[name])
        return pushforward(d_carry, d_us, d_products)

    return states, tangent
