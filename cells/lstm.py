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
class LSTM(parts.Normalised):
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
        is ParaLSTM but for its heads (Danieli 2025).
    """

    forget_bias: float = 1.0
    chrono: int | None = None
    peepholes: bool = False
    coupled: bool = False
    layer_norm: bool = False
    diagonal: bool = False

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "forget_bias")
        base.check_chrono(self)

    @property
    def _names(self):  # what has a W, U and b, in the order of the fast path
        return "fog" if self.coupled else "ifog"

    @property
    def _peepholes(self):
        return [f"p_{gate}" for gate in "ifo" if self.peepholes and gate in self._names]

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_U, key_b = jax.random.split(key, 3)
        H, names = self.hidden_size, "fgo" if self.coupled else "ifgo"
        params = parts.dense_weights(key_W, names, "W", (input_size, H), parts.input_initializer(), dtype)
        initializer = parts.recurrent_initializer(self.diagonal)
        params |= parts.dense_weights(key_U, names, "U", (H, H), initializer, dtype)
        params |= {f"b_{name}": jnp.zeros(H, dtype) for name in names}
        params["b_f"] = jnp.full(H, self.forget_bias, dtype)
        if self.chrono:
            params["b_f"] = parts.chrono_bias(key_b, H, self.chrono, dtype)
            params |= {"b_i": -params["b_f"]} if "i" in names else {}
        params |= {name: jnp.zeros(H, dtype) for name in self._peepholes}
        if self.layer_norm:
            params |= parts.gains(names, H, dtype)
            params |= {"gain_c": jnp.ones(H, dtype), "bias_c": jnp.zeros(H, dtype)}
        return params

    def initial_carry(self, batch_size, dtype=jnp.float32):
        zeros = super().initial_carry(batch_size, dtype)
        return LSTMCarry(c=zeros, h=zeros)

    def _parts(self, params, carry, x):  # what `step` and `gates` share
        p, (c_, h_) = params, carry
        a = parts.preactivations(p, self._names, x, h_, self.layer_norm)
        peep = {gate: p.get(f"p_{gate}", 0.0) for gate in "ifo"}
        f = sigmoid(a["f"] + peep["f"] * c_)
        i = 1 - f if self.coupled else sigmoid(a["i"] + peep["i"] * c_)
        c = f * c_ + i * jnp.tanh(a["g"])
        o = sigmoid(a["o"] + peep["o"] * c)
        return i, f, o, c

    def step(self, params, carry, x):
        _, _, o, c = self._parts(params, carry, x)
        seen = params["gain_c"] * parts.normalise(c) + params["bias_c"] if self.layer_norm else c
        h = o * jnp.tanh(seen)
        return LSTMCarry(c, h), h

    def gates(self, params, carry, x):
        i, f, o, _ = self._parts(params, carry, x)
        return {"input": i, "forget": f, "output": o}

    def _stack(self, params, kind):
        return parts.stack(params, *(f"{kind}_{name}" for name in self._names))

    def project(self, params, xs):
        u = xs @ self._stack(params, "W")
        return parts.normalise(u) * self._stack(params, "gain_W") if self.layer_norm else u, None

    def recurrent_weights(self, params):
        U, b = (self._stack(params, kind) for kind in "Ub")
        peepholes = {name: params[name] for name in self._peepholes}
        if not self.layer_norm:
            return {"U": (U, b), **peepholes}
        norms = {"gain_U": (self._stack(params, "gain_U"), b), "gain_c": (params["gain_c"], params["bias_c"])}
        return {"U": U, **norms, **peepholes}

    def recur(self, w, carry, u):
        c_, h_ = carry
        n = len(self._names)
        q = w["U"](parts.spread(h_, n, self.diagonal))
        if self.layer_norm:
            q = w["gain_U"](parts.normalise(q))
        *a_i, a_f, a_o, a_g = parts.split(u + q, n)
        if self.peepholes:
            a_i, a_f = [a + w["p_i"](c_) for a in a_i], a_f + w["p_f"](c_)
        f, g = sigmoid(a_f), jnp.tanh(a_g)
        i = 1 - f if self.coupled else sigmoid(a_i[0])
        c = f * c_ + i * g
        if self.peepholes:
            a_o = a_o + w["p_o"](c)
        o = sigmoid(a_o)
        seen = w["gain_c"](parts.normalise(c)) if self.layer_norm else c
        return LSTMCarry(c, o * jnp.tanh(seen)), (i, f, o, g)

    def readout(self, params, rest, previous, states):
        return states.h

    def backward(self, w, before, after, u, saved, d_after):
        i, f, o, g = saved
        tanh_c = jnp.tanh(after.c)
        d_o = d_after.h * tanh_c * o * (1 - o)
        d_c = d_after.c + d_after.h * o * (1 - tanh_c * tanh_c)
        if self.peepholes:
            d_c += w["p_o"](d_o)
        d_f, d_g = d_c * (before.c - g if self.coupled else before.c) * f * (1 - f), d_c * i * (1 - g * g)
        d_i = [] if self.coupled else [d_c * g * i * (1 - i)]
        d_u = jnp.concatenate([*d_i, d_f, d_o, d_g], axis=-1)
        d_before = d_c * f
        if self.peepholes:
            d_before += sum([w["p_i"](d) for d in d_i], w["p_f"](d_f))
        return LSTMCarry(d_before, parts.gather(w["U"](d_u), len(self._names), self.diagonal)), d_u

    def weight_gradients(self, before, after, saved, d_us):
        gradients = {"U": (parts.weight_gradient(before.h, d_us, self.diagonal), parts.total(d_us))}
        ds = dict(zip(self._names, parts.split(d_us, len(self._names)), strict=True))
        for name in self._peepholes:
            seen = after.c if name == "p_o" else before.c
            gradients[name] = parts.total(seen * ds[name[-1]])
        return gradients
