"""Minimal gated cells, parallel over time (Feng 2024, "Were RNNs all we needed?")."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class _Minimal(base.Linear):
    """What both share: h = f * h' + i * h~,  h~ = W_h x + b_h, with gates of the input alone."""

    positive: bool = False
    chrono: int | None = None
    negative_eigenvalues: bool = False

    length_options: ClassVar[tuple[str, ...]] = ("chrono",)
    knobs: ClassVar[tuple[dict, ...]] = ({"chrono": 30}, {"chrono": 300})
    names = ""  # of the projections, the candidate "h" last

    def __post_init__(self):
        super().__post_init__()
        base.check_chrono(self)
        positive = self.positive and self.negative_eigenvalues
        base.require(
            self, "positive", not positive, "False with negative_eigenvalues: the state changes sign"
        )

    def _length(self, steps):
        return {"chrono": steps}

    def _factor(self, f):
        """What the state is multiplied by, of the gate that keeps it."""
        return parts.negative(f) if self.negative_eigenvalues else f

    def init(self, key, input_size, dtype=jnp.float32):
        shape, init = (input_size, self.hidden_size), parts.input_initializer()
        params = parts.dense_weights(key, self.names, "W", shape, init, dtype)
        params |= {f"b_{name}": jnp.zeros(self.hidden_size, dtype) for name in self.names}
        return params | self._biases(jax.random.fold_in(key, 1), dtype)

    def _keep(self, key, dtype):
        """The bias of what keeps the past, by `chrono`."""
        return parts.chrono_bias(key, self.hidden_size, self.chrono, dtype)

    def project(self, params, xs):
        W, b = (parts.stack(params, *(f"{kind}_{name}" for name in self.names)) for kind in "Wb")
        return xs @ W + b, None

    def _candidate(self, u):
        return jnp.where(u >= 0, u + 0.5, sigmoid(u)) if self.positive else u


@dataclasses.dataclass(frozen=True)
class MinGRU(_Minimal):
    """z = sigma(W_z x + b_z),   h = (1 - z) * h' + z * (W_h x + b_h)

    A large z forgets, as in the paper (section 3.1), other than in `GRU`.

    Options:
      positive: the candidate becomes g(W_h x + b_h), g(u) = u + 1/2 for u >= 0, sigma(u) below, which keeps
        the state positive: the paper's log-space form (appendix B).
      chrono: longest dependency expected, in steps: b_z = -log U(1, chrono - 1) (Tallec & Ollivier 2018).
      negative_eigenvalues: 2 (1 - z) - 1 stands for 1 - z, in (-1, 1) (`parts.negative`).

    The first state is 0, not the paper's g(0) = 1/2. The state is computed as it is, not as its logarithm.
    """

    names = "zh"
    style = ("#44AA99", parts.DASHED, "<")

    def _biases(self, key, dtype):
        return {"b_z": -self._keep(key, dtype)} if self.chrono else {}

    def gates(self, params, carry, x):
        a = x @ params["W_z"] + params["b_z"]
        return {"forget": sigmoid(-a), "input": sigmoid(a)}

    def step(self, params, carry, x):
        z = sigmoid(x @ params["W_z"] + params["b_z"])
        h = self._factor(1 - z) * carry + z * self._candidate(x @ params["W_h"] + params["b_h"])
        return h, h

    def coefficients(self, params, us):
        z, h = parts.split(us, 2)
        return self._factor(sigmoid(-z)), sigmoid(z) * self._candidate(h)


@dataclasses.dataclass(frozen=True)
class MinLSTM(_Minimal):
    """f, i = sigma(W x + b),   h = f / (f + i) * h' + i / (f + i) * (W_h x + b_h)

    The paper's section 3.2, where the two shares add up to 1.

    Options:
      positive, negative_eigenvalues: as in `MinGRU`, here 2 f / (f + i) - 1.
      forget_bias: initial b_f; above 0 the unit starts by keeping the past, which the paper found to train
        faster.
      chrono: as in `LSTM`, b_f = log U(1, chrono - 1), b_i = -b_f, in place of forget_bias.

    What differs from the paper: see `MinGRU`.
    """

    forget_bias: float = 1.0

    names = "fih"
    length_options = ("chrono", "forget_bias")
    style = ("#56B4E9", parts.DASHED, ">")

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "forget_bias")
        base.check_chrono(self, "forget_bias")

    def _biases(self, key, dtype):
        b_f = self._keep(key, dtype) if self.chrono else jnp.full(self.hidden_size, self.forget_bias, dtype)
        return {"b_f": b_f, "b_i": -b_f} if self.chrono else {"b_f": b_f}

    def gates(self, params, carry, x):
        f, i, _ = parts.split(self.project(params, x)[0], 3)
        # f / (f + i) without a quotient of two numbers that may both vanish.
        odds = log_sigmoid(f) - log_sigmoid(i)
        return {"forget": sigmoid(odds), "input": sigmoid(-odds)}

    def step(self, params, carry, x):
        f, i = self.gates(params, carry, x).values()
        h = self._factor(f) * carry + i * self._candidate(x @ params["W_h"] + params["b_h"])
        return h, h

    def coefficients(self, params, us):
        f, i, h = parts.split(us, 3)
        odds = log_sigmoid(f) - log_sigmoid(i)
        return self._factor(sigmoid(odds)), sigmoid(-odds) * self._candidate(h)
