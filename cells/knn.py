"""The kernel network (Lei 2017, "Deriving neural architectures from sequence and graph kernels")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base, parts

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "identity": lambda c: c}


@dataclasses.dataclass(frozen=True)
class KNN(base.Sequence):
    """c1 = l * c1' + (1 - l) * (W_1 x),   cj = l * cj' + (1 - l) * (c(j-1)' * (W_j x)),   h = tanh(cn)

    cn is a string kernel (section 3.1): a sum over all n-grams of inputs, less the more steps they skip and
    the longer ago they are. The carry is the tuple (c1, ..., cn).

    Options:
      order: n, the length of the n-grams.
      combine: "multiplicative" as above, or "additive": c(j-1)' + W_j x.
      decay: "gated": l = sigma(W_l x + b_l); "recurrent": l = sigma(W_l x + U_l h' + b_l), the paper's best,
        which makes the recurrence nonlinear; "learned": sigma(b_l); "constant": sigma(forget_bias).
      normalised: False: 1 in place of 1 - l, as in section 3.1; the authors' code has 1 - l.
      all_orders: h = tanh(c1 + ... + cn), n-grams of all lengths, as in their classifier.
      activation: "tanh", "relu" or "identity".
      forget_bias: initial b_l; log 4 makes the l = 0.8 of the paper's constant decay.

    Highway connections and dropout belong to the model.
    """

    order: int = 2
    combine: str = "multiplicative"
    decay: str = "gated"
    normalised: bool = True
    all_orders: bool = False
    activation: str = "tanh"
    forget_bias: float = 0.0

    length_options = ("forget_bias",)
    knobs = ({"forget_bias": 2.0}, {"forget_bias": 4.0})
    style = ("#999933", parts.DASHED, "X")

    def __post_init__(self):
        super().__post_init__()
        base.check_positive(self, "order")
        base.check_choice(self, "combine", "multiplicative", "additive")
        combines = self.order > 1 or self.combine == "multiplicative"
        base.require(self, "combine", combines, "left at 'multiplicative' where order is 1")
        base.check_choice(self, "decay", "gated", "recurrent", "learned", "constant")
        base.check_choice(self, "activation", *ACTIVATIONS)
        base.check_finite(self, "forget_bias")

    def _length(self, steps):
        return parts.middle_bias(steps)

    @property
    def forms(self):
        return () if self.decay == "recurrent" else parts.LINEAR_FORMS

    @property
    def dynamics(self):
        return "nonlinear" if self.decay == "recurrent" else "linear"

    @property
    def _names(self):
        return [f"W_{j + 1}" for j in range(self.order)] + ["W_l"] * (self.decay in ("gated", "recurrent"))

    def init(self, key, input_size, dtype=jnp.float32):
        H, init, names = self.hidden_size, parts.input_initializer(), self._names
        *keys, key_U = jax.random.split(key, len(names) + 1)
        params = {name: init(k, (input_size, H), dtype) for name, k in zip(names, keys, strict=True)}
        if self.decay == "recurrent":
            params["U_l"] = parts.orthogonal(key_U, (H, H), dtype)
        return params | ({"b_l": jnp.full(H, self.forget_bias, dtype)} if self.decay != "constant" else {})

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return (super().initial_carry(batch_size, dtype),) * self.order

    def _output(self, cs):
        return ACTIVATIONS[self.activation](sum(cs) if self.all_orders else cs[-1])

    def _written(self, keep, u, lower):
        """What joins a memory, out of W_j x and the memory below it one step ago (None: there is none)."""
        if lower is not None:
            u = lower * u if self.combine == "multiplicative" else lower + u
        return (1 - keep) * u if self.normalised else u

    def _keep(self, params, carry, a):
        return sigmoid(a + self._output(carry) @ params["U_l"] if self.decay == "recurrent" else a)

    def gates(self, params, carry, x):
        keep = self._keep(params, carry, self.project(params, x)[0][0])
        return {"forget": keep} if "W_l" in params else {}

    def step(self, params, carry, x):
        a, *us = self.project(params, x)[0]
        keep = self._keep(params, carry, a)
        steps = zip(carry, us, (None, *carry[:-1]), strict=True)
        after = tuple(keep * c_ + self._written(keep, u, lower) for c_, u, lower in steps)
        return after, self._output(after)

    def project(self, params, xs):
        us = parts.split(xs @ parts.stack(params, *self._names), len(self._names))
        bias = params.get("b_l", jnp.full_like(us[0], self.forget_bias, shape=self.hidden_size))
        a = us.pop() + bias if "W_l" in params else jnp.broadcast_to(bias, us[0].shape)
        return (a, *us), None

    def over_time(self, params, carry, us, rest, steps):
        a, *us = us
        keep, lower, cs = sigmoid(a), None, []
        for u, first in zip(us, carry, strict=True):
            cs.append(steps.solve(keep, self._written(keep, u, lower), first))
            lower = steps.before(cs[-1], first)
        return tuple(c[-1] for c in cs), self._output(cs)
