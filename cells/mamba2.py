"""Mamba-2's recurrence, scalar decay on a matrix state (Dao & Gu 2024, "Transformers are SSMs")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import silu, softplus

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class Mamba2(base.Sequence):
    """S = exp(-dt A) S' + dt x B^T,   h = (S C + D * x) * silu(z)

    x, z = W u of width hidden_size; B, C = W u of width state_size, shared by the heads; dt = softplus(w u +
    b), A > 0 and D one per head (sections 2 and 7.1, u the input). The carry S is (batch, heads, hidden_size
    / heads, state_size). "chunkwise" is the paper's SSD algorithm (section 6).

    Options:
      state_size: width of B and C.
      heads: a divisor of hidden_size.
      dt_min, dt_max: dt starts log-uniform between them, for each head.
      negative_eigenvalues: 2 exp(-dt A) - 1 stands for exp(-dt A), in (-1, 1) (`parts.negative`).

    The convolution with its SiLU before it, the norm and the projection after it, in Mamba-2's block, are not
    part of the cell. In the authors' package projections start with variance 1 / (3 d), here 1 / d, and
    state_size is 64, here 16.
    """

    state_size: int = 16
    heads: int = 1
    dt_min: float = 0.001
    dt_max: float = 0.1
    negative_eigenvalues: bool = False

    forms = ("chunkwise",)
    dynamics = "linear"
    knobs = ({"heads": 4}, {"heads": 4, "dt_min": 0.0001, "dt_max": 0.01})
    style = ("#8B4513", parts.MIXED, "8")

    def __post_init__(self):
        super().__post_init__()
        base.check_positive(self, "state_size")
        base.check_heads(self)
        base.check_time_steps(self)

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_S, key_dt, key_A, key_b = jax.random.split(key, 5)
        init, heads = parts.input_initializer(), self.heads
        params = parts.dense_weights(key_W, "xz", "W", (input_size, self.hidden_size), init, dtype)
        params |= parts.dense_weights(key_S, "BC", "W", (input_size, self.state_size), init, dtype)
        # A uniform in [1, 16], D = 1, dt between 0.001 and 0.1, as the authors start them.
        wide = jnp.promote_types(dtype, jnp.float32)
        dt = parts.time_steps(key_b, (heads,), self.dt_min, self.dt_max, wide)
        return params | {
            "W_dt": init(key_dt, (input_size, heads), dtype),
            "b_dt": parts.before_softplus(dt).astype(dtype),
            "A_log": jnp.log(jax.random.uniform(key_A, (heads,), wide, 1, 16)).astype(dtype),
            "D": jnp.ones(heads, dtype),
        }

    def initial_carry(self, batch_size, dtype=jnp.float32):
        shape = (batch_size, self.heads, self.hidden_size // self.heads, self.state_size)
        return jnp.zeros(shape, dtype)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def gates(self, params, carry, x):
        dt = softplus(x @ params["W_dt"] + params["b_dt"])
        keep = jnp.exp(-dt * jnp.exp(params["A_log"]))
        return {"forget": jnp.repeat(keep, self.hidden_size // self.heads, axis=-1)}

    def step(self, params, carry, x):
        (x, B, C, dt), z = self.project(params, x)
        x, decay = self._heads(x), jnp.exp(-dt * jnp.exp(params["A_log"]))
        if self.negative_eigenvalues:
            decay = parts.negative(decay)
        S = decay[..., None, None] * carry + dt[..., None, None] * x[..., None] * B[:, None, None, :]
        h = jnp.einsum("bhps,bs->bhp", S, C) + params["D"][:, None] * x
        return S, h.reshape(z.shape) * silu(z)

    def project(self, params, xs):
        H, N = self.hidden_size, self.state_size
        u = xs @ parts.stack(params, *(f"W_{name}" for name in ("x", "z", "B", "C", "dt")))
        x, z, B, C, dt = parts.cut(u, H, H, N, N, self.heads)
        return (x, B, C, softplus(dt + params["b_dt"])), z

    def over_time(self, params, carry, us, rest, steps):
        x, B, C, dt = us
        x, log_decay = self._heads(x), -dt * jnp.exp(params["A_log"].astype(dt.dtype))
        flips = jnp.zeros(dt.shape, bool)
        if self.negative_eigenvalues:
            decay = parts.negative(jnp.exp(log_decay))
            flips, tiny = decay < 0, jnp.finfo(decay.dtype).tiny
            log_decay = jnp.log(jnp.maximum(jnp.abs(decay), tiny))
        carry, h = steps.by_chunks(self._chunk, carry, (dt[..., None] * x, B, C, log_decay, flips))
        h = h + params["D"].astype(dt.dtype)[:, None] * x
        return carry, h.reshape(rest.shape) * silu(rest)

    def _chunk(self, S, us, chunk):
        x, B, C, log_decay, flips = us  # (steps, batch, ...)
        x = jnp.where(chunk.valid[..., None], x, 0)
        weights, kept, _ = chunk.decays(jnp.where(chunk.valid, log_decay, 0))
        weights, kept = jnp.exp(weights), jnp.exp(kept)
        if self.negative_eigenvalues:  # the sign of a product, by how many of its factors are negative
            counts = chunk.decays(jnp.where(chunk.valid & flips, 1.0, 0.0).astype(x.dtype))[:2]
            weights, kept = (
                jnp.where(jnp.isfinite(n), 1 - 2 * (n % 2), 0) * y
                for n, y in zip(counts, (weights, kept), strict=True)
            )
        seen = jnp.einsum("tbn,sbn->tsb", C, B)[..., None] * weights
        h = jnp.einsum("tsbh,sbhp->tbhp", seen, x)
        h += kept[..., None] * jnp.einsum("bhpn,tbn->tbhp", S, C)
        S = kept[-1][..., None, None] * S + jnp.einsum("sbh,sbhp,sbn->bhpn", weights[-1], x, B)
        return S, h
