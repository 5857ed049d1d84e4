"""The real-gated linear recurrent unit (De 2024, "Griffin: mixing gated linear recurrences...")."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from cells import base, parts

SHARPNESS = 8.0  # c in the paper


@dataclasses.dataclass(frozen=True)
class RGLRU(base.Linear):
    """r = sigma(W_a x + b_a),   i = sigma(W_i x + b_i),   a = sigma(Lambda)^(8 r),
    h = a * h' + sqrt(1 - a^2) * (i * x)

    Section 2.4, eq. 1-4, computed as log a (appendix A).

    Options:
      a_min, a_max: sigma(Lambda)^8, what a step with r = 1 keeps, starts uniform between them.
      negative_eigenvalues: 2 a - 1 stands for a, in both places, in (-1, 1) (`parts.negative`).

    The gates' weights are whole matrices, not the blocks of the authors' code (which also starts
    sigma(Lambda) itself, uniform on a ring, where ours follows the paper). Where input and hidden size
    differ, W_x x stands for x. In the authors' code the factor sqrt(1 - a^2) is 1 at the first step and at
    resets; here it is what it is. The convolution and the branch of Griffin's block are not part of the cell.
    """

    a_min: float = 0.9
    a_max: float = 0.999
    negative_eigenvalues: bool = False

    length_options = ("a_min", "a_max")
    knobs = ({"a_min": 0.5, "a_max": 0.9}, {"a_min": 0.99, "a_max": 0.9999})
    style = ("#AA4499", parts.DASHED, "h")

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "a_min", "a_max")
        base.require(self, "a_min", 0 < self.a_min <= self.a_max < 1, "above 0 and at most a_max < 1")

    def _length(self, steps):
        # Time scales from steps / 4 to steps; gates start at 1/2, so that what r = 1 keeps is its square.
        return {"a_min": max(0.25, 1 - 4 / steps) ** 2, "a_max": max(0.5, 1 - 1 / steps) ** 2}

    def init(self, key, input_size, dtype=jnp.float32):
        H = self.hidden_size
        key_W, key_a = jax.random.split(key)
        names = "ai" if input_size == H else "aix"
        params = parts.dense_weights(key_W, names, "W", (input_size, H), parts.input_initializer(), dtype)
        wide = jnp.promote_types(dtype, jnp.float32)  # in bfloat16 a would round to 1
        log_a = jnp.log(jax.random.uniform(key_a, (H,), wide, self.a_min, self.a_max)) / SHARPNESS
        Lambda = log_a - jnp.log(-jnp.expm1(log_a))
        zeros = jnp.zeros(H, dtype)
        return params | {"b_a": zeros, "b_i": zeros, "Lambda": Lambda.astype(dtype)}

    def gates(self, params, carry, x):
        r, i = (sigmoid(x @ params[f"W_{name}"] + params[f"b_{name}"]) for name in "ai")
        return {"forget": sigmoid(params["Lambda"]) ** (SHARPNESS * r), "recurrence": r, "input": i}

    def step(self, params, carry, x):
        p = params
        _, r, i = self.gates(p, carry, x).values()
        log_a = SHARPNESS * r * log_sigmoid(p["Lambda"])
        a, complement = self._factors(log_a)
        h = a * carry + complement * (i * (x @ p["W_x"] if "W_x" in p else x))
        return h, h

    def _factors(self, log_a):
        """a and sqrt(1 - a^2)."""
        if not self.negative_eigenvalues:
            return jnp.exp(log_a), _complement(2 * log_a)
        a = jnp.exp(log_a)  # 1 - (2 a - 1)^2 = 4 a (1 - a)
        return parts.negative(a), 2 * jnp.exp(log_a / 2) * _complement(log_a)

    def project(self, params, xs):
        names = "aix" if "W_x" in params else "ai"
        r, i, *x = parts.split(xs @ parts.stack(params, *(f"W_{name}" for name in names)), len(names))
        return (r + params["b_a"], i + params["b_i"], x[0] if x else xs), None

    def coefficients(self, params, us):
        r, i, x = us
        log_a = SHARPNESS * sigmoid(r) * log_sigmoid(params["Lambda"].astype(x.dtype))
        a, complement = self._factors(log_a)
        return a, complement * (sigmoid(i) * x)


def _complement(log):
    """sqrt(1 - exp(log)), with its digits where that is near 0; its derivative is finite where it is 0."""
    left, tiny = -jnp.expm1(log), jnp.finfo(log.dtype).tiny
    return jnp.where(left > tiny, jnp.sqrt(jnp.maximum(left, tiny)), 0)
