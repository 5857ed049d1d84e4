"""The linear recurrent unit (Orvieto 2023, "Resurrecting recurrent neural networks for long sequences")."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class LRU(base.Linear):
    """c = lambda * c' + gamma * (B x),   h = Re(C c) + D * x,   lambda = exp(-exp(nu) + i exp(theta))

    The state, (batch, hidden_size), is complex; lambda, a diagonal, lies inside the unit circle whatever nu
    and theta (section 3.3). gamma = exp(gamma_log) is learned, from sqrt(1 - |lambda|^2) (section 3.4).

    Options:
      r_min, r_max: lambda starts uniform on the ring between these radii (lemma 3.2).
      max_phase: and between the angles 0 and max_phase, radians.

    As many states as outputs. Where input and hidden size differ, the paper's diagonal D is a matrix.
    """

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    length_options = ("r_min", "r_max")
    dynamics = "rotation"
    knobs = ({"r_min": 0.9, "r_max": 0.999}, {"r_min": 0.9, "r_max": 0.999, "max_phase": 0.3})
    style = ("#332288", parts.DASHED, "p")

    def __post_init__(self):
        super().__post_init__()
        base.check_finite(self, "r_min", "r_max", "max_phase")
        base.require(self, "r_min", 0 <= self.r_min < self.r_max <= 1, "in [0, r_max), r_max at most 1")
        base.require(self, "max_phase", self.max_phase > 0, "above 0")

    def _length(self, steps):
        # Time scales from steps / 4 to steps, as the paper raises the ring for long sequences.
        return {"r_min": max(0.0, 1 - 4 / steps), "r_max": 1 - 1 / steps}

    def init(self, key, input_size, dtype=jnp.float32):
        N = H = self.hidden_size
        key_r, key_phase, key_B, key_C, key_D = jax.random.split(key, 5)
        tiny = 1e-6  # neither |lambda| = 0 nor 1 nor an angle of 0, whose logarithms are infinite
        wide = jnp.promote_types(dtype, jnp.float32)
        ring = jax.random.uniform(key_r, (N,), wide, tiny, 1 - tiny)
        nu = -0.5 * jnp.log(ring * (self.r_max**2 - self.r_min**2) + self.r_min**2)
        theta = jax.random.uniform(key_phase, (N,), wide, tiny, 1) * self.max_phase
        B = jax.random.normal(key_B, (2, input_size, N), wide) / math.sqrt(2 * input_size)
        C = jax.random.normal(key_C, (2, N, H), wide) / math.sqrt(N)
        D = jax.random.normal(key_D, (H,) if input_size == H else (input_size, H), wide)
        params = {
            "nu": jnp.log(nu), "theta": jnp.log(theta), "gamma_log": 0.5 * jnp.log(-jnp.expm1(-2 * nu)),
            "B_re": B[0], "B_im": B[1], "C_re": C[0], "C_im": C[1],
            "D": D if input_size == H else D / math.sqrt(input_size),
        }  # fmt: skip
        return {name: p.astype(dtype) for name, p in params.items()}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return super().initial_carry(batch_size, jnp.result_type(dtype, jnp.complex64))

    def step(self, params, carry, x):
        p = params
        B, C = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
        lambda_ = jnp.exp(-jnp.exp(p["nu"]) + 1j * jnp.exp(p["theta"]))
        c = lambda_ * carry + jnp.exp(p["gamma_log"]) * (x @ B)
        return c, (c @ C).real + (x * p["D"] if p["D"].ndim == 1 else x @ p["D"])

    def project(self, params, xs):
        gamma, D = jnp.exp(params["gamma_log"]), params["D"]
        re, im = parts.split(xs @ parts.stack(params, "B_re", "B_im"), 2)
        return (gamma * re, gamma * im), xs * D if D.ndim == 1 else xs @ D

    def coefficients(self, params, us):
        b = jax.lax.complex(*us)
        nu, theta = (params[name].astype(us[0].dtype) for name in ("nu", "theta"))
        a = jnp.exp(jax.lax.complex(-jnp.exp(nu), jnp.exp(theta)))
        return jnp.broadcast_to(a, b.shape), b

    def readout(self, params, rest, previous, states):
        re, im = (params[name].astype(states.real.dtype) for name in ("C_re", "C_im"))
        return states.real @ re - states.imag @ im + rest
