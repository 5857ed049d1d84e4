"""The real-gated linear recurrent unit (De 2024, "Griffin: mixing gated linear recurrences...")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base

SHARPNESS = 8.0  # c in the paper


@dataclasses.dataclass(frozen=True)
class RGLRU(base.Cell):
    """r = sigma(W_a x + b_a), i = sigma(W_i x + b_i),  a = sigma(Lambda)^(8 r),
    h = a * h' + sqrt(1 - a^2) * (i * x)

    Where input and hidden size differ, a projection W_x x stands for the last x. The convolution before it
    and the branch beside it, in Griffin's block, are not part of the cell.

    Options:
      a_min, a_max: sigma(Lambda)^8, the state kept in a step with r = 1, starts uniform between them.
    """

    a_min: float = 0.9
    a_max: float = 0.999

    is_linear = True

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "a_min", "a_max")
        base.require(self, "a_min", 0 < self.a_min <= self.a_max < 1, "above 0 and at most a_max < 1")

    def init(self, key, input_size, dtype=jnp.float32):
        H = self.hidden_size
        key_W, key_a = jax.random.split(key)
        names = "ai" if input_size == H else "aix"
        params = base.dense_weights(key_W, names, "W", (input_size, H), base.input_initializer(), dtype)
        a = jax.random.uniform(key_a, (H,), dtype, self.a_min, self.a_max) ** (1 / SHARPNESS)
        zeros = jnp.zeros(H, dtype)
        return params | {"b_a": zeros, "b_i": zeros, "Lambda": jnp.log(a) - jnp.log1p(-a)}

    def gates(self, params, carry, x):
        r = sigmoid(x @ params["W_a"] + params["b_a"])
        return {"recurrence": r, "input": sigmoid(x @ params["W_i"] + params["b_i"])}

    def step(self, params, carry, x):
        r, i = self.gates(params, carry, x).values()
        a = sigmoid(params["Lambda"]) ** (SHARPNESS * r)
        h = a * carry + jnp.sqrt(1 - a**2) * (i * (x @ params["W_x"] if "W_x" in params else x))
        return h, h

    def project(self, params, xs):
        x = xs @ params["W_x"] if "W_x" in params else xs
        return (xs @ params["W_a"] + params["b_a"], xs @ params["W_i"] + params["b_i"], x), None

    def linear(self, params, us):
        a_r, a_i, x = us
        log_a = SHARPNESS * sigmoid(a_r) * jax.nn.log_sigmoid(params["Lambda"].astype(x.dtype))
        # sqrt(1 - a^2) keeps the state's variance; expm1 keeps its digits where a is near 1.
        return jnp.exp(log_a), jnp.sqrt(-jnp.expm1(2 * log_a)) * (sigmoid(a_i) * x)
