"""mLSTM: a matrix memory, parallel over time (Beck 2024, "xLSTM: extended long short-term memory")."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from cells import base, parts


class MLSTMCarry(NamedTuple):
    """Memory C (batch, heads, d, d), normaliser n (batch, heads, d), stabiliser m (batch, heads)."""

    C: base.Array
    n: base.Array
    m: base.Array


@dataclasses.dataclass(frozen=True)
class MLSTM(base.Sequence):
    """C = f C' + i v k^T,   n = f n' + i k,   h = o * (C q) / max(|n . q|, 1)

    q, v = W x, k = W x / sqrt(d); i = exp(W_i x + b_i), f = sigma(W_f x + b_f), one of each per head; o =
    sigma(W_o x + b_o): section 2.3, eq. 19-27. C, n are carried times exp(-m), as in sLSTM. "chunkwise" is
    attention inside a chunk and the recurrence between chunks.

    Options:
      heads: d = hidden_size / heads.
      forget: "sigmoid" as above, the authors' code's, or "exp": f = exp(W_f x + b_f), eq. 26's other choice.
      forget_bias: b_f starts evenly spaced over the heads, from it to 3 more.

    q, k, v have no biases, as in the authors' package, whose initialisation this is. The group norm,
    convolution and projections of the block are left out. The bound, exp(-m) of what is carried, has m
    clipped to +-40, past which float32 would make it 0 or infinite; the package does not clip.
    """

    heads: int = 1
    forget: str = "sigmoid"
    forget_bias: float = 3.0

    forms = ("chunkwise",)
    length_options = ("forget_bias",)
    dynamics = "linear"
    knobs = ({"heads": 4}, {"heads": 4, "forget_bias": 5.0})
    style = ("#4477AA", parts.MIXED, "H")

    def __post_init__(self):
        super().__post_init__()
        base.check_heads(self)
        base.check_choice(self, "forget", "sigmoid", "exp")
        base.check_finite(self, "forget_bias")

    def _length(self, steps):
        return parts.middle_bias(steps)

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_b = jax.random.split(key)
        H, heads = self.hidden_size, self.heads
        params = parts.dense_weights(key_W, "qkvo", "W", (input_size, H), parts.small_init(), dtype)
        # The gates of a head start alike for every input.
        params |= {f"W_{gate}": jnp.zeros((input_size, heads), dtype) for gate in "if"}
        params |= {"b_i": 0.1 * jax.random.normal(key_b, (heads,), dtype), "b_o": jnp.zeros(H, dtype)}
        return params | {"b_f": parts.spread_bias(self.forget_bias, heads, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        d = self.hidden_size // self.heads
        shapes = (self.heads, d, d), (self.heads, d), (self.heads,)
        return MLSTMCarry(*(jnp.zeros((batch_size, *shape), dtype) for shape in shapes))

    def _heads(self, u):
        return u.reshape(*u.shape[:-1], self.heads, -1)

    def gates(self, params, carry, x):
        (*_, log_f), o = self.project(params, x)
        f = jnp.repeat(jnp.exp(log_f), self.hidden_size // self.heads, axis=-1)
        return {"forget": f, "output": o} if self.forget == "sigmoid" else {"output": o}

    def step(self, params, carry, x):
        (q, k, v, a_i, log_f), o = self.project(params, x)
        q, k, v = (self._heads(u) for u in (q, k, v))
        m = jnp.maximum(log_f + carry.m, a_i)
        i, f = jnp.exp(a_i - m), jnp.exp(log_f + carry.m - m)
        C = f[..., None, None] * carry.C + i[..., None, None] * v[..., :, None] * k[..., None, :]
        n = f[..., None] * carry.n + i[..., None] * k
        numerator = jnp.einsum("...vk,...k->...v", C, q)
        h = numerator / _bounded((n * q).sum(-1), m)[..., None]
        return MLSTMCarry(C, n, m), o * h.reshape(o.shape)

    def project(self, params, xs):
        H, heads = self.hidden_size, self.heads
        u = xs @ parts.stack(params, *(f"W_{name}" for name in "qkvoif"))
        q, k, v, a_o, a_i, a_f = jnp.split(u, [H, 2 * H, 3 * H, 4 * H, 4 * H + heads], axis=-1)
        k, a_i, a_f = k / (H // heads) ** 0.5, a_i + params["b_i"], a_f + params["b_f"]
        log_f = log_sigmoid(a_f) if self.forget == "sigmoid" else a_f
        return (q, k, v, a_i, log_f), sigmoid(a_o + params["b_o"])

    def over_time(self, params, carry, us, rest, steps):
        q, k, v, a_i, log_f = us
        carry, h = steps.by_chunks(self._chunk, carry, (*(self._heads(u) for u in (q, k, v)), a_i, log_f))
        return carry, rest * h.reshape(rest.shape)

    @staticmethod
    def _chunk(carry, us, chunk):
        q, k, v, a_i, log_f = us  # (steps, batch, heads, ...)
        weights, kept, fresh = chunk.decays(jnp.where(chunk.valid, log_f, 0))
        # (steps, before them, batch, heads), logarithms: -inf for what is not seen
        weights += jnp.where(chunk.valid, a_i, -jnp.inf)
        from_state = jnp.where(jnp.isneginf(kept), fresh, kept + carry.m)  # a reset starts from m = 0
        m = jnp.maximum(from_state, weights.max(1))
        weights = jnp.exp(weights - m[:, None])
        scale = jnp.exp(jnp.where(jnp.isneginf(kept), -jnp.inf, from_state - m))
        seen = jnp.einsum("tbhd,sbhd->tsbh", q, k) * weights
        numerator = jnp.einsum("tsbh,sbhd->tbhd", seen, v)
        numerator += scale[..., None] * jnp.einsum("bhvk,tbhk->tbhv", carry.C, q)
        nq = seen.sum(1) + scale * jnp.einsum("bhk,tbhk->tbh", carry.n, q)
        h = numerator / _bounded(nq, m)[..., None]
        last, old = weights[-1], scale[-1]
        C = old[..., None, None] * carry.C + jnp.einsum("sbh,sbhv,sbhk->bhvk", last, v, k)
        return MLSTMCarry(C, old[..., None] * carry.n + jnp.einsum("sbh,sbhk->bhk", last, k), m[-1]), h


def _bounded(nq, m):
    """max(|n . q|, 1) of an n times exp(-m); neither it nor its square is 0 or infinite in float32."""
    return jnp.maximum(jnp.abs(nq), jnp.exp(-jnp.clip(m, -40, 40)))
