"""What options make of the LSTM's equation: coupled gates, peepholes, layer normalisation."""

import dataclasses

import jax.numpy as jnp
from jax.nn import sigmoid

from cells import parts
from cells.lstm import LSTM, LSTMCarry


def of(cell: LSTM) -> type[LSTM]:
    """The class of an LSTM with these options; a class derived elsewhere stays as it is."""
    if LSTM not in (type(cell), type(cell).plain):
        return type(cell)
    if cell.layer_norm:
        return NormalisedLSTM
    return VariantLSTM if cell.peepholes or cell.coupled else LSTM


@dataclasses.dataclass(frozen=True)
class VariantLSTM(LSTM):
    """With peepholes, a_i + p_i * c', a_f + p_f * c' and a_o + p_o * c; coupled, i = 1 - f; or both."""

    plain = LSTM

    @property
    def names(self):
        """What has a W, U and b, in the order of the fast path."""
        return "fog" if self.coupled else "ifog"

    @property
    def peephole_names(self):
        return [f"p_{gate}" for gate in "ifo" if self.peepholes and gate in self.names]

    def init(self, key, input_size, dtype=jnp.float32):
        params = self._init(key, input_size, dtype, "fgo" if self.coupled else "ifgo")
        return params | {name: jnp.zeros(self.hidden_size, dtype) for name in self.peephole_names}

    def _preactivations(self, params, x, h):
        p = params
        return {k: x @ p[f"W_{k}"] + parts.product(h, p[f"U_{k}"]) + p[f"b_{k}"] for k in self.names}

    def _gates(self, params, carry, x):  # what `step` and `gates` share
        p, (c_, h_) = params, carry
        a = self._preactivations(p, x, h_)
        peep = {gate: p.get(f"p_{gate}", 0.0) for gate in "ifo"}
        f = sigmoid(a["f"] + peep["f"] * c_)
        i = 1 - f if self.coupled else sigmoid(a["i"] + peep["i"] * c_)
        c = f * c_ + i * jnp.tanh(a["g"])
        o = sigmoid(a["o"] + peep["o"] * c)
        return i, f, o, c

    def step(self, params, carry, x):
        _, _, o, c = self._gates(params, carry, x)
        h = o * jnp.tanh(c)
        return LSTMCarry(c, h), h

    def gates(self, params, carry, x):
        i, f, o, _ = self._gates(params, carry, x)
        return {"input": i, "forget": f, "output": o}

    def project(self, params, xs):
        return xs @ self._stack(params, "W", self.names), None

    def recurrent_weights(self, params):
        peepholes = {name: params[name] for name in self.peephole_names}
        return {"U": tuple(self._stack(params, kind, self.names) for kind in "Ub"), **peepholes}

    def _products(self, w, h):
        return w["U"](h)

    def recur(self, w, carry, u):
        c_, h_ = carry
        *a_i, a_f, a_o, a_g = parts.split(u + self._products(w, h_), len(self.names))
        if self.peepholes:
            a_i, a_f = [a + w["p_i"](c_) for a in a_i], a_f + w["p_f"](c_)
        f, g = sigmoid(a_f), jnp.tanh(a_g)
        i = 1 - f if self.coupled else sigmoid(a_i[0])
        c = f * c_ + i * g
        o = sigmoid(a_o + w["p_o"](c) if self.peepholes else a_o)
        return LSTMCarry(c, o * jnp.tanh(c)), (i, f, o, g)

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
        return LSTMCarry(d_before, w["U"](d_u)), d_u

    def products(self, before, after, saved, d_us):
        ds = dict(zip(self.names, parts.split(d_us, len(self.names)), strict=True))
        seen = {"p_i": before.c, "p_f": before.c, "p_o": after.c}
        peepholes = {name: (seen[name], ds[name[-1]]) for name in self.peephole_names}
        return {"U": (before.h, d_us), **peepholes}


@dataclasses.dataclass(frozen=True)
class NormalisedLSTM(VariantLSTM):
    """Any of these with LN(W x) + LN(U h') + b in place of W x + U h' + b, and h = o * tanh(LN(c))."""

    gradient_by_hand = False

    @property
    def block(self):
        return self.hidden_size  # all units have one mean

    def init(self, key, input_size, dtype=jnp.float32):
        H = self.hidden_size
        params = super().init(key, input_size, dtype) | parts.gains(self.names, H, dtype)
        return params | {"gain_c": jnp.ones(H, dtype), "bias_c": jnp.zeros(H, dtype)}

    def _preactivations(self, params, x, h):
        return parts.normalised_preactivations(params, self.names, x, h)

    def step(self, params, carry, x):
        _, _, o, c = self._gates(params, carry, x)
        h = o * jnp.tanh(params["gain_c"] * parts.normalise(c) + params["bias_c"])
        return LSTMCarry(c, h), h

    def project(self, params, xs):
        return parts.normalise(xs @ self._stack(params, "W", self.names)) * self._gains(params, "W"), None

    def _gains(self, params, kind):
        return self._stack(params, f"gain_{kind}", self.names)

    def recurrent_weights(self, params):
        weights = super().recurrent_weights(params)
        U, b = weights["U"]
        norms = {"gain_U": (self._gains(params, "U"), b), "gain_c": (params["gain_c"], params["bias_c"])}
        return weights | {"U": U} | norms

    def _products(self, w, h):
        return w["gain_U"](parts.normalise(w["U"](h)))

    def recur(self, w, carry, u):
        after, (_, _, o, _) = super().recur(w, carry, u)
        return LSTMCarry(after.c, o * jnp.tanh(w["gain_c"](parts.normalise(after.c)))), ()
