"""`lax.scan` over time, for any cell, with the recurrent weights' gradients taken out of the loop.

Plain autodiff adds up each recurrent weight's gradient step by step, a whole matrix T times. Here the
derivative rule treats every product of a weight with the state, a_t = h_t U, as an input of the scan
with tangent h_t dU. Forwards that is one matmul before the tangent scan; transposed, the backward scan
emits the gradient of each a_t and one matmul after it makes dU. As it is a JVP rule, forward mode,
reverse mode and higher orders all follow from it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def run(cell, params, carry, us, initial, valid, resets, reverse):
    """Runs a cell's `recur` over time-major inputs; see `cells.scan` for the meaning of the arguments.

    Args:
      us: pytree of (time, batch, k) from `cell.project`.
      initial: carry after a reset.
      valid, resets: (time, batch, 1) bool or None.

    Returns:
      Final carry, ys (time, batch, hidden_size).
    """
    weights = cell.recurrent_weights(params)
    return _run((cell, reverse), weights, carry, us, (initial, valid, resets))


def _products(weights, offsets, states):
    """Each weight as a function of the state: h -> h U [+ bias] + offset; records h in `states`."""

    def product(name, weight, h):
        weight, bias = weight if isinstance(weight, tuple) else (weight, None)
        states[name] = h
        a = multiply(h, weight)
        a = a if bias is None else a + bias
        return a + offsets[name] if offsets else a

    return {name: partial(product, name, weight) for name, weight in weights.items()}


def multiply(h, weight):
    """h U for a matrix, h * v for a vector; states wider than the weight take the weight's precision."""
    if weight.ndim == 1:
        return h * weight
    return jnp.matmul(h.astype(weight.dtype), weight, preferred_element_type=h.dtype)


def _scan(static, weights, carry, us, flags, offsets):
    cell, reverse = static
    initial, valid, resets = flags

    def body(carry, inputs):
        u, offset, ok, reset = inputs
        states = {}
        before = carry
        if reset is not None:
            carry = jax.tree.map(lambda i, c: jnp.where(reset, i, c), initial, carry)
        carry, y = cell.recur(_products(weights, offset, states), carry, u)
        if ok is not None:
            carry = jax.tree.map(lambda new, old: jnp.where(ok, new, old), carry, before)
            y = jnp.where(ok, y, 0)
        return carry, (y, states)

    carry, (ys, states) = lax.scan(body, carry, (us, offsets, valid, resets), reverse=reverse)
    return (carry, ys), states


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(static, weights, carry, us, flags):
    return _scan(static, weights, carry, us, flags, {})[0]


@_run.defjvp
def _run_jvp(static, primals, tangents):
    weights, carry, us, flags = primals
    d_weights, d_carry, d_us, _ = tangents
    _, states = jax.eval_shape(lambda: _scan(static, weights, carry, us, flags, {}))
    zeros = {
        name: jnp.zeros((*h.shape[:-1], jax.tree.leaves(weights[name])[0].shape[-1]), h.dtype)
        for name, h in states.items()
    }
    out, pushforward, states = jax.linearize(
        lambda *args: _scan(static, weights, *args[:2], flags, args[2]), carry, us, zeros, has_aux=True
    )
    d_products = {}
    for name, d_weight in d_weights.items():
        d_weight, d_bias = d_weight if isinstance(d_weight, tuple) else (d_weight, None)
        d_products[name] = multiply(states[name], d_weight)
        if d_bias is not None:
            d_products[name] += d_bias
    return out, pushforward(d_carry, d_us, d_products)
