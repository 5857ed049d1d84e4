"""What options make of the GRU's equation: the cuDNN form, no reset gate, layer normalisation."""

import dataclasses

import jax.numpy as jnp
from jax.nn import sigmoid

from cells import parts
from cells.gru import GRU


def of(cell: GRU) -> type[GRU]:
    """The class of a GRU with these options; a class derived elsewhere stays as it is."""
    if GRU not in (type(cell), type(cell).plain):
        return type(cell)
    if cell.layer_norm:
        return NormalisedGRU
    if not cell.reset_gate:
        return ResetlessGRU
    return ResetAfterGRU if cell.reset_after else GRU


class _OneProduct(GRU):
    """U_n multiplies h' itself, as the gates' U do: one product, U h' (+ c_n for n), for all of them."""

    plain = GRU

    def init(self, key, input_size, dtype=jnp.float32):
        params = super().init(key, input_size, dtype)
        return params | ({"c_n": jnp.zeros(self.hidden_size, dtype)} if self.reset_after else {})

    def recurrent_weights(self, params):
        U = self._stack(params, "U", self.gate_names + "n")
        if not self.reset_after:
            return {"U": U}
        zeros = jnp.zeros_like(params["c_n"], shape=len(self.gate_names) * self.hidden_size)
        return {"U": (U, jnp.concatenate([zeros, params["c_n"]]))}


@dataclasses.dataclass(frozen=True)
class ResetAfterGRU(_OneProduct):
    """n = tanh(W x + b + r * (U h' + c_n))"""

    def step(self, params, carry, x):
        p, h_ = params, carry
        r, z = self.gates(p, h_, x).values()
        n = jnp.tanh(x @ p["W_n"] + p["b_n"] + r * (parts.product(h_, p["U_n"]) + p["c_n"]))
        h = z * h_ + (1 - z) * n
        return h, h

    def recur(self, w, carry, u):
        h_, (a_r, a_z, a_n) = carry, parts.split(u, 3)
        q_r, q_z, q_n = parts.split(w["U"](h_), 3)
        r, z = sigmoid(a_r + q_r), sigmoid(a_z + q_z)
        n = jnp.tanh(a_n + r * q_n)
        return z * h_ + (1 - z) * n, (z, n, r, q_n)

    def backward(self, w, before, after, u, saved, d_after):
        z, n, r, q_n = saved
        d_z = d_after * (before - n) * z * (1 - z)
        d_n = d_after * (1 - z) * (1 - n * n)
        d_r = d_n * q_n * r * (1 - r)
        d_before = w["U"](jnp.concatenate([d_r, d_z, d_n * r], axis=-1))
        return d_after * z + d_before, jnp.concatenate([d_r, d_z, d_n], axis=-1)

    def products(self, before, after, saved, d_us):
        H, r = self.hidden_size, saved[2]
        return {"U": (before, jnp.concatenate([d_us[..., :-H], r * d_us[..., -H:]], axis=-1))}


@dataclasses.dataclass(frozen=True)
class ResetlessGRU(_OneProduct):
    """r = 1: n = tanh(W x + b + U h' [+ c_n])"""

    gate_names = "z"

    def gates(self, params, carry, x):
        p = params
        return {"update": sigmoid(x @ p["W_z"] + parts.product(carry, p["U_z"]) + p["b_z"])}

    def step(self, params, carry, x):
        p, h_ = params, carry
        z = self.gates(p, h_, x)["update"]
        n = jnp.tanh(x @ p["W_n"] + p["b_n"] + parts.product(h_, p["U_n"]) + p.get("c_n", 0.0))
        h = z * h_ + (1 - z) * n
        return h, h

    def recur(self, w, carry, u):
        h_, (a_z, a_n) = carry, parts.split(u, 2)
        q_z, q_n = parts.split(w["U"](h_), 2)
        z, n = sigmoid(a_z + q_z), jnp.tanh(a_n + q_n)
        return z * h_ + (1 - z) * n, (z, n)

    def backward(self, w, before, after, u, saved, d_after):
        z, n = saved
        d_z = d_after * (before - n) * z * (1 - z)
        d_u = jnp.concatenate([d_z, d_after * (1 - z) * (1 - n * n)], axis=-1)
        return d_after * z + w["U"](d_u), d_u

    def products(self, before, after, saved, d_us):
        return {"U": (before, d_us)}


@dataclasses.dataclass(frozen=True)
class NormalisedGRU(GRU):
    """Any of these with LN(W x) and LN(U h') in place of W x and U h'."""

    plain = GRU
    gradient_by_hand = False

    @property
    def block(self):
        return self.hidden_size  # all units have one mean

    @property
    def gate_names(self):
        return "rz" if self.reset_gate else "z"

    def init(self, key, input_size, dtype=jnp.float32):
        params = super().init(key, input_size, dtype)
        params |= {"c_n": jnp.zeros(self.hidden_size, dtype)} if self.reset_after else {}
        return params | parts.gains(self.gate_names + "n", self.hidden_size, dtype)

    def gates(self, params, carry, x):
        a = parts.normalised_preactivations(params, self.gate_names, x, carry)
        return {
            name: sigmoid(a[gate]) for gate, name in zip("rz", ("reset", "update"), strict=True) if gate in a
        }

    def step(self, params, carry, x):
        p, h_ = params, carry
        gates = self.gates(p, h_, x)
        r, z = gates.get("reset", 1.0), gates["update"]

        def norm(kind, product):
            return p[f"gain_{kind}_n"] * parts.normalise(product)

        if self.reset_after:
            inner = r * (norm("U", parts.product(h_, p["U_n"])) + p["c_n"])
        else:
            inner = norm("U", parts.product(r * h_, p["U_n"]))
        n = jnp.tanh(norm("W", x @ p["W_n"]) + p["b_n"] + inner)
        h = z * h_ + (1 - z) * n
        return h, h

    def project(self, params, xs):
        names, H = self.gate_names + "n", self.hidden_size
        u = xs @ self._stack(params, "W", names)
        u = jnp.concatenate([parts.normalise(u[..., :-H]), parts.normalise(u[..., -H:])], axis=-1)
        return u * self._stack(params, "gain_W", names) + self._stack(params, "b", names), None

    def recurrent_weights(self, params):
        p, gain_n = params, params["gain_U_n"]
        return {
            "U": self._stack(p, "U", self.gate_names),
            "gain": self._stack(p, "gain_U", self.gate_names),
            "U_n": p["U_n"],
            "gain_n": (gain_n, p["c_n"]) if self.reset_after else gain_n,
        }

    def recur(self, w, carry, u):
        h_, (*a, a_n) = carry, parts.split(u, len(self.gate_names) + 1)
        q = parts.split(w["gain"](parts.normalise(w["U"](h_))), len(a))
        *r, z = (sigmoid(a_k + q_k) for a_k, q_k in zip(a, q, strict=True))
        r = r[0] if r else 1.0
        q_n = w["gain_n"](parts.normalise(w["U_n"](h_ if self.reset_after else r * h_)))
        n = jnp.tanh(a_n + (r * q_n if self.reset_after else q_n))
        return z * h_ + (1 - z) * n, ()
