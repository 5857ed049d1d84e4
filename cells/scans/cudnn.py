"""An LSTM by cuDNN, through `jax.experimental.rnn`: NVIDIA's GPUs, float32, no resets."""

import functools

import jax
import jax.numpy as jnp

from cells.scans import sequential


def available(backend: str) -> str | None:
    """Why there is no cuDNN for a backend; None: there is."""
    if backend != "gpu":
        return f"cuDNN is for NVIDIA's GPUs, not for {backend!r}"
    from jax.experimental import rnn

    return None if getattr(rnn, "gpu_rnn", None) else "this jaxlib has no cuDNN"


def run(cell, params, carry, xs, taken):
    """The last carry and ys (batch, time, hidden_size) of an LSTM.

    Args:
      xs: (batch, time, features), in the order in which the steps are taken, real ones first.
      taken: (batch, time) bool, the real ones, or None.
    """
    lengths = jnp.full(len(xs), xs.shape[1]) if taken is None else taken.sum(1)
    return _run(cell, params, carry, xs, lengths)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(cell, params, carry, xs, lengths):
    return _forward(cell, params, carry, xs, lengths)[0]


@_run.defjvp
def _run_jvp(cell, primals, tangents):
    """Backwards cuDNN's own; forwards, and for higher derivatives, the cell's."""
    from cells import scans

    params, carry, xs, lengths = primals
    (last, ys), kept = _forward(cell, *primals)

    def alone(params, carry, xs):
        return scans.scan(cell, params, xs, carry, lengths=lengths, strategy="sequential")

    def tangent(*tangents):
        return jax.jvp(alone, (params, carry, xs), tangents)[1]

    def backward(gradients):
        return _backward(cell, params, carry, xs, lengths, kept, *gradients)

    out = last, jnp.where((jnp.arange(xs.shape[1]) < lengths[:, None])[..., None], ys, 0)
    return out, sequential._with_transpose(tangent, backward, tangents[:3], out)


# Seeds go one after the other: cuDNN's program cannot be mapped.


def _forward(cell, params, carry, xs, lengths):
    """(carry, ys), and what the backward pass wants."""
    from jax.experimental import rnn

    def run(*inputs):
        return rnn.lstm_fwd(*inputs, xs.shape[-1], cell.hidden_size, 1, 0.0, False, _precision())

    # cuDNN takes no row of length 0: such a row makes a step that is not looked at.
    rows = jnp.maximum(lengths, 1).astype(jnp.int32)
    inputs = xs, carry.h[None], carry.c[None], cell.packed(params), rows
    (ys, h, c), kept = jax.custom_batching.sequential_vmap(run)(*inputs)
    none = (lengths == 0)[:, None]
    return (type(carry)(c=jnp.where(none, carry.c, c[0]), h=jnp.where(none, carry.h, h[0])), ys), kept


def _backward(cell, params, carry, xs, lengths, kept, d_last, d_ys):
    from jax.experimental import rnn

    def run(kept, gradients):
        options = xs.shape[-1], cell.hidden_size, 1, 0.0, False, _precision()
        return rnn.lstm_bwd(*options, kept, gradients)[:4]

    none = (lengths == 0)[:, None]
    d_ys = jnp.where((jnp.arange(xs.shape[1]) < lengths[:, None])[..., None], d_ys, 0)
    d_h, d_c = (jnp.where(none, 0, d)[None] for d in (d_last.h, d_last.c))
    d_xs, d_h, d_c, d_weights = jax.custom_batching.sequential_vmap(run)(kept, (d_ys, d_h, d_c))
    (d_params,) = jax.vjp(cell.packed, params)[1](d_weights)
    d_carry = type(carry)(c=jnp.where(none, d_last.c, d_c[0]), h=jnp.where(none, d_last.h, d_h[0]))
    return d_params, d_carry, d_xs


def _precision():
    """Of its matmuls: in full where all of JAX's are."""
    full = jax.config.jax_default_matmul_precision in ("highest", "float32")
    return jax.lax.Precision.HIGHEST if full else None
