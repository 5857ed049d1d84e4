"""The quasi-recurrent network (Bradbury 2017, "Quasi-recurrent neural networks")."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base


class QRNNCarry(NamedTuple):
    """Memory `c` (batch, hidden_size); `pending` (batch, window - 1, gates * hidden_size), what the inputs
    so far will add to the convolution at the next steps."""

    c: base.Array
    pending: base.Array


@dataclasses.dataclass(frozen=True)
class QRNN(base.Cell):
    """z = tanh(W_z * x), f = sigma(W_f * x), o = sigma(W_o * x), * a causal convolution over `window` inputs
    c = f * c' + (1 - f) * z,   h = o * c

    Options:
      window: inputs that the convolution sees, this one included (section 2).
      pooling: "fo" as above; "f": h = c; "ifo": c = f * c' + i * z with an input gate (section 2.1).
      forget_bias: initial b_f.
    """

    window: int = 2
    pooling: str = "fo"
    forget_bias: float = 0.0

    is_linear = True

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "window", type(self.window) is int and self.window > 0, "a positive int")
        base.require(self, "pooling", self.pooling in ("f", "fo", "ifo"), "'f', 'fo' or 'ifo'")
        base.check_finite(self, "forget_bias")

    @property
    def _names(self):
        return "z" + "".join(sorted(self.pooling))

    def init(self, key, input_size, dtype=jnp.float32):
        H, k = self.hidden_size, self.window
        init = base.input_initializer()
        params = base.dense_weights(key, self._names, "W", (k * input_size, H), init, dtype)
        params = {name: W.reshape(k, input_size, H) for name, W in params.items()}  # W[0] sees this input
        params |= {f"b_{gate}": jnp.zeros(H, dtype) for gate in self._names}
        return params | {"b_f": jnp.full(H, self.forget_bias, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        width = len(self._names) * self.hidden_size
        return QRNNCarry(
            c=super().initial_carry(batch_size, dtype),
            pending=jnp.zeros((batch_size, self.window - 1, width), dtype),
        )

    def _gates(self, a):
        parts = dict(zip(self._names, base.split(a, len(self._names)), strict=True))
        return {name: (jnp.tanh if name == "z" else sigmoid)(part) for name, part in parts.items()}

    def _new(self, g):
        return (g["i"] if "i" in g else 1 - g["f"]) * g["z"]

    def _convolved(self, params, carry, x):
        now, past = self.project(params, x)[0]
        return base.push(carry.pending, now, past)

    def gates(self, params, carry, x):
        g = self._gates(self._convolved(params, carry, x)[0])
        names = {"f": "forget", "i": "input", "o": "output"}
        return {name: g[letter] for letter, name in names.items() if letter in g}

    def step(self, params, carry, x):
        a, pending = self._convolved(params, carry, x)
        g = self._gates(a)
        c = g["f"] * carry.c + self._new(g)
        return QRNNCarry(c, pending), g["o"] * c if "o" in g else c

    def project(self, params, xs):
        W = base.stack(params, *(f"W_{gate}" for gate in self._names))
        b = base.stack(params, *(f"b_{gate}" for gate in self._names))
        past = [xs @ W[lag] for lag in range(1, self.window)]
        return (xs @ W[0] + b, jnp.concatenate(past, -1) if past else xs[..., :0]), None

    def over_time(self, params, carry, us, rest, steps):
        a, pending = steps.causal(*us, carry.pending)
        g = self._gates(a)
        c = steps.solve(g["f"], self._new(g), carry.c)
        return QRNNCarry(c[-1], pending), g["o"] * c if "o" in g else c
