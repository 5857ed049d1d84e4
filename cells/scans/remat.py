"""Long sequences: only the state at the start of each chunk is kept, the rest is computed again.

Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
"""

import math

import jax
import jax.numpy as jnp
from jax import lax


def chunk_size(remat: int, time: int) -> int:
    """Steps in a chunk: `remat`, or for "sqrt" (-1) what makes chunks and steps in a chunk equal."""
    return min(time, remat if remat > 0 else math.isqrt(time - 1) + 1)


def run(scan, xs, carry, valid, resets, reverse, size):
    """Runs `scan` chunk by chunk, under `jax.checkpoint`.

    Args:
      scan: (xs, carry, mask, resets) -> (carry, ys), report for one chunk.
      xs: (batch, time, features); valid, resets: (batch, time) bool or None.
      size: steps of a chunk.

    Returns:
      Carry and ys as `cells.scan`, and the reports of the chunks. Memory kept for the backward pass:
      time / size states, and what one chunk needs.
    """
    batch, time = xs.shape[:2]
    padding = -time % size
    if padding and valid is None:
        valid = jnp.ones((batch, time), bool)

    def cut(x):  # (batch, time, ...) -> (chunks, batch, size, ...)
        x = jnp.pad(x, ((0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(batch, -1, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def body(carry, chunk):
        (carry, ys), report = scan(chunk["xs"], carry, chunk.get("valid"), chunk.get("resets"))
        return carry, (ys, report)

    steps = {"xs": xs, "valid": valid, "resets": resets}
    chunks = {name: cut(x) for name, x in steps.items() if x is not None}
    carry, (ys, reports) = lax.scan(body, carry, chunks, reverse=reverse)
    ys = jnp.moveaxis(ys, 0, 1)
    return (carry, ys.reshape(batch, -1, *ys.shape[3:])[:, :time]), reports
