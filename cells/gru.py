"""The gated recurrent unit (Cho 2014, "Learning phrase representations using RNN encoder-decoder")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class GRU(base.HandDifferentiated):
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
        heads, blocks of its W (Danieli 2025).
      heads: each U is block-diagonal, (heads, d, d) with d = hidden_size / heads: units see those of their
        head.

    The first, fourth and fifth make another equation: they are in cells/gru_variants.py.
    """

    reset_after: bool = False
    update_bias: float = 0.0
    chrono: int | None = None
    reset_gate: bool = True
    layer_norm: bool = False
    diagonal: bool = False
    heads: int = 1

    length_options = ("chrono", "update_bias")
    style = ("#009E73", "-", "^")
    gate_names = "rz"

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "update_bias")
        base.check_chrono(self, "update_bias")
        base.check_heads(self)

    def variant(self):
        from cells import gru_variants

        return gru_variants.of(self)

    def _length(self, steps):
        return {"chrono": steps}

    @property
    def is_elementwise(self):
        return self.block == 1

    @property
    def block(self):
        return 1 if self.diagonal else self.hidden_size // self.heads

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_U, key_b = jax.random.split(key, 3)
        H, names = self.hidden_size, self.gate_names + "n"
        params = parts.dense_weights(key_W, names, "W", (input_size, H), parts.input_initializer(), dtype)
        initializer = parts.recurrent_initializer(self.diagonal, self.heads)
        params |= parts.dense_weights(key_U, names, "U", (H, H), initializer, dtype)
        params |= {f"b_{name}": jnp.zeros(H, dtype) for name in names if name != "z"}
        params["b_z"] = jnp.full(H, self.update_bias, dtype)
        if self.chrono:
            params["b_z"] = parts.chrono_bias(key_b, H, self.chrono, dtype)
        return params

    def gates(self, params, carry, x):
        p, h_ = params, carry
        r = sigmoid(x @ p["W_r"] + parts.product(h_, p["U_r"]) + p["b_r"])
        z = sigmoid(x @ p["W_z"] + parts.product(h_, p["U_z"]) + p["b_z"])
        return {"reset": r, "update": z}

    def step(self, params, carry, x):
        p, h_ = params, carry
        r, z = self.gates(p, h_, x).values()
        n = jnp.tanh(x @ p["W_n"] + p["b_n"] + parts.product(r * h_, p["U_n"]))
        h = z * h_ + (1 - z) * n
        return h, h

    # --- the fast path: W x + b of all steps at once; in the loop U h' of both gates, then U (r * h')

    def project(self, params, xs):
        W, b = (self._stack(params, kind, self.gate_names + "n") for kind in "Wb")
        return xs @ W + b, None

    def recurrent_weights(self, params):
        return {"U": self._stack(params, "U", "rz"), "U_n": params["U_n"]}

    def recur(self, w, carry, u):
        h_, (a_r, a_z, a_n) = carry, parts.split(u, 3)
        q_r, q_z = parts.split(w["U"](h_), 2)
        r, z = sigmoid(a_r + q_r), sigmoid(a_z + q_z)
        n = jnp.tanh(a_n + w["U_n"](r * h_))
        return z * h_ + (1 - z) * n, (z, n, r)

    def backward(self, w, before, after, u, saved, d_after):
        z, n, r = saved
        d_z = d_after * (before - n) * z * (1 - z)
        d_n = d_after * (1 - z) * (1 - n * n)
        d_rh = w["U_n"](d_n)
        d_r = d_rh * before * r * (1 - r)
        d_before = d_rh * r + w["U"](jnp.concatenate([d_r, d_z], axis=-1))
        return d_after * z + d_before, jnp.concatenate([d_r, d_z, d_n], axis=-1)

    def products(self, before, after, saved, d_us):
        _, _, r = saved
        H = self.hidden_size
        return {"U": (before, d_us[..., :-H]), "U_n": (r * before, d_us[..., -H:])}

    def _stack(self, params, kind, names):
        axis = 0 if kind == "U" and self.heads > 1 else -1
        return parts.stack(params, *(f"{kind}_{name}" for name in names), axis=axis)
