"""Causal softmax attention: the control whose state grows with the sequence (Vaswani 2017, "Attention is all
you need")."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cells import base, parts


class Cache(NamedTuple):
    """Keys and values of the window - 1 last steps, the latest last, (batch, heads, d, window - 1), and which
    of these places are taken, 1 or 0, (batch, window - 1)."""

    keys: base.Array
    values: base.Array
    taken: base.Array


@dataclasses.dataclass(frozen=True)
class Attention(base.Sequence):
    """h = softmax(q K^T / sqrt(d)) V W_o

    q, k, v = W x per head; K, V are those of the last `window` steps, this one included (section 3.2). Order
    is told by rotations of q and k, of which only the real steps between them count (Su 2021, "RoFormer",
    section 3.2.2; unit i is turned with unit i + d // 2, not its neighbour; of an odd d the last is not).

    Options:
      heads: d = hidden_size / heads.
      window: steps that it sees, as many as its carry holds. Of a task of known length: all.

    All of time at once takes memory O(time^2), or with a carry O(time * (time + window)): what bounds it is
    `remat`. There are no biases, no dropout of weights; norm, residual and feed-forward layer belong to the
    model (`model.block`).
    """

    heads: int = 1
    window: int = 1024

    forms = ("parallel",)
    length_options = ("window",)
    dynamics = "attention"
    fixed_time = True
    knobs = ({"heads": 2}, {"heads": 4})
    style = ("#000000", parts.DOTTED, "x")

    def __post_init__(self):
        super().__post_init__()
        base.check_heads(self)
        base.check_positive(self, "window")

    def _length(self, steps):
        return {"window": steps}

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_o = jax.random.split(key)
        H, init = self.hidden_size, parts.input_initializer()
        params = parts.dense_weights(key_W, "qkv", "W", (input_size, H), init, dtype)
        return params | {"W_o": init(key_o, (H, H), dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        shape = (batch_size, self.heads, self.hidden_size // self.heads, self.window - 1)
        taken = jnp.zeros((batch_size, self.window - 1), dtype)
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), taken)

    def _heads(self, u):
        return u.reshape(*u.shape[:-1], self.heads, -1)

    def step(self, params, carry, x):
        q, k, v = (self._heads(u) for u in self.project(params, x)[0])
        new = Cache(k, v, jnp.ones(x.shape[0], k.dtype))
        seen = Cache(*(jnp.concatenate([c, n[..., None]], axis=-1) for c, n in zip(carry, new, strict=True)))
        K = turned(jnp.moveaxis(seen.keys, -1, 0), np.arange(1 - self.window, 1))
        scores = jnp.einsum("bhd,sbhd->bhs", q, K) / q.shape[-1] ** 0.5
        scores = jnp.where(seen.taken[:, None] > 0.5, scores, -jnp.inf)
        h = jnp.einsum("bhs,bhds->bhd", jax.nn.softmax(scores), seen.values)
        return Cache(*(c[..., 1:] for c in seen)), h.reshape(x.shape[0], -1) @ params["W_o"]

    def project(self, params, xs):
        u = xs @ parts.stack(params, "W_q", "W_k", "W_v")
        return tuple(parts.split(u, 3)), None

    def over_time(self, params, carry, us, rest, steps):
        q, k, v = (self._heads(u) for u in us)  # (time, batch, heads, d)
        time, batch = q.shape[:2]
        past = self.window - 1
        new = Cache(k, v, jnp.ones((time, batch), k.dtype))
        before = Cache(*(jnp.moveaxis(c, -1, 0) for c in carry))
        known = Cache(*map(jnp.concatenate, zip(before, new, strict=True)))
        first = jnp.zeros((time, batch), int)  # of what is known, since the last reset
        if steps.resets is not None:
            first = lax.cummax(jnp.where(steps.resets, past + jnp.arange(time)[:, None], 0))
        ends = jnp.full(batch, time) if steps.valid is None else steps.valid.sum(0)

        unused = past if steps.fresh else 0  # from the initial carry there is nothing to see
        keys, values, taken = (c[unused:] for c in known)
        s, t = np.arange(unused, past + time), np.arange(past, past + time)[:, None]
        near = (s <= t) & (s > t - self.window)  # (time, steps seen)
        visible = near[:, None] & (s >= first[..., None]) & (taken.T > 0.5)
        scores = jnp.einsum("tbhd,sbhd->tbhs", turned(q, t[:, 0]), turned(keys, s)) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(visible[:, :, None], scores, -jnp.inf))
        h = jnp.einsum("tbhs,sbhd->tbhd", weights, values)

        index = ends + np.arange(past)[:, None]  # of the last window - 1 real steps, (window - 1, batch)

        def last(c):
            at, kept = (x.reshape(x.shape + (1,) * (c.ndim - 2)) for x in (index, index >= first[-1]))
            return jnp.moveaxis(jnp.where(kept, jnp.take_along_axis(c, at, axis=0), 0), 0, -1)

        return Cache(*map(last, known)), steps.product(h.reshape(time, batch, -1), params["W_o"])


def turned(x, positions):
    """x (steps, batch, heads, d), units i and i + d // 2 turned by the angle position * 10000^(-2 i / d)."""
    d = x.shape[-1]
    half = d // 2
    # Known when it is compiled, in float64: the angles of long sequences are no numbers of float32.
    angles = np.outer(positions, 10000.0 ** (-2 * np.arange(half) / d))[:, None, None]
    cos, sin = (f(angles).astype(x.dtype) for f in (np.cos, np.sin))
    a, b, odd = jnp.split(x, [half, 2 * half], axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos, odd], axis=-1)
