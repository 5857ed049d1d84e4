"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers 2000)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base, parts


class LSTMCarry(NamedTuple):
    """Memory `c` and output `h`, each (batch, hidden_size)."""

    c: base.Array
    h: base.Array


@dataclasses.dataclass(frozen=True)
class LSTM(base.HandDifferentiated):
    """i, f, o = sigma(W x + U h' + b),  g = tanh(W x + U h' + b),  c = f * c' + i * g,  h = o * tanh(c)

    Options:
      forget_bias: initial b_f (Gers 2000; 1 after Jozefowicz 2015).
      chrono: longest dependency expected, in steps: b_f = log U(1, chrono - 1), b_i = -b_f
        (Tallec & Ollivier 2018), in place of forget_bias.
      peepholes: i and f also see p * c', o also sees p * c (Gers 2002).
      coupled: i = 1 - f, without weights of its own (CIFG, Greff 2017).
      layer_norm: LN(W x) + LN(U h') + b in place of W x + U h' + b, each normalised over i, f, o, g together,
        and h = o * tanh(LN(c)); c itself and peepholes are not normalised. Each number has a gain, LN(c)
        a bias as well (Ba 2016, eq. 20-22; the biases of the other two are one with b).
      diagonal: each U is a vector, U h' = u * h': no unit sees another one. With coupled and peepholes that
        is ParaLSTM but for its heads, blocks of its W (Danieli 2025).
      heads: each U is block-diagonal, (heads, d, d) with d = hidden_size / heads: units see those of their
        head.

    The third, fourth and fifth make another equation: they are in cells/lstm_variants.py.
    """

    forget_bias: float = 1.0
    chrono: int | None = None
    peepholes: bool = False
    coupled: bool = False
    layer_norm: bool = False
    diagonal: bool = False
    heads: int = 1

    length_options = ("chrono", "forget_bias")
    knobs = ({"forget_bias": 3.0}, {"chrono": 300})
    style = ("#0072B2", "-", "s")

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "forget_bias")
        base.check_chrono(self, "forget_bias")
        base.check_heads(self)

    def variant(self):
        from cells import lstm_variants

        return lstm_variants.of(self)

    def _length(self, steps):
        return {"chrono": steps}

    @property
    def is_elementwise(self):
        return self.block == 1

    @property
    def block(self):
        return 1 if self.diagonal else self.hidden_size // self.heads

    def init(self, key, input_size, dtype=jnp.float32):
        return self._init(key, input_size, dtype, "ifgo")

    def _init(self, key, input_size, dtype, names):
        key_W, key_U, key_b = jax.random.split(key, 3)
        H = self.hidden_size
        params = parts.dense_weights(key_W, names, "W", (input_size, H), parts.input_initializer(), dtype)
        initializer = parts.recurrent_initializer(self.diagonal, self.heads)
        params |= parts.dense_weights(key_U, names, "U", (H, H), initializer, dtype)
        params |= {f"b_{name}": jnp.zeros(H, dtype) for name in names}
        params["b_f"] = jnp.full(H, self.forget_bias, dtype)
        if self.chrono:
            params["b_f"] = parts.chrono_bias(key_b, H, self.chrono, dtype)
            params |= {"b_i": -params["b_f"]} if "i" in names else {}
        return params

    def initial_carry(self, batch_size, dtype=jnp.float32):
        zeros = super().initial_carry(batch_size, dtype)
        return LSTMCarry(c=zeros, h=zeros)

    def step(self, params, carry, x):
        p, (c_, h_) = params, carry
        i = sigmoid(x @ p["W_i"] + parts.product(h_, p["U_i"]) + p["b_i"])
        f = sigmoid(x @ p["W_f"] + parts.product(h_, p["U_f"]) + p["b_f"])
        o = sigmoid(x @ p["W_o"] + parts.product(h_, p["U_o"]) + p["b_o"])
        g = jnp.tanh(x @ p["W_g"] + parts.product(h_, p["U_g"]) + p["b_g"])
        c = f * c_ + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(c, h), h

    def gates(self, params, carry, x):
        p, (_, h_) = params, carry
        names = {"input": "i", "forget": "f", "output": "o"}
        return {
            gate: sigmoid(x @ p[f"W_{k}"] + parts.product(h_, p[f"U_{k}"]) + p[f"b_{k}"])
            for gate, k in names.items()
        }

    # --- the fast path: W x of all steps at once; in the loop U h' + b of all gates in one product

    def project(self, params, xs):
        return xs @ self._stack(params, "W", "ifog"), None

    def recurrent_weights(self, params):
        return {"U": (self._stack(params, "U", "ifog"), self._stack(params, "b", "ifog"))}

    def recur(self, w, carry, u):
        c_, h_ = carry
        a_i, a_f, a_o, a_g = parts.split(u + w["U"](h_), 4)
        i, f, o, g = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), jnp.tanh(a_g)
        c = f * c_ + i * g
        return LSTMCarry(c, o * jnp.tanh(c)), (i, f, o, g)

    def readout(self, params, rest, previous, states):
        return states.h

    def backward(self, w, before, after, u, saved, d_after):
        i, f, o, g = saved
        tanh_c = jnp.tanh(after.c)
        d_o = d_after.h * tanh_c * o * (1 - o)
        d_c = d_after.c + d_after.h * o * (1 - tanh_c * tanh_c)
        d_i, d_f, d_g = d_c * g * i * (1 - i), d_c * before.c * f * (1 - f), d_c * i * (1 - g * g)
        d_u = jnp.concatenate([d_i, d_f, d_o, d_g], axis=-1)
        return LSTMCarry(d_c * f, w["U"](d_u)), d_u

    def products(self, before, after, saved, d_us):
        return {"U": (before.h, d_us)}

    def packed(self, params):
        """All weights in a row, as cuDNN's LSTM takes them: W and U of i, f, g, o, then its two biases."""
        W, U = (jnp.concatenate([params[f"{kind}_{k}"].T.ravel() for k in "ifgo"]) for kind in "WU")
        b = self._stack(params, "b", "ifgo")
        return jnp.concatenate([W, U, b, jnp.zeros_like(b)])

    def _stack(self, params, kind, names):
        axis = 0 if kind == "U" and self.heads > 1 else -1
        return parts.stack(params, *(f"{kind}_{name}" for name in names), axis=axis)
