"""All of a step of an elementwise cell in a kernel: gates, recurrence, outputs, and its gradient.

The projections are read once, outputs are written once, and for the gradient the states that the steps start
from. The backward kernel takes each step's derivative by itself, from these, in the other direction.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from cells import base
from cells.scans import products, sequential
from cells.scans.kernels import recurrence
from cells.scans.kernels.recurrence import Way

SKIPPED, RESET = 2.0, 0.0  # codes of steps; 1: taken


@functools.lru_cache(maxsize=256)
def fusible(cell: Any) -> bool:
    """Whether every number of a step depends on its own unit's alone, and all that is projected is as wide as
    the state."""
    if not getattr(cell, "is_elementwise", False):
        return False
    size = cell.hidden_size
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)  # a key itself would be made on a device
    params = jax.eval_shape(
        lambda key: cell.init(jax.random.wrap_key_data(key, impl="threefry2x32"), size), key
    )
    projected = jax.eval_shape(cell.project, params, jax.ShapeDtypeStruct((1, size), jnp.float32))
    carry = jax.eval_shape(lambda: cell.initial_carry(1))
    return len(jax.tree.leaves(carry)) == 1 and all(x.shape == (1, size) for x in jax.tree.leaves(projected))


def run(cell, params, carry, us, rest, initial, valid, resets, reverse: bool, way: Way):
    """`cells.scans._by_states` of a fusible cell, with time leading: the last carry, ys.

    Args:
      carry, initial: (batch, hidden_size).
      us, rest: from `cell.project`, (time, batch, hidden_size) each.
      valid, resets: (time, batch, 1) bool or None.
    """
    shape = jax.tree.leaves(us)[0].shape
    codes: tuple[jax.Array, ...] = ()
    if valid is not None or resets is not None:
        code = jnp.ones(shape[:2] + (1,))
        code = code if resets is None else jnp.where(resets, RESET, code)
        code = code if valid is None else jnp.where(valid, code, SKIPPED)
        codes = (jnp.broadcast_to(code, shape).astype(jnp.float32),)
    inputs, tree = jax.tree.flatten((us, rest))
    vectors = {name: p for name, p in params.items() if p.shape == shape[-1:]}
    consts = [jnp.broadcast_to(p.astype(carry.dtype), carry.shape) for p in vectors.values()]
    consts.append(initial)
    step = Step(cell, tuple(vectors), tree, bool(codes), (True,) * len(consts))
    needed, _ = recurrence.used(step, tuple(consts), (carry,), (*inputs, *codes))
    step = dataclasses.replace(step, needed=tuple(needed))
    static = step, (inputs[0].dtype,), reverse, way.of(carry)
    kept = tuple(x for x, use in zip(consts, needed, strict=True) if use)
    return _run(static, kept, carry, tuple(inputs), codes)


@dataclasses.dataclass(frozen=True)
class Step:
    """A cell's step as a body for `recurrence.scan`: (consts, (c,), (*inputs, *codes)) -> (c,), (y,), ().

    Attributes:
      vectors: names of the parameters among the consts; after them comes the state after a reset.
      tree: of (us, rest) in the inputs.
      coded: whether there are codes.
      needed: which of the consts it is given, those that it depends on.
    """

    cell: base.Cell
    vectors: tuple[str, ...]
    tree: Any
    coded: bool
    needed: tuple[bool, ...]

    @property
    def affine(self) -> bool:
        """Whether the state enters the next one in a linear way."""
        return isinstance(self.cell, base.Linear)

    def __call__(self, consts, carry, xs):
        cell, (c,) = self.cell, carry
        *vectors, initial = recurrence.filled(consts, self.needed, c)
        params = dict(zip(self.vectors, vectors, strict=True))
        us, rest = jax.tree.unflatten(self.tree, xs[:-1] if self.coded else xs)
        start = jnp.where(xs[-1] == RESET, initial, c) if self.coded else c
        if isinstance(cell, base.Linear):
            a, b = cell.coefficients(params, us)
            new = a * start + b
        else:
            weights = cell.recurrent_weights(params)
            w = {
                name: functools.partial(_product, *products.parts(weight)) for name, weight in weights.items()
            }
            new, _ = cell.recur(w, start, us)
        y = cell.readout(params, rest, start, new)
        if self.coded:
            taken = xs[-1] != SKIPPED
            new, y = jnp.where(taken, new, c), jnp.where(taken, y, jnp.zeros_like(y))
        return (new,), (y,), ()


def _product(weight, bias, h):
    """With a diagonal weight, which here has the shape of the state."""
    return h * weight if bias is None else h * weight + bias


@dataclasses.dataclass(frozen=True)
class WithBefore:
    """A step whose outputs are y and the state before it."""

    step: Step

    def __call__(self, consts, carry, xs):
        new, (y,), _ = self.step(consts, carry, xs)
        return new, (y, carry[0]), ()


@dataclasses.dataclass(frozen=True)
class Backward:
    """The gradient of a step: (consts, (d_c,), (*inputs, *codes, before, d_y)) -> (d_before,), d_inputs,
    d_consts."""

    step: Step

    def __call__(self, consts, carry, xs):
        *xs, before, d_y = xs
        inputs, codes = (xs[:-1], xs[-1:]) if self.step.coded else (xs, [])
        if codes:  # a skipped step does not look at the state, which may be infinite
            before = jnp.where(codes[0] == SKIPPED, jnp.zeros_like(before), before)

        def of(consts, c, inputs):
            (new,), (y,), _ = self.step(consts, (c,), (*inputs, *codes))
            return new, y

        _, transposed = jax.vjp(of, consts, before, tuple(inputs))
        d_consts, d_c, d_inputs = transposed((carry[0], d_y))
        return (d_c,), d_inputs, d_consts


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(static, consts, carry, inputs, codes):
    step, dtypes, reverse, way = static
    (last,), (ys,), _ = recurrence.scan(
        step, consts, (carry,), (*inputs, *codes), dtypes, reverse, step.affine, way
    )
    return last, ys


@_run.defjvp
def _run_jvp(static, primals, tangents):
    step, dtypes, reverse, way = static
    consts, carry, inputs, codes = primals
    both = dtypes + (carry.dtype,)
    (last,), (ys, before), _ = recurrence.scan(
        WithBefore(step), consts, (carry,), (*inputs, *codes), both, reverse, step.affine, way
    )

    def alone(consts, carry, inputs):
        (last,), (ys,), _ = recurrence.plain(step, dtypes, reverse, consts, (carry,), (*inputs, *codes))
        return last, ys

    def tangent(*tangents):
        return jax.jvp(alone, (consts, carry, inputs), tangents)[1]

    def backward(gradients):
        d_last, d_ys = gradients
        out = tuple(x.dtype for x in inputs)
        xs = (*inputs, *codes, before, d_ys)
        body = Backward(step)
        (d_carry,), d_inputs, d_consts = recurrence.scan(
            body, consts, (d_last,), xs, out, not reverse, True, way
        )
        return d_consts, d_carry, d_inputs

    return (last, ys), sequential._with_transpose(tangent, backward, tangents[:3], (last, ys))
