"""The gated recurrent unit (Cho 2014, "Learning phrase representations using RNN encoder-decoder")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class GRU(parts.Normalised):
    """r, z = sigma(W x + U h' + b),  n = tanh(W x + U (r * h') + b),  h = z * h' + (1 - z) * n

    A large z keeps the past. With r = 1 and z = 0 it is the plain RNN.

    Options:
      reset_after: the cuDNN form, n = tanh(W x + b + r * (U h' + c_n)), where r acts after the product.
      update_bias: initial b_z; above 0 the unit starts by keeping the past.
      chrono: longest dependency expected, in steps: b_z = log U(1, chrono - 1)
        (Tallec & Ollivier 2018), in place of update_bias.
      reset_gate: off: r = 1, without weights of its own.
      layer_norm: LN(W x) and LN(U h') in place of W x and U h', normalised over r and z together and over n
        by itself, with a gain for each number. With reset_after this is Ba 2016 (supplementary material),
        whose biases are b, two of them in one for r and z, and c_n; without, n sees LN(U (r * h')).
      diagonal: each U is a vector, U h' = u * h': no unit sees another one. That is ParaGRU but for its
        heads (Danieli 2025).
    """

    reset_after: bool = False
    update_bias: float = 0.0
    chrono: int | None = None
    reset_gate: bool = True
    layer_norm: bool = False
    diagonal: bool = False

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "update_bias")
        base.check_chrono(self)

    @property
    def _gates(self):
        return "rz" if self.reset_gate else "z"

    @property
    def _fused(self):  # U_n multiplies h' itself, as the gates' U do: all are one product
        return (self.reset_after or not self.reset_gate) and not self.layer_norm

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_U, key_b = jax.random.split(key, 3)
        H, names = self.hidden_size, self._gates + "n"
        params = parts.dense_weights(key_W, names, "W", (input_size, H), parts.input_initializer(), dtype)
        initializer = parts.recurrent_initializer(self.diagonal)
        params |= parts.dense_weights(key_U, names, "U", (H, H), initializer, dtype)
        params |= {f"b_{name}": jnp.zeros(H, dtype) for name in names if name != "z"}
        params["b_z"] = jnp.full(H, self.update_bias, dtype)
        if self.chrono:
            params["b_z"] = parts.chrono_bias(key_b, H, self.chrono, dtype)
        if self.reset_after:
            params["c_n"] = jnp.zeros(H, dtype)
        return params | (parts.gains(names, H, dtype) if self.layer_norm else {})

    def gates(self, params, carry, x):
        a = parts.preactivations(params, self._gates, x, carry, self.layer_norm)
        return {{"r": "reset", "z": "update"}[gate]: sigmoid(a[gate]) for gate in self._gates}

    def step(self, params, carry, x):
        p, h_ = params, carry
        gates = self.gates(params, carry, x)
        r, z = gates.get("reset", 1.0), gates["update"]

        def norm(kind, product):
            return p[f"gain_{kind}_n"] * parts.normalise(product) if self.layer_norm else product

        if self.reset_after:
            inner = r * (norm("U", parts.product(h_, p["U_n"])) + p["c_n"])
        else:
            inner = norm("U", parts.product(r * h_, p["U_n"]))
        n = jnp.tanh(norm("W", x @ p["W_n"]) + p["b_n"] + inner)
        h = z * h_ + (1 - z) * n
        return h, h

    def _stack(self, params, kind, names):
        return parts.stack(params, *(f"{kind}_{name}" for name in names))

    def project(self, params, xs):
        names, H = self._gates + "n", self.hidden_size
        u = xs @ self._stack(params, "W", names)
        if self.layer_norm:
            u = jnp.concatenate([parts.normalise(u[..., :-H]), parts.normalise(u[..., -H:])], axis=-1)
            u = u * self._stack(params, "gain_W", names)
        return u + self._stack(params, "b", names), None

    def recurrent_weights(self, params):
        p, gates = params, self._gates
        if self._fused:
            U = self._stack(p, "U", gates + "n")
            if not self.reset_after:
                return {"U": U}
            bias = jnp.zeros_like(p["c_n"], shape=len(gates) * self.hidden_size)
            return {"U": (U, jnp.concatenate([bias, p["c_n"]]))}
        weights = {"U": self._stack(p, "U", gates), "U_n": p["U_n"]}
        if self.layer_norm:
            weights["gain"], gain_n = self._stack(p, "gain_U", gates), p["gain_U_n"]
            weights["gain_n"] = (gain_n, p["c_n"]) if self.reset_after else gain_n
        return weights

    def recur(self, w, carry, u):
        h_, (*a, a_n) = carry, parts.split(u, len(self._gates) + 1)
        products = len(self._gates) + self._fused
        q = w["U"](parts.spread(h_, products, self.diagonal))
        q = parts.split(w["gain"](parts.normalise(q)) if self.layer_norm else q, products)
        *r, z = (sigmoid(a_k + q_k) for a_k, q_k in zip(a, q, strict=False))
        r, q_n = r[0] if r else 1.0, q[-1]
        if not self._fused:
            q_n = w["U_n"](h_ if self.reset_after else r * h_)
            q_n = w["gain_n"](parts.normalise(q_n)) if self.layer_norm else q_n
        n = jnp.tanh(a_n + (r * q_n if self.reset_after else q_n))
        saved = (z, n, r, q_n)[: 2 + self.reset_gate + (self.reset_gate and self.reset_after)]
        return z * h_ + (1 - z) * n, saved

    def backward(self, w, before, after, u, saved, d_after):
        z, n, *rest = saved
        d_z = d_after * (before - n) * z * (1 - z)
        d_n = d_after * (1 - z) * (1 - n * n)
        if self._fused:
            r, q_n = rest or (1.0, 0.0)
            d_r = [d_n * q_n * r * (1 - r)] if self.reset_gate else []
            d_q = [*d_r, d_z, d_n * r]
        else:
            (r,), d_rh = rest, w["U_n"](d_n)
            d_r = [d_rh * before * r * (1 - r)]
            d_q = [*d_r, d_z]
        d_before = parts.gather(w["U"](jnp.concatenate(d_q, axis=-1)), len(d_q), self.diagonal)
        if not self._fused:
            d_before = d_rh * r + d_before
        return d_after * z + d_before, jnp.concatenate([*d_r, d_z, d_n], axis=-1)

    def weight_gradients(self, before, after, saved, d_us):
        H, gradient = self.hidden_size, parts.weight_gradient
        d_gates, d_n = d_us[..., :-H], d_us[..., -H:]
        r = saved[2] if self.reset_gate else 1.0
        if not self._fused:
            d_U = gradient(before, d_gates, self.diagonal)
            return {"U": d_U, "U_n": gradient(r * before, d_n, self.diagonal)}
        d_q = jnp.concatenate([d_gates, r * d_n], axis=-1)
        d_U = gradient(before, d_q, self.diagonal)
        return {"U": (d_U, parts.total(d_q)) if self.reset_after else d_U}
