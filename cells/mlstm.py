"""mLSTM: a matrix memory, parallel over time (Beck 2024, "xLSTM: extended long short-term memory")."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from cells import base


class MLSTMCarry(NamedTuple):
    """Memory C (batch, heads, d, d), values by keys; normaliser n (batch, heads, d); stabiliser m (batch,
    heads)."""

    C: base.Array
    n: base.Array
    m: base.Array


@dataclasses.dataclass(frozen=True)
class MLSTM(base.Cell):
    """C = f C' + i v k^T,   n = f n' + i k,   h = o * (C q) / max(|n . q|, 1)

    q, v = W x, k = W x / sqrt(d); i = exp(w_i x + b_i), f = sigma(w_f x + b_f), one of each per head (eq.
    19-27); o = sigma(W_o x + b_o). C, n are carried times exp(-m), as in sLSTM. "chunked" is the
    chunkwise-parallel form: attention inside a chunk, the recurrence between chunks.

    Options:
      heads: d = hidden_size / heads.
      forget_bias: initial b_f.
    """

    heads: int = 1
    forget_bias: float = 3.0

    parallel = ("chunked",)

    def __post_init__(self):
        super().__post_init__()
        base.check_heads(self)
        base.check_finite(self, "forget_bias")

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_g = jax.random.split(key)
        H, init = self.hidden_size, base.input_initializer()
        params = base.dense_weights(key_W, "qkvo", "W", (input_size, H), init, dtype)
        params |= base.dense_weights(key_g, "if", "W", (input_size, self.heads), init, dtype)
        params |= {"b_o": jnp.zeros(H, dtype), "b_i": jnp.zeros(self.heads, dtype)}
        return params | {"b_f": jnp.full(self.heads, self.forget_bias, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        d = self.hidden_size // self.heads
        shapes = (self.heads, d, d), (self.heads, d), (self.heads,)
        return MLSTMCarry(*(jnp.zeros((batch_size, *shape), dtype) for shape in shapes))

    def _heads(self, u):
        return u.reshape(*u.shape[:-1], self.heads, -1)

    def gates(self, params, carry, x):
        d = self.hidden_size // self.heads
        f = jnp.repeat(sigmoid(x @ params["W_f"] + params["b_f"]), d, axis=-1)
        return {"forget": f, "output": sigmoid(x @ params["W_o"] + params["b_o"])}

    def step(self, params, carry, x):
        (q, k, v, a_i, a_f), o = self.project(params, x)
        q, k, v = (self._heads(u) for u in (q, k, v))
        log_f = log_sigmoid(a_f)
        m = jnp.maximum(log_f + carry.m, a_i)
        i, f = jnp.exp(a_i - m), jnp.exp(log_f + carry.m - m)
        C = f[..., None, None] * carry.C + i[..., None, None] * v[..., :, None] * k[..., None, :]
        n = f[..., None] * carry.n + i[..., None] * k
        numerator = jnp.einsum("...vk,...k->...v", C, q)
        h = numerator / jnp.maximum(jnp.abs((n * q).sum(-1)), jnp.exp(-m))[..., None]
        return MLSTMCarry(C, n, m), o * h.reshape(o.shape)

    def project(self, params, xs):
        q, k, v = (xs @ params[f"W_{name}"] for name in "qkv")
        a_i, a_f = (xs @ params[f"W_{name}"] + params[f"b_{name}"] for name in "if")
        k = k / (self.hidden_size // self.heads) ** 0.5
        return (q, k, v, a_i, a_f), sigmoid(xs @ params["W_o"] + params["b_o"])

    def over_time(self, params, carry, us, rest, steps):
        q, k, v, a_i, a_f = us
        us = *(self._heads(u) for u in (q, k, v)), a_i, log_sigmoid(a_f)
        carry, h = steps.by_chunks(self._chunk, carry, us)
        return carry, rest * h.reshape(rest.shape)

    @staticmethod
    def _chunk(carry, us, chunk):
        q, k, v, a_i, log_f = us  # (steps, batch, heads, ...)
        a_i = jnp.where(chunk.valid, a_i, -jnp.inf)
        weights, kept, fresh = chunk.decays(jnp.where(chunk.valid, log_f, 0))
        weights = weights + a_i  # (steps, before them, batch, heads), logarithms: -inf for what is not seen
        from_state = jnp.where(jnp.isneginf(kept), fresh, kept + carry.m)  # a reset starts from m = 0
        m = jnp.maximum(from_state, weights.max(1))
        weights = jnp.exp(weights - m[:, None])
        scale = jnp.exp(jnp.where(jnp.isneginf(kept), -jnp.inf, from_state - m))
        seen = jnp.einsum("tbhd,sbhd->tsbh", q, k) * weights
        numerator = jnp.einsum("tsbh,sbhd->tbhd", seen, v)
        numerator += scale[..., None] * jnp.einsum("bhvk,tbhk->tbhv", carry.C, q)
        nq = seen.sum(1) + scale * jnp.einsum("bhk,tbhk->tbh", carry.n, q)
        h = numerator / jnp.maximum(jnp.abs(nq), jnp.exp(-m))[..., None]
        last, old = weights[-1], scale[-1]
        C = old[..., None, None] * carry.C + jnp.einsum("sbh,sbhv,sbhk->bhvk", last, v, k)
        return MLSTMCarry(C, old[..., None] * carry.n + jnp.einsum("sbh,sbhk->bhk", last, k), m[-1]), h
