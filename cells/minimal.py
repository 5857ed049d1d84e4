"""Minimal gated cells, parallel over time (Feng 2024, "Were RNNs all we needed?")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base


@dataclasses.dataclass(frozen=True)
class _Minimal(base.Cell):
    """What both share. Options:

    positive: the candidate goes through g(x) = x + 1/2 for x >= 0, sigma(x) below, which keeps the state
      positive (appendix B.2, the log-space form).
    """

    positive: bool = False

    is_linear = True
    names = ""  # of the projections, the candidate "h" last

    def init(self, key, input_size, dtype=jnp.float32):
        shape, init = (input_size, self.hidden_size), base.input_initializer()
        params = base.dense_weights(key, self.names, "W", shape, init, dtype)
        return params | {f"b_{name}": jnp.zeros(self.hidden_size, dtype) for name in self.names}

    def project(self, params, xs):
        W, b = (base.stack(params, *(f"{kind}_{name}" for name in self.names)) for kind in "Wb")
        return xs @ W + b, None

    def candidate(self, u):
        """What is written into the state."""
        return jnp.where(u >= 0, jax.nn.relu(u) + 0.5, sigmoid(u)) if self.positive else u


@dataclasses.dataclass(frozen=True)
class MinGRU(_Minimal):
    """z = sigma(W_z x + b_z),   h = (1 - z) * h' + z * (W_h x + b_h)

    A large z forgets, as in the paper. Options: see `_Minimal`.
    """

    names = "zh"

    def gates(self, params, carry, x):
        return {"update": sigmoid(x @ params["W_z"] + params["b_z"])}

    def step(self, params, carry, x):
        z = self.gates(params, carry, x)["update"]
        h = (1 - z) * carry + z * self.candidate(x @ params["W_h"] + params["b_h"])
        return h, h

    def linear(self, params, us):
        z, h = base.split(us, 2)
        return sigmoid(-z), sigmoid(z) * self.candidate(h)


@dataclasses.dataclass(frozen=True)
class MinLSTM(_Minimal):
    """f, i = sigma(W x + b),   h = f / (f + i) * h' + i / (f + i) * (W_h x + b_h)

    Options: see `_Minimal`, and
      forget_bias: initial b_f.
    """

    forget_bias: float = 1.0

    names = "fih"

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "forget_bias")

    def init(self, key, input_size, dtype=jnp.float32):
        params = super().init(key, input_size, dtype)
        return params | {"b_f": jnp.full(self.hidden_size, self.forget_bias, dtype)}

    def gates(self, params, carry, x):
        f, i = (sigmoid(x @ params[f"W_{name}"] + params[f"b_{name}"]) for name in "fi")
        return {"forget": f / (f + i), "input": i / (f + i)}

    def step(self, params, carry, x):
        f, i = self.gates(params, carry, x).values()
        h = f * carry + i * self.candidate(x @ params["W_h"] + params["b_h"])
        return h, h

    def linear(self, params, us):
        f, i, h = base.split(us, 3)
        # f / (f + i) without a quotient of two numbers that may both vanish.
        share = sigmoid(jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i))
        return share, (1 - share) * self.candidate(h)
