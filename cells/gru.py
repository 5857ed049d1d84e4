"""The gated recurrent unit (Cho 2014, "Learning phrase representations using RNN encoder-decoder")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base


@dataclasses.dataclass(frozen=True)
class GRU(base.Cell):
    """r, z = sigma(W x + U h' + b),  n = tanh(W x + U (r * h') + b),  h = z * h' + (1 - z) * n

    A large z keeps the past. With r = 1 and z = 0 it is the plain RNN.

    Options:
      reset_after: the cuDNN form, n = tanh(W x + b + r * (U h' + c_n)), where r acts after the product.
      update_bias: initial b_z; above 0 the unit starts by keeping the past.
      chrono: longest dependency expected, in steps: b_z = log U(1, chrono - 1)
        (Tallec & Ollivier 2018), in place of update_bias.
    """

    reset_after: bool = False
    update_bias: float = 0.0
    chrono: int | None = None

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "update_bias")
        base.check_chrono(self)

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_U, key_b = jax.random.split(key, 3)
        H = self.hidden_size
        params = base.dense_weights(key_W, "rzn", "W", (input_size, H), base.input_initializer(), dtype)
        params |= base.dense_weights(key_U, "rzn", "U", (H, H), base.orthogonal, dtype)
        params |= {f"b_{gate}": jnp.zeros(H, dtype) for gate in "rn"}
        params["b_z"] = jnp.full(H, self.update_bias, dtype)
        if self.chrono:
            params["b_z"] = base.chrono_bias(key_b, H, self.chrono, dtype)
        if self.reset_after:
            params["c_n"] = jnp.zeros(H, dtype)
        return params

    def step(self, params, carry, x):
        p, h_ = params, carry
        r = sigmoid(x @ p["W_r"] + h_ @ p["U_r"] + p["b_r"])
        z = sigmoid(x @ p["W_z"] + h_ @ p["U_z"] + p["b_z"])
        if self.reset_after:
            n = jnp.tanh(x @ p["W_n"] + p["b_n"] + r * (h_ @ p["U_n"] + p["c_n"]))
        else:
            n = jnp.tanh(x @ p["W_n"] + p["b_n"] + (r * h_) @ p["U_n"])
        h = z * h_ + (1 - z) * n
        return h, h

    def project(self, params, xs):
        us = xs @ base.stack(params, "W_r", "W_z", "W_n") + base.stack(params, "b_r", "b_z", "b_n")
        return us[..., : -self.hidden_size], us[..., -self.hidden_size :]

    def recurrent_weights(self, params):
        U_rz, U_n = base.stack(params, "U_r", "U_z"), params["U_n"]
        return {"U_rz": U_rz, "U_n": (U_n, params["c_n"]) if self.reset_after else U_n}

    def recur(self, w, carry, u):
        h_, (u_rz, u_n) = carry, u
        r, z = base.split(sigmoid(u_rz + w["U_rz"](h_)), 2)
        n = jnp.tanh(u_n + (r * w["U_n"](h_) if self.reset_after else w["U_n"](r * h_)))
        h = z * h_ + (1 - z) * n
        return h, h
