"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers 2000)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base


class LSTMCarry(NamedTuple):
    """Memory `c` and output `h`, each (batch, hidden_size)."""

    c: base.Array
    h: base.Array


@dataclasses.dataclass(frozen=True)
class LSTM(base.Cell):
    """i, f, o = sigma(W x + U h' + b),  g = tanh(W x + U h' + b),  c = f * c' + i * g,  h = o * tanh(c)

    Options:
      forget_bias: initial b_f (Gers 2000; 1 after Jozefowicz 2015).
      chrono: longest dependency expected, in steps: b_f = log U(1, chrono - 1), b_i = -b_f
        (Tallec & Ollivier 2018), in place of forget_bias.
      peepholes: i and f also see p * c', o also sees p * c (Gers 2002).
    """

    forget_bias: float = 1.0
    chrono: int | None = None
    peepholes: bool = False

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "forget_bias")
        base.check_chrono(self)

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_U, key_b = jax.random.split(key, 3)
        H = self.hidden_size
        params = base.dense_weights(key_W, "ifgo", "W", (input_size, H), base.input_initializer(), dtype)
        params |= base.dense_weights(key_U, "ifgo", "U", (H, H), base.orthogonal, dtype)
        params |= {f"b_{gate}": jnp.zeros(H, dtype) for gate in "igo"}
        params["b_f"] = jnp.full(H, self.forget_bias, dtype)
        if self.chrono:
            params["b_f"] = base.chrono_bias(key_b, H, self.chrono, dtype)
            params["b_i"] = -params["b_f"]
        if self.peepholes:
            params |= {f"p_{gate}": jnp.zeros(H, dtype) for gate in "ifo"}
        return params

    def initial_carry(self, batch_size, dtype=jnp.float32):
        zeros = super().initial_carry(batch_size, dtype)
        return LSTMCarry(c=zeros, h=zeros)

    def step(self, params, carry, x):
        p, (c_, h_) = params, carry
        peep = {gate: p.get(f"p_{gate}", 0.0) for gate in "ifo"}
        i = sigmoid(x @ p["W_i"] + h_ @ p["U_i"] + p["b_i"] + peep["i"] * c_)
        f = sigmoid(x @ p["W_f"] + h_ @ p["U_f"] + p["b_f"] + peep["f"] * c_)
        g = jnp.tanh(x @ p["W_g"] + h_ @ p["U_g"] + p["b_g"])
        c = f * c_ + i * g
        o = sigmoid(x @ p["W_o"] + h_ @ p["U_o"] + p["b_o"] + peep["o"] * c)
        h = o * jnp.tanh(c)
        return LSTMCarry(c, h), h

    def project(self, params, xs):
        W = base.stack(params, "W_i", "W_f", "W_o", "W_g")
        return xs @ W + base.stack(params, "b_i", "b_f", "b_o", "b_g")

    def recurrent_weights(self, params):
        peepholes = {name: params[name] for name in ("p_i", "p_f", "p_o") if self.peepholes}
        return {"U": base.stack(params, "U_i", "U_f", "U_o", "U_g"), **peepholes}

    def recur(self, w, carry, u):
        c_, h_ = carry
        a_i, a_f, a_o, a_g = base.split(u + w["U"](h_), 4)
        if self.peepholes:
            a_i, a_f = a_i + w["p_i"](c_), a_f + w["p_f"](c_)
        c = sigmoid(a_f) * c_ + sigmoid(a_i) * jnp.tanh(a_g)
        if self.peepholes:
            a_o = a_o + w["p_o"](c)
        h = sigmoid(a_o) * jnp.tanh(c)
        return LSTMCarry(c, h), h
