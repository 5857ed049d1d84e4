"""Nonlinear cells in parallel over time: windows of steps at once, joined by Newton's method.

Time is cut into windows. The state that each window starts from is guessed, all windows run at once, one
step after the other inside, and tell where they end and how their end moves with their start (a Jacobian).
Newton's method moves the starts until each window ends where the next one starts (`cells.scans.shooting`).
The gradient is the same again: its recurrence, backwards in time, is linear, and shot through the same
windows; where that does not converge it goes step by step. Memory of a gradient: 1.4 to 1.7 times that of a
sequential run, whose states it keeps, and a Jacobian per window.

Windows of one step are DEER (Lim 2024, "Parallelizing non-linear sequential models over the sequence
length"), with diagonal Jacobians quasi-DEER, damped by a factor as ELK is by a trust region (Gonzalez 2024,
"Towards scalable and stable parallelization of nonlinear RNNs"); cells whose Jacobian is diagonal by
themselves come from ParaRNN (Danieli 2025). Longer windows are multiple shooting (Kiehl 1994). They remove
what DEER needs its many iterations for: over several steps a cell forgets most of a wrong start.
"""

import math
import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cells.scans import products, sequential, shooting

DENSE = 32  # numbers, of units that see each other, up to which "auto" takes the whole Jacobian
MOST = 256  # iterations, unless told


class Report(NamedTuple):
    """What a run over time did; scalars.

    iterations: of Newton's method; 0 for other strategies. Each ran every window once.
    residual: the last iteration's largest move of a start, over the largest state.
    fallback: whether it did not converge, so that the states are those of a sequential run.
    """

    iterations: Any = 0
    residual: Any = 0.0
    fallback: Any = False


def run(cell, weights, carry, us, initial, valid, resets, reverse, newton):
    """As `sequential.run` -> states, `Report`."""
    states, report = _run((cell, reverse, newton), weights, carry, us, (initial, valid, resets))
    iterations, residual, fallback = lax.stop_gradient(report)
    return states, Report(iterations.astype(int), residual, fallback > 0)


def warn(report):
    """Warns, when the program runs, of states that were computed step by step after all."""
    lax.cond(report.fallback, lambda: jax.debug.callback(_warn, *report), lambda: None)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(static, weights, carry, us, flags):
    return _forward(static, weights, carry, us, flags)


@_run.defjvp
def _run_jvp(static, primals, tangents):
    states, report = _run(static, *primals)
    _, tangent = sequential._tangent(static[:2], *primals)  # forward mode goes step by step
    backward = partial(_backward, static, *primals, states)
    d_states = sequential._with_transpose(tangent, backward, tangents[:3], states)
    return (states, report), (d_states, jnp.zeros_like(report))


def _forward(static, weights, carry, us, flags):
    """All states, and the report as one array."""
    cell, reverse, newton = static
    initial, valid, resets = flags
    w, quick = _products(weights), _jacobian_products(cell, carry, weights, newton)

    def step(state, x):
        new = _step(cell, w, state, x)[0]
        return new, new

    def linearize(state, x, tangents):
        new, push = jax.linearize(lambda state: _step(cell, quick, state, x)[0], state)
        return new, jax.vmap(push)(tangents)

    problem = shooting.Problem(step, linearize, carry, (us, valid, resets), initial, reverse)
    _, states, report = _solve(cell, problem, newton)
    return states, report


def _backward(static, weights, carry, us, flags, states, d_states):
    """The gradient of `_forward`'s states -> d_weights, d_carry, d_us."""
    cell, reverse, newton = static
    initial, valid, resets = flags
    before = sequential.previous(states, carry, initial, None, reverse)
    quick = _jacobian_products(cell, carry, weights, newton)

    def pull(w, x):
        _, before, *x = x
        return jax.vjp(lambda state: _step(cell, w, state, x)[0], before)[1]

    def linearize(d_after, x, tangents):
        d_after = jax.tree.map(jnp.add, d_after, x[0])
        exactly, quickly = pull(_products(weights), x), pull(quick, x)
        return exactly(d_after)[0], jax.vmap(lambda d: quickly(d)[0])(tangents)

    def step(d_after, x):
        d_state, before, u, *flags = x
        d_after = jax.tree.map(jnp.add, d_after, d_state)
        shapes = sequential.product_shapes(cell, weights, before, u)
        taps = {name: jnp.zeros(a.shape, a.dtype) for name, a in shapes.items()}
        taps, _ = sequential.varying_alike((taps, before))

        def f(state, u, taps):
            return _step(cell, _products(weights, taps), state, (u, *flags))

        _, pull, seen = jax.vjp(f, before, u, taps, has_aux=True)
        d_before, d_u, d_products = pull(d_after)
        return d_before, (d_u, d_products, seen)

    inputs = (d_states, before, us, valid, resets)
    zeros = jax.tree.map(jnp.zeros_like, carry)
    problem = shooting.Problem(step, linearize, zeros, inputs, initial, not reverse, is_affine=True)
    d_carry, (d_us, d_products, seen), _ = _solve(cell, problem, newton)
    d_weights = {
        name: products.gradient(weight, seen[name], d_products[name]) for name, weight in weights.items()
    }
    return d_weights, d_carry, d_us


