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

    def gates(self, params, carry, x):
        p, h_ = params, carry
        r = sigmoid(x @ p["W_r"] + h_ @ p["U_r"] + p["b_r"])
        z = sigmoid(x @ p["W_z"] + h_ @ p["U_z"] + p["b_z"])
        return {"reset": r, "update": z}

    def step(self, params, carry, x):
        p, h_ = params, carry
        r, z = self.gates(params, carry, x).values()
        if self.reset_after:
            n = jnp.tanh(x @ p["W_n"] + p["b_n"] + r * (h_ @ p["U_n"] + p["c_n"]))
        else:
            n = jnp.tanh(x @ p["W_n"] + p["b_n"] + (r * h_) @ p["U_n"])
        h = z * h_ + (1 - z) * n
        return h, h

    def project(self, params, xs):
        return xs @ base.stack(params, "W_r", "W_z", "W_n") + base.stack(params, "b_r", "b_z", "b_n"), None

    def recurrent_weights(self, params):
        if self.reset_after:
            H = self.hidden_size
            bias = jnp.concatenate([jnp.zeros_like(params["c_n"], shape=2 * H), params["c_n"]])
            return {"U": (base.stack(params, "U_r", "U_z", "U_n"), bias)}
        return {"U_rz": base.stack(params, "U_r", "U_z"), "U_n": params["U_n"]}

    def recur(self, w, carry, u):
        h_, (a_r, a_z, a_n) = carry, base.split(u, 3)
        q_r, q_z, *q_n = base.split(w["U" if self.reset_after else "U_rz"](h_), 3 if self.reset_after else 2)
        r, z = sigmoid(a_r + q_r), sigmoid(a_z + q_z)
        n = jnp.tanh(a_n + (r * q_n[0] if self.reset_after else w["U_n"](r * h_)))
        return z * h_ + (1 - z) * n, (r, z, n, *q_n)

    def backward(self, w, before, after, u, saved, d_after):
        r, z, n, *q_n = saved
        d_z = d_after * (before - n) * z * (1 - z)
        d_n = d_after * (1 - z) * (1 - n * n)
        if self.reset_after:
            d_r = d_n * q_n[0] * r * (1 - r)
            d_before = w["U"](jnp.concatenate([d_r, d_z, d_n * r], axis=-1))
        else:
            d_rh = w["U_n"](d_n)
            d_r = d_rh * before * r * (1 - r)
            d_before = d_rh * r + w["U_rz"](jnp.concatenate([d_r, d_z], axis=-1))
        return d_after * z + d_before, jnp.concatenate([d_r, d_z, d_n], axis=-1)

    def weight_gradients(self, before, after, saved, d_us):
        r, H = saved[0], self.hidden_size
        d_rz, d_n = d_us[..., : 2 * H], d_us[..., 2 * H :]
        if self.reset_after:
            d_q = jnp.concatenate([d_rz, r * d_n], axis=-1)
            return {"U": (base.outer(before, d_q), base.total(d_q))}
        return {"U_rz": base.outer(before, d_rz), "U_n": base.outer(r * before, d_n)}
