"""The plain recurrent network (Elman 1990, "Finding structure in time")."""

import dataclasses

import jax
import jax.numpy as jnp

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class RNN(base.HandDifferentiated):
    """h = tanh(W x + U h' + b)

    Options:
      activation: "tanh" or "relu".
      recurrent_init: "orthogonal", or "identity" (Le 2015, meant for relu).
      recurrent_scale: factor on the initial U: below 1 it forgets, above 1 it explodes.
      diagonal: U is a vector, U h' = u * h': no unit sees another one (IndRNN, Li 2018). It starts uniform in
        [0, 1], the paper's range [0, 2^(1/T)] for a large T, or at 1 for "identity".
    """

    activation: str = "tanh"
    recurrent_init: str = "orthogonal"
    recurrent_scale: float = 1.0
    diagonal: bool = False

    knobs = ({"activation": "relu", "recurrent_init": "identity"}, {"recurrent_scale": 1.2})
    style = ("#D55E00", "-", "o")

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "activation", self.activation in ("tanh", "relu"), "'tanh' or 'relu'")
        known = self.recurrent_init in ("orthogonal", "identity")
        base.require(self, "recurrent_init", known, "'orthogonal' or 'identity'")
        base.check_finite(self, "recurrent_scale")

    @property
    def is_elementwise(self):
        return self.diagonal

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_U = jax.random.split(key)
        H = self.hidden_size
        if self.recurrent_init == "identity":
            U = jnp.ones(H, dtype) if self.diagonal else jnp.eye(H, dtype=dtype)
        else:
            U = (
                jax.random.uniform(key_U, (H,), dtype)
                if self.diagonal
                else parts.orthogonal(key_U, (H, H), dtype)
            )
        return {
            "W": parts.input_initializer()(key_W, (input_size, H), dtype),
            "U": self.recurrent_scale * U,
            "b": jnp.zeros(H, dtype),
        }

    def step(self, params, carry, x):
        p, h_ = params, carry
        h = self.phi(x @ p["W"] + parts.product(h_, p["U"]) + p["b"])
        return h, h

    def phi(self, a):
        """The activation function."""
        return jnp.tanh(a) if self.activation == "tanh" else jax.nn.relu(a)

    def project(self, params, xs):
        return xs @ params["W"], None

    def recurrent_weights(self, params):
        return {"U": (params["U"], params["b"])}

    def recur(self, w, carry, u):
        return self.phi(u + w["U"](carry)), ()

    def backward(self, w, before, after, u, saved, d_after):
        d_u = d_after * (1 - after * after) if self.activation == "tanh" else jnp.where(after > 0, d_after, 0)
        return w["U"](d_u), d_u

    def products(self, before, after, saved, d_us):
        return {"U": (before, d_us)}
