"""An LSTM by cuDNN, through `jax.experimental.rnn`: NVIDIA's GPUs, float32, no resets, first derivatives."""

import functools

import jax
import jax.numpy as jnp


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
    batch, time, features = xs.shape
    lengths = jnp.full(batch, time) if taken is None else taken.sum(1)
    # cuDNN takes no row of length 0: such a row makes a step that is not looked at.
    inputs = xs, carry.h[None], carry.c[None], cell.packed(params), jnp.maximum(lengths, 1).astype(jnp.int32)
    ys, h, c = _lstm(features, cell.hidden_size, *inputs)
    none = (lengths == 0)[:, None]
    return type(carry)(c=jnp.where(none, carry.c, c[0]), h=jnp.where(none, carry.h, h[0])), ys


# Seeds one after the other: its program cannot be mapped.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _lstm(features, size, *inputs):
    return _forward(features, size, *inputs)[0]


def _forward(features, size, *inputs):
    from jax.experimental import rnn

    def run(*inputs):
        return rnn.lstm_fwd(*inputs, features, size, 1, 0.0, False, None)

    return jax.custom_batching.sequential_vmap(run)(*inputs)


def _backward(features, size, kept, gradients):
    from jax.experimental import rnn

    def run(kept, gradients):
        return rnn.lstm_bwd(features, size, 1, 0.0, False, None, kept, gradients)[:4]

    return (*jax.custom_batching.sequential_vmap(run)(kept, gradients), None)


_lstm.defvjp(_forward, _backward)
