"""sLSTM: exponential gates, a scalar memory (Beck 2024, "xLSTM: extended long short-term memory")."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from cells import base, parts


class SLSTMCarry(NamedTuple):
    """Memory, normaliser, stabiliser and output, each (batch, hidden_size); c and n are times exp(-m)."""

    c: base.Array
    n: base.Array
    m: base.Array
    h: base.Array


@dataclasses.dataclass(frozen=True)
class SLSTM(base.Nonlinear):
    """i = exp(a_i),  f = sigma(a_f),  z = tanh(a_z),  o = sigma(a_o),  where a = W x + R h' + b,
    c = f * c' + i * z,   n = f * n' + i,   h = o * c / n

    Section 2.2, eq. 8-14. What is carried is c exp(-m) and n exp(-m), m = max(log f + m', a_i), which leaves
    c / n as it is (eq. 15-17).

    Options:
      heads: R is block-diagonal, (heads, d, d) with d = hidden_size / heads.
      forget: "sigmoid" as above, the authors' code's, or "exp": f = exp(a_f), eq. 12's other choice.
      forget_bias: b_f starts evenly spaced from it to 3 more, in each head.

    W and R start as in the authors' package, small and 0, b_f as its `small_init` (its default spreads
    b_f by the depth of the block). The convolution, group norm and projections of the block are left out.
    """

    heads: int = 1
    forget: str = "sigmoid"
    forget_bias: float = 3.0

    length_options = ("forget_bias",)
    knobs = ({"forget_bias": 1.0}, {"forget_bias": 5.0})
    style = ("#117733", parts.MIXED, "d")

    def __post_init__(self):
        super().__post_init__()
        base.check_heads(self)
        base.check_choice(self, "forget", "sigmoid", "exp")
        base.check_finite(self, "forget_bias")

    def _length(self, steps):
        return parts.middle_bias(steps)

    def init(self, key, input_size, dtype=jnp.float32):
        H, d = self.hidden_size, self.hidden_size // self.heads
        params = parts.dense_weights(key, "ifzo", "W", (input_size, H), parts.small_init(), dtype)
        params |= {f"R_{name}": jnp.zeros((self.heads, d, d), dtype) for name in "ifzo"}
        params |= {f"b_{name}": jnp.zeros(H, dtype) for name in "izo"}
        return params | {"b_f": jnp.tile(parts.spread_bias(self.forget_bias, d, dtype), self.heads)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return SLSTMCarry(*(super().initial_carry(batch_size, dtype),) * 4)

    def _preactivations(self, params, h, x, names):
        return (x @ params[f"W_{g}"] + h @ _blocks(params[f"R_{g}"]) + params[f"b_{g}"] for g in names)

    def gates(self, params, carry, x):
        f, o = map(sigmoid, self._preactivations(params, carry.h, x, "fo"))
        return {"forget": f, "output": o} if self.forget == "sigmoid" else {"output": o}

    def step(self, params, carry, x):
        new = self._update(carry, *self._preactivations(params, carry.h, x, "ifzo"))
        return new, new.h

    def _update(self, carry, a_i, a_f, a_z, a_o):
        new = carry.n == 0  # no past, so no part in m: else i and n may both round to 0
        kept = (log_sigmoid(a_f) if self.forget == "sigmoid" else a_f) + carry.m
        m = jnp.where(new, a_i, jnp.maximum(kept, a_i))
        i, f = jnp.exp(a_i - m), jnp.exp(jnp.where(new, 0, kept - m))
        c, n = f * carry.c + i * jnp.tanh(a_z), f * carry.n + i
        return SLSTMCarry(c, n, m, sigmoid(a_o) * c / n)

    def project(self, params, xs):
        W, b = (parts.stack(params, *(f"{kind}_{name}" for name in "ifzo")) for kind in "Wb")
        return xs @ W + b, None

    def recurrent_weights(self, params):
        return {"R": jnp.concatenate([_blocks(params[f"R_{name}"]) for name in "ifzo"], axis=-1)}

    def recur(self, w, carry, u):
        return self._update(carry, *parts.split(u + w["R"](carry.h), 4)), ()

    def readout(self, params, rest, previous, states):
        return states.h


def _blocks(R):
    """(heads, d, d) as one block-diagonal matrix."""
    return jax.scipy.linalg.block_diag(*R)