def _solve(cell, problem, newton):
    """`shooting.solve`; one step after the other where that does not converge."""
    time = len(jax.tree.leaves(problem.inputs)[0])
    block = _block(cell, problem.first, newton)
    window = min(newton.window or math.isqrt(time - 1) + 1, time)
    whole, exact = block == cell.hidden_size, block >= cell.block
    most = newton.iterations or min(-(-time // window), MOST)
    last, kept, (iterations, residual, converged) = shooting.solve(
        problem, window, 0 if whole else block, exact, most, newton.tolerance, newton.damping
    )

    def sequentially(loop):
        def body(state, x):
            return problem.step(state, (*x, problem.initial))

        turned = ~loop[0], *lax.scan(body, problem.first, problem.inputs, reverse=problem.reverse)
        return sequential.varying_alike((loop, turned))[1]

    # A loop of no or one turn: under `vmap` a `cond` would always run both branches.
    loop = sequential.varying_alike((converged, last, kept))
    _, last, kept = lax.while_loop(lambda loop: ~loop[0], sequentially, loop)
    report = [x.astype(residual.dtype) for x in (iterations, residual, ~converged)]
    return last, kept, jnp.stack(report)


def _warn(iterations, residual, fallback):
    if fallback:  # under `vmap` all rows come here
        warnings.warn(
            f"newton: the states did not converge in {int(iterations)} iterations (residual "
            f"{float(residual):.1e}); they were computed step by step instead",
            RuntimeWarning,
            stacklevel=2,
        )


def _block(cell, carry, newton):
    """How many units each block of the Jacobian has; 1: its diagonal."""
    if newton.jacobian == "auto":
        size = sum(x.shape[-1] for x in jax.tree.leaves(carry))
        return cell.block if size * cell.block <= DENSE * cell.hidden_size else 1
    return cell.hidden_size if newton.jacobian == "dense" else 1


# --- one step


def _step(cell, w, state, x):
    """One step with its flags -> the next state, and what each weight multiplied."""
    u, ok, reset, initial = x
    start = state if reset is None else sequential._where(reset, initial, state)
    seen = {}

    def product(name, h):
        seen[name] = h
        return w[name](h)

    new, _ = cell.recur({name: partial(product, name) for name in w}, start, u)
    return (new if ok is None else sequential._where(ok, new, state)), seen


def _products(weights, taps=None):
    """The functions that `recur` takes; `taps`, zeros, are added to the products to have their gradients."""

    def product(name, h):
        a = products.product(weights[name], h)
        return a if taps is None else a + taps[name]

    return {name: partial(product, name) for name in weights}


def _jacobian_products(cell, carry, weights, newton):
    """The same, with the derivative that the Jacobian is to be made of."""
    if _block(cell, carry, newton) >= cell.block:
        return _products(weights)
    return {name: partial(_own_part, weight) for name, weight in weights.items()}


@jax.custom_jvp
def _own_part(weight, h):
    """A product of h whose derivative takes only what each unit has from itself."""
    return products.product(weight, h)


@_own_part.defjvp
def _own_part_jvp(primals, tangents):
    (weight, h), d_h = primals, tangents[1]
    own = products.parts(weight)[0]
    if own.ndim == 2:  # (H, k * H): k matrices side by side
        diagonals = [jnp.diagonal(part) for part in jnp.split(own, own.shape[1] // len(own), axis=1)]
        own = jnp.concatenate(diagonals)
    elif own.ndim == 3:
        own = jnp.diagonal(own, axis1=1, axis2=2).ravel()
    d_h = jnp.tile(d_h, len(own) // d_h.shape[-1])  # of several side by side, each
    product = _own_part(weight, h)
    return product, (d_h * own).astype(product.dtype)
