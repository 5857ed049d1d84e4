"""The quasi-recurrent network (Bradbury 2017, "Quasi-recurrent neural networks")."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base, parts


class QRNNCarry(NamedTuple):
    """Memory `c` (batch, hidden_size); `pending` (batch, window - 1, gates * hidden_size), what the inputs
    so far add to the convolution at the next steps."""

    c: base.Array
    pending: base.Array


@dataclasses.dataclass(frozen=True)
class QRNN(base.Sequence):
    """z = tanh(W_z * X + b_z),  f, o = sigma(W * X + b),  c = f * c' + (1 - f) * z,  h = o * c

    W * X is a causal convolution, W[0] x_t + W[1] x_{t-1} + ... (eq. 1); the rest is fo-pooling (eq. 4).

    Options:
      window: inputs that the convolution sees, this one included: k (section 2).
      pooling: "fo"; "f": h = c (eq. 3); "ifo": c = f * c' + i * z, with an input gate i (eq. 5).
      forget_bias: initial b_f; above 0 the unit starts by keeping the past.

    The paper has no biases, its authors' package has; there f has the opposite sign (a large f takes the new
    value: c = f * z + (1 - f) * c'), and weights start with variance 1 / (3 k d), here 1 / (k d). Zoneout and
    dense connections are left out.
    """

    window: int = 2
    pooling: str = "fo"
    forget_bias: float = 0.0

    forms = parts.LINEAR_FORMS
    length_options = ("forget_bias",)
    dynamics = "linear"
    knobs = ({"forget_bias": 2.0}, {"forget_bias": 4.0})
    style = ("#882255", parts.DASHED, "P")

    def __post_init__(self):
        super().__post_init__()
        base.check_positive(self, "window")
        base.check_choice(self, "pooling", "f", "fo", "ifo")
        base.check_finite(self, "forget_bias")

    def _length(self, steps):
        return parts.middle_bias(steps)

    @property
    def _names(self):
        return "z" + "".join(sorted(self.pooling))

    def init(self, key, input_size, dtype=jnp.float32):
        H, k = self.hidden_size, self.window
        init = parts.input_initializer()
        params = parts.dense_weights(key, self._names, "W", (k * input_size, H), init, dtype)
        params = {name: W.reshape(k, input_size, H) for name, W in params.items()}
        params |= {f"b_{gate}": jnp.zeros(H, dtype) for gate in self._names}
        return params | {"b_f": jnp.full(H, self.forget_bias, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        shape = (batch_size, self.window - 1, len(self._names) * self.hidden_size)
        return QRNNCarry(super().initial_carry(batch_size, dtype), jnp.zeros(shape, dtype))

    def _activated(self, a):
        values = dict(zip(self._names, parts.split(a, len(self._names)), strict=True))
        return {name: (jnp.tanh if name == "z" else sigmoid)(part) for name, part in values.items()}

    def _written(self, g):
        return (g["i"] if "i" in g else 1 - g["f"]) * g["z"]

    def _convolved(self, params, carry, x):
        return parts.push(carry.pending, *self.project(params, x)[0])

    def gates(self, params, carry, x):
        g = self._activated(self._convolved(params, carry, x)[0])
        names = {"f": "forget", "i": "input", "o": "output"}
        return {name: g[letter] for letter, name in names.items() if letter in g}

    def step(self, params, carry, x):
        a, pending = self._convolved(params, carry, x)
        g = self._activated(a)
        c = g["f"] * carry.c + self._written(g)
        return QRNNCarry(c, pending), g["o"] * c if "o" in g else c

    def project(self, params, xs):
        W, b = (parts.stack(params, *(f"{kind}_{name}" for name in self._names)) for kind in "Wb")
        return parts.taps(xs, W, b), None

    def over_time(self, params, carry, us, rest, steps):
        a, pending = steps.causal(*us, carry.pending)
        g = self._activated(a)
        c = steps.solve(g["f"], self._written(g), carry.c)
        return QRNNCarry(c[-1], pending), g["o"] * c if "o" in g else c
