"""The kernel network (Lei 2017, "Deriving neural architectures from sequence and graph kernels")."""

import dataclasses

import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base


@dataclasses.dataclass(frozen=True)
class KNN(base.Cell):
    """c1 = l * c1' + (1 - l) * (W_1 x),   cj = l * cj' + (1 - l) * (c(j-1)' * (W_j x)),   h = tanh(cn)

    The n-gram string kernel as a network (section 3). The carry is the tuple (c1, ..., cn).

    Options:
      order: n, the length of the n-grams.
      combine: "multiplicative" as above, or "additive": c(j-1)' + W_j x.
      decay: "gated": l = sigma(W_l x + b_l), or "constant": l = sigma(b_l), one per unit, learned.
      forget_bias: initial b_l.
    """

    order: int = 2
    combine: str = "multiplicative"
    decay: str = "gated"
    forget_bias: float = 0.0

    is_linear = True

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "order", type(self.order) is int and self.order > 0, "a positive int")
        known = self.combine in ("multiplicative", "additive")
        base.require(self, "combine", known, "'multiplicative' or 'additive'")
        base.require(self, "decay", self.decay in ("gated", "constant"), "'gated' or 'constant'")
        base.check_finite(self, "forget_bias")

    def init(self, key, input_size, dtype=jnp.float32):
        H = self.hidden_size
        names = [f"W_{j + 1}" for j in range(self.order)] + ["W_l"] * (self.decay == "gated")
        init, keys = base.input_initializer(), base.keys(key, len(names))
        params = {name: init(k, (input_size, H), dtype) for name, k in zip(names, keys, strict=True)}
        return params | {"b_l": jnp.full(H, self.forget_bias, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return (super().initial_carry(batch_size, dtype),) * self.order

    def _input(self, j, u, lower):
        """What joins the j-th memory, out of W_j x and the memory below it one step ago."""
        if j == 0:
            return u
        return lower * u if self.combine == "multiplicative" else lower + u

    def gates(self, params, carry, x):
        return {"decay": self._decay(params, x)} if self.decay == "gated" else {}

    def _decay(self, params, xs):
        a = xs @ params["W_l"] if self.decay == "gated" else jnp.zeros_like(xs @ params["W_1"])
        return sigmoid(a + params["b_l"])

    def step(self, params, carry, x):
        keep, new = self._decay(params, x), []
        for j, c_ in enumerate(carry):
            lower = carry[j - 1] if j else None
            new.append(keep * c_ + (1 - keep) * self._input(j, x @ params[f"W_{j + 1}"], lower))
        return tuple(new), jnp.tanh(new[-1])

    def project(self, params, xs):
        us = [xs @ params[f"W_{j + 1}"] for j in range(self.order)]
        return (self._decay(params, xs), *us), None

    def over_time(self, params, carry, us, rest, steps):
        keep, *us = us
        last, before, c = [], None, None
        for j, u in enumerate(us):
            c = steps.solve(keep, (1 - keep) * self._input(j, u, before), carry[j])
            before = steps.before(c, carry[j])
            last.append(c[-1])
        return tuple(last), jnp.tanh(c)
