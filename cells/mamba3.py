"""Mamba-3's recurrence, a matrix state that turns (Lahoti 2026, "Mamba-3: Improved sequence modeling using
state space principles")."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, silu, softplus

from cells import base, parts


class Carry(NamedTuple):
    """S (batch, heads, hidden_size / heads, state_size); x and B of the step before, (batch, heads, k)."""

    S: base.Array
    x: base.Array
    B: base.Array


@dataclasses.dataclass(frozen=True)
class Mamba3(base.Sequence):
    """S = a R (S' + (1 - lam) dt x' B'^T) + lam dt x B^T,   h = (S C + D * x) * silu(z)

    An exponential-trapezoidal rule (section 3.1): the step before, x' B'^T, counts once more. R turns pairs
    of the state by the angles dt pi tanh(W_theta u), which is a complex state (section 3.2). u is the input:
    x, z = W u of width hidden_size; B, C = norm(W u) * w + b of width state_size, norm by the root mean
    square, b one per head; dt = softplus(W_dt u + b_dt), lam = sigma(W_lam u), a = exp(-dt A), A =
    softplus(W_A u), at least A_MIN, and D, one per head. "chunkwise" turns B and C by the sums of the
    angles, and then is Mamba-2's (section 3.2, "the RoPE trick"). One input, one output (SISO).

    Options:
      state_size: width of B and C.
      heads: a divisor of hidden_size.
      dt_min, dt_max: dt starts log-uniform between them, for each head.
      rotated: the share of the state that turns, from 0 to 1.
      trapezoid: False: lam = 1, Euler's rule, as in Mamba-2.

    In the authors' package projections start with variance 1 / (3 d), here 1 / d, and state_size is 128,
    here 16. There is no convolution before it. The norm and the projection after it belong to the block.
    """

    state_size: int = 16
    heads: int = 1
    dt_min: float = 0.001
    dt_max: float = 0.1
    rotated: float = 0.5
    trapezoid: bool = True

    forms = ("chunkwise",)
    dynamics = "rotation"
    knobs = ({"heads": 4}, {"heads": 4, "dt_min": 0.1, "dt_max": 1.0})
    style = ("#999933", parts.MIXED, "X")

    def __post_init__(self):
        super().__post_init__()
        base.check_positive(self, "state_size")
        base.check_heads(self)
        base.check_time_steps(self)
        base.check_finite(self, "rotated")
        base.require(self, "rotated", 0 <= self.rotated <= 1, "in [0, 1]")

    @property
    def _angles(self):
        return int(self.state_size * self.rotated) // 2

    @property
    def _widths(self):
        """Of the projections, in their order."""
        H, N, heads = self.hidden_size, self.state_size, self.heads
        widths = {"x": H, "z": H, "B": N, "C": N, "dt": heads, "A": heads}
        widths |= {"lam": heads, "theta": self._angles}
        left_out = {"lam": not self.trapezoid, "theta": not self._angles}
        return {name: width for name, width in widths.items() if not left_out.get(name)}

    def init(self, key, input_size, dtype=jnp.float32):
        init, N, heads = parts.input_initializer(), self.state_size, self.heads
        wide = jnp.promote_types(dtype, jnp.float32)
        key, key_b = jax.random.split(key)
        keys = jax.random.split(key, len(self._widths))
        params = {
            f"W_{name}": init(k, (input_size, width), dtype)
            for k, (name, width) in zip(keys, self._widths.items(), strict=True)
        }
        # dt between 0.001 and 0.1, and ones, as the authors start them.
        dt = parts.time_steps(key_b, (heads,), self.dt_min, self.dt_max, wide)
        return params | {
            "b_dt": parts.before_softplus(dt).astype(dtype),
            "w_B": jnp.ones(N, dtype), "w_C": jnp.ones(N, dtype),
            "b_B": jnp.ones((heads, N), dtype), "b_C": jnp.ones((heads, N), dtype),
            "D": jnp.ones(heads, dtype),
        }  # fmt: skip

    def initial_carry(self, batch_size, dtype=jnp.float32):
        heads, size, N = self.heads, self.hidden_size // self.heads, self.state_size
        return Carry(*(jnp.zeros((batch_size, heads, *k), dtype) for k in ((size, N), (size,), (N,))))

    def gates(self, params, carry, x):
        (_, _, _, dt, A, lam, _), _ = self.project(params, x)
        gates = {"forget": jnp.exp(-dt * A)} | ({"input": lam} if self.trapezoid else {})
        return {name: jnp.repeat(g, self.hidden_size // self.heads, axis=-1) for name, g in gates.items()}

    def step(self, params, carry, x):
        (x, B, C, dt, A, lam, theta), z = self.project(params, x)
        x, B, C = self._heads(params, x, B, C)
        before = ((1 - lam) * dt)[..., None, None] * carry.x[..., None] * carry.B[..., None, :]
        turned = turn(carry.S + before, (dt[..., None] * theta[:, None])[..., None, :])
        S = jnp.exp(-dt * A)[..., None, None] * turned
        S += (lam * dt)[..., None, None] * x[..., None] * B[..., None, :]
        h = jnp.einsum("bhps,bhs->bhp", S, C) + params["D"][:, None] * x
        return Carry(S, x, B), h.reshape(z.shape) * silu(z)

    def project(self, params, xs):
        widths = self._widths
        u = xs @ parts.stack(params, *(f"W_{name}" for name in widths))
        u = dict(zip(widths, parts.cut(u, *widths.values()), strict=True))
        dt = softplus(u["dt"] + params["b_dt"])
        A = jnp.maximum(softplus(u["A"]), A_MIN)
        lam = sigmoid(u["lam"]) if self.trapezoid else jnp.ones_like(dt)
        theta = jnp.pi * jnp.tanh(u["theta"]) if self._angles else u["x"][..., :0]
        return (u["x"], normed(u["B"]), normed(u["C"]), dt, A, lam, theta), u["z"]

    def _heads(self, params, x, B, C):
        """x by heads; B and C with each head's bias: (..., heads, k)."""
        B, C = (
            p[..., None, :] * params[f"w_{k}"].astype(p.dtype) + params[f"b_{k}"].astype(p.dtype)
            for k, p in (("B", B), ("C", C))
        )
        return x.reshape(*x.shape[:-1], self.heads, -1), B, C

    def over_time(self, params, carry, us, rest, steps):
        x, B, C, dt, A, lam, theta = us
        x, B, C = self._heads(params, x, B, C)
        before = [jnp.concatenate([first[None], of[:-1]]) for first, of in ((carry.x, x), (carry.B, B))]
        if steps.resets is not None:
            before = [jnp.where(steps.resets[..., None, None], 0, of) for of in before]
        log_decay = -dt * A
        # Two rows of a chunk for each step: what the step before writes once more, and what it writes.
        weights = (1 - lam) * dt * jnp.exp(log_decay), lam * dt
        written = (before[0] * weights[0][..., None], before[1]), (x * weights[1][..., None], B)
        angles = dt[..., None] * theta[..., None, :]
        S, h = steps.by_chunks(self._chunk, carry.S, (written, C, log_decay, angles))
        h = h + params["D"].astype(h.dtype)[:, None] * x
        return Carry(S, *(last(steps.valid, first, of) for first, of in ((carry.x, x), (carry.B, B)))), (
            h.reshape(rest.shape) * silu(rest)
        )

    def _chunk(self, S, us, chunk):
        ((x_, B_), (x, B)), C, log_decay, angles = us  # (steps, batch, heads, ...)
        valid = chunk.valid[..., None]
        angles = jnp.where(valid, angles, 0)
        so_far = jnp.cumsum(angles, axis=0)
        weights, kept, _ = chunk.decays(jnp.where(chunk.valid, log_decay, 0))
        weights, kept = jnp.exp(weights), jnp.exp(kept)
        x = jnp.where(valid[..., None], jnp.stack([x_, x], -2), 0)
        B = jnp.stack([turn(B_, angles - so_far), turn(B, -so_far)], -2)
        C = turn(C, -so_far)
        seen = jnp.einsum("tbhn,sbhkn->tsbhk", C, B) * weights[..., None]
        h = jnp.einsum("tsbhk,sbhkp->tbhp", seen, x)
        h += kept[..., None] * jnp.einsum("bhpn,tbhn->tbhp", S, C)
        S = kept[-1][..., None, None] * S + jnp.einsum("sbh,sbhkp,sbhkn->bhpn", weights[-1], x, B)
        return turn(S, so_far[-1][..., None, :]), h


A_MIN = 1e-4


def last(valid, first: base.Array, xs: base.Array) -> base.Array:
    """xs (time, batch, ...) at the last real step of each row, `first` (batch, ...) where there is none."""
    if valid is None:
        return xs[-1]
    at = valid.sum(0).reshape((1, -1) + (1,) * (first.ndim - 1))
    return jnp.take_along_axis(jnp.concatenate([first[None], xs]), at, axis=0)[0]


def normed(x: base.Array) -> base.Array:
    """Over the root of the mean square of the last axis."""
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def turn(x: base.Array, angles: base.Array) -> base.Array:
    """The first 2 n numbers of the last axis as n of the plane, the second half of them their second
    coordinates, turned by `angles` (..., n)."""
    n = angles.shape[-1]
    a, b, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([cos * a - sin * b, sin * a + cos * b, rest], -1)
