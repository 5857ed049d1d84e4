"""The simple recurrent unit (Lei 2018, "Simple recurrent units for highly parallelizable recurrence").

Two cells: `SRUFeedback` has the paper's full equations (3)-(6) and is not associative; `SRU` has no
feedback into its forget gate, so its state is linear in c' and runs by an associative scan.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class _SRU(base.HandDifferentiated):
    """What both cells share: options, parameters, the textbook step, the projections.

    Options:
      forget_bias: initial b_f.
      highway_bias: initial b_r; negative in deep stacks, so that layers start near the identity.
      rescale: alpha = sqrt(1 + 2 exp(highway_bias)), which keeps the variance of h over layers
        (section 3.2); off: alpha = 1.
      chrono: longest dependency expected, in steps: b_f = log U(1, chrono - 1), in place of forget_bias.
      highway: off: h = r * c.
      projection: d' features W_q x stand for x in W, W_f and W_r, not in the highway; 0: off. A d' below d
        and hidden_size saves parameters (Lei 2021, SRU++ without attention). W_q from +-sqrt(3 / d).
      negative_eigenvalues: 2 f - 1, in (-1, 1), is what multiplies the state, not f (`parts.negative`).
      layer_norm: W, W_f and W_r see LN(W_q x), as in SRU++, or LN(x), as in the authors' package, which
        multiplies their initial values by 0.1 then; here they start as they do without.
      tailored: W, W_f, W_r, W_x, v from +-sqrt(3 / d), variance 1 / d, as in section 3.2 and appendix A; off:
        from +-1 / sqrt(hidden_size), variance 1 / (3 hidden_size), as torch.nn starts recurrent layers.

    Where input and hidden size differ, a fourth projection W_x x stands for x * alpha, and alpha is
    folded into the initial W_x (as in the authors' package).
    """

    forget_bias: float = 0.0
    highway_bias: float = 0.0
    rescale: bool = True
    chrono: int | None = None
    highway: bool = True
    tailored: bool = True
    projection: int = 0
    layer_norm: bool = False
    negative_eigenvalues: bool = False

    is_elementwise = True
    length_options = ("chrono", "forget_bias")
    knobs = ({"forget_bias": 2.0}, {"forget_bias": 4.0})
    feedback = ""  # the gates that see c': any of "f" and "r"

    def __post_init__(self):
        super().__post_init__()
        whole = type(self.projection) is int and self.projection >= 0
        base.require(self, "projection", whole, "a number of features, or 0 for none")
        base.check_finite(self, "forget_bias", "highway_bias")
        base.check_chrono(self, "forget_bias")
        base.require(
            self, "rescale", self.rescale or self.highway, "left on where highway is off: there is no alpha"
        )

    def _length(self, steps):
        return {"chrono": steps}

    @property
    def alpha(self) -> float:
        """The factor on x in the highway connection."""
        return math.sqrt(1 + 2 * math.exp(self.highway_bias)) if self.rescale else 1.0

    def init(self, key, input_size, dtype=jnp.float32):
        key_W, key_x, key_v, key_b = jax.random.split(key, 4)
        H = self.hidden_size
        uniform = parts.input_initializer()  # +-sqrt(3 / d), variance 1 / d
        if not self.tailored:
            uniform = _plain
        seen = self.projection or input_size  # features that the W see
        params = parts.dense_weights(key_W, "cfr", "W", (seen, H), uniform, dtype)
        params["W"] = params.pop("W_c")
        for gate, key_gate in zip("fr", jax.random.split(key_v), strict=True):
            if gate in self.feedback:
                if not self.tailored:
                    params[f"v_{gate}"] = _plain(key_gate, (H,), dtype)
                    continue
                params[f"W_{gate}"] *= math.sqrt(0.5)
                v = jax.random.uniform(key_gate, (H,), dtype, -math.sqrt(3), math.sqrt(3))
                params[f"v_{gate}"] = math.sqrt(0.5) * v
        if self.highway and input_size != H:
            params["W_x"] = self.alpha * uniform(key_x, (input_size, H), dtype)
        if self.projection:
            key_q = jax.random.fold_in(key, 4)  # one more key, which leaves the other four as they are
            params["W_q"] = parts.input_initializer()(key_q, (input_size, seen), dtype)
        if self.layer_norm:
            params |= {"gain": jnp.ones(seen, dtype), "bias": jnp.zeros(seen, dtype)}
        params["b_f"] = jnp.full(H, self.forget_bias, dtype)
        if self.chrono:
            params["b_f"] = parts.chrono_bias(key_b, H, self.chrono, dtype)
        params["b_r"] = jnp.full(H, self.highway_bias, dtype)
        return params

    def _features(self, params, xs):
        """What W, W_f and W_r see of x."""
        xs = xs @ params["W_q"] if self.projection else xs
        return params["gain"] * parts.normalise(xs) + params["bias"] if self.layer_norm else xs

    def gates(self, params, carry, x):
        p, c_, x = params, carry, self._features(params, x)
        f = sigmoid(x @ p["W_f"] + p.get("v_f", 0.0) * c_ + p["b_f"])
        r = sigmoid(x @ p["W_r"] + p.get("v_r", 0.0) * c_ + p["b_r"])
        return {"forget": f, "reset": r}

    def _factor(self, f):
        return parts.negative(f) if self.negative_eigenvalues else f

    def step(self, params, carry, x):
        p, c_ = params, carry
        f, r = self.gates(params, carry, x).values()
        c = self._factor(f) * c_ + (1 - f) * (self._features(p, x) @ p["W"])
        h = r * c
        if self.highway:
            h += (1 - r) * (x @ p["W_x"] if "W_x" in p else x * self.alpha)
        return c, h

    def project(self, params, xs):
        seen = self._features(params, xs)
        u_r = seen @ params["W_r"] + params["b_r"]
        highway = (xs @ params["W_x"] if "W_x" in params else xs * self.alpha) if self.highway else None
        return (seen @ params["W"], seen @ params["W_f"] + params["b_f"]), (u_r, highway)

    def recurrent_weights(self, params):
        return {"v_f": params["v_f"]} if "f" in self.feedback else {}

    def recur(self, w, carry, u):
        c_, (u, a_f) = carry, u
        f = sigmoid(a_f + w["v_f"](c_) if "f" in self.feedback else a_f)
        return self._factor(f) * c_ + (1 - f) * u, f

    def readout(self, params, rest, previous, states):
        u_r, highway = rest
        r = sigmoid(u_r + params["v_r"] * previous if "r" in self.feedback else u_r)
        return r * states if highway is None else r * states + (1 - r) * highway

    def backward(self, w, before, after, u, saved, d_after):
        f, (u, _) = saved, u
        slope = 2 if self.negative_eigenvalues else 1  # of `_factor`
        d_f = d_after * (slope * before - u) * f * (1 - f)
        d_before = d_after * self._factor(f)
        if "f" in self.feedback:
            d_before += w["v_f"](d_f)
        return d_before, (d_after * (1 - f), d_f)

    def products(self, before, after, saved, d_us):
        return {"v_f": (before, d_us[1])} if "f" in self.feedback else {}


def _plain(key, shape, dtype):
    """Uniform in +-1 / sqrt(hidden_size), the last axis."""
    bound = 1 / math.sqrt(shape[-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class SRUFeedback(_SRU):
    """f = sigma(W_f x + v_f * c' + b_f),   c = f * c' + (1 - f) * (W x),
    r = sigma(W_r x + v_r * c' + b_r),   h = r * c + (1 - r) * x * alpha
    """

    feedback = "fr"
    style = ("#CC79A7", "-", "v")


@dataclasses.dataclass(frozen=True)
class SRU(_SRU, base.Linear):
    """SRU with v_f = 0: the state is linear in c', so all of time runs in parallel.

    f = sigma(W_f x + b_f),   c = f * c' + (1 - f) * (W x)
    r = sigma(W_r x [+ v_r * c'] + b_r),   h = r * c + (1 - r) * x * alpha

    Options: those above, and
      reset_feedback: r sees c' through v_r; this needs c only after the scan.
    """

    reset_feedback: bool = False

    style = ("#E69F00", "-", "D")

    @property
    def feedback(self):
        return "r" if self.reset_feedback else ""

    def coefficients(self, params, us):
        u, a_f = us
        f = sigmoid(a_f)
        return self._factor(f), (1 - f) * u
