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

    def _parts(self, params, carry, x):  # what `step` and `gates` share
        p, (c_, h_) = params, carry
        peep = {gate: p.get(f"p_{gate}", 0.0) for gate in "ifo"}
        i = sigmoid(x @ p["W_i"] + h_ @ p["U_i"] + p["b_i"] + peep["i"] * c_)
        f = sigmoid(x @ p["W_f"] + h_ @ p["U_f"] + p["b_f"] + peep["f"] * c_)
        g = jnp.tanh(x @ p["W_g"] + h_ @ p["U_g"] + p["b_g"])
        c = f * c_ + i * g
        o = sigmoid(x @ p["W_o"] + h_ @ p["U_o"] + p["b_o"] + peep["o"] * c)
        return i, f, o, c

    def step(self, params, carry, x):
        _, _, o, c = self._parts(params, carry, x)
        h = o * jnp.tanh(c)
        return LSTMCarry(c, h), h

    def gates(self, params, carry, x):
        i, f, o, _ = self._parts(params, carry, x)
        return {"input": i, "forget": f, "output": o}

    def project(self, params, xs):
        return xs @ base.stack(params, "W_i", "W_f", "W_o", "W_g"), None

    def recurrent_weights(self, params):
        U, b = (base.stack(params, *(f"{name}_{gate}" for gate in "ifog")) for name in "Ub")
        peepholes = {name: params[name] for name in ("p_i", "p_f", "p_o") if self.peepholes}
        return {"U": (U, b), **peepholes}

    def recur(self, w, carry, u):
        c_, h_ = carry
        a_i, a_f, a_o, a_g = base.split(u + w["U"](h_), 4)
        if self.peepholes:
            a_i, a_f = a_i + w["p_i"](c_), a_f + w["p_f"](c_)
        i, f, g = sigmoid(a_i), sigmoid(a_f), jnp.tanh(a_g)
        c = f * c_ + i * g
        if self.peepholes:
            a_o = a_o + w["p_o"](c)
        o = sigmoid(a_o)
        return LSTMCarry(c, o * jnp.tanh(c)), (i, f, o, g)

    def readout(self, params, rest, previous, states):
        return states.h

    def backward(self, w, before, after, u, saved, d_after):
        i, f, o, g = saved
        tanh_c = jnp.tanh(after.c)
        d_o = d_after.h * tanh_c * o * (1 - o)
        d_c = d_after.c + d_after.h * o * (1 - tanh_c * tanh_c)
        if self.peepholes:
            d_c += w["p_o"](d_o)
        d_i, d_f, d_g = d_c * g * i * (1 - i), d_c * before.c * f * (1 - f), d_c * i * (1 - g * g)
        d_u = jnp.concatenate([d_i, d_f, d_o, d_g], axis=-1)
        d_before = d_c * f
        if self.peepholes:
            d_before += w["p_i"](d_i) + w["p_f"](d_f)
        return LSTMCarry(d_before, w["U"](d_u)), d_u

    def weight_gradients(self, before, after, saved, d_us):
        gradients = {"U": (base.outer(before.h, d_us), base.total(d_us))}
        if self.peepholes:
            d_i, d_f, d_o, _ = base.split(d_us, 4)
            seen = {"p_i": (before.c, d_i), "p_f": (before.c, d_f), "p_o": (after.c, d_o)}
            gradients |= {name: base.total(c * d) for name, (c, d) in seen.items()}
        return gradients
