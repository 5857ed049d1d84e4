"""The simplified state space layer (Smith 2023, "Simplified state space layers for sequence modeling")."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class S5(base.Linear):
    """c = exp(dt * lambda) * c' + (exp(dt * lambda) - 1) / lambda * (B x),   h = 2 Re(C c) + D * x,
    lambda = -exp(alpha) + i omega

    A continuous state, dc/dt = lambda c + B x, whose input stays as it is during a step (zero-order hold,
    section 3.1) of length dt = exp(log_dt), each number's own. The state, (batch, state_size), is complex:
    one of each conjugate pair is kept (section 3.2), so state_size is half the paper's.

    Options:
      eigenvalues: lambda starts as the "hippo" matrix's, normal HiPPO-LegS, of which B and C have the
        eigenvectors (section 3.2, appendix B.1); or "s4d", -1/2 + i pi n, S4D-Lin (Gu 2022, "On the
        parameterization and initialization of diagonal state space models", eq. 9).
      state_size: complex numbers in the state; 0: as many as outputs.
      dt_min, dt_max: dt starts between them, its logarithm uniform.

    One HiPPO matrix, not several smaller ones (J = 1). The real part of lambda is below 0 whatever alpha, as
    in S4D; the authors' code learns it as it is. GELU and gate, which the paper has after h, belong to the
    block (`model.block`). Where input and hidden size differ, the diagonal D is a matrix.
    """

    eigenvalues: str = "hippo"
    state_size: int = 0
    dt_min: float = 0.001
    dt_max: float = 0.1

    length_options = ("dt_min", "dt_max")
    dynamics = "rotation"
    knobs = ({"eigenvalues": "s4d"}, {"dt_min": 0.0001, "dt_max": 0.01})
    style = ("#661100", parts.DASHED, "o")

    def __post_init__(self):
        super().__post_init__()
        base.check_choice(self, "eigenvalues", "hippo", "s4d")
        whole = type(self.state_size) is int and self.state_size >= 0
        base.require(self, "state_size", whole, "a positive int, or 0: as hidden_size")
        base.check_time_steps(self)

    def _length(self, steps):
        # Time scales from steps / 4 to steps: exp(-dt / 2) is kept.
        return {"dt_min": 2 / steps, "dt_max": 8 / steps}

    @property
    def _states(self):
        return self.state_size or self.hidden_size

    def init(self, key, input_size, dtype=jnp.float32):
        N, H = self._states, self.hidden_size
        key_B, key_C, key_D, key_dt = jax.random.split(key, 4)
        wide = jnp.promote_types(dtype, jnp.float32)
        if self.eigenvalues == "hippo":
            omega, V = hippo(N, wide)
            B = jax.random.normal(key_B, (input_size, 2 * N), wide) @ V.conj()
            C = V.T @ jax.random.normal(key_C, (2 * N, H), wide)
        else:
            omega = math.pi * jnp.arange(N, dtype=wide)
            complex_ = jnp.result_type(wide, jnp.complex64)  # whose numbers have variance 1, as those above
            B = jax.random.normal(key_B, (input_size, N), complex_)
            C = jax.random.normal(key_C, (N, H), complex_)
        B, C = B / math.sqrt(input_size), C / math.sqrt(2 * N)
        D = jax.random.normal(key_D, (H,) if input_size == H else (input_size, H), wide)
        low, high = math.log(self.dt_min), math.log(self.dt_max)
        params = {
            "alpha": jnp.full(N, math.log(0.5)), "omega": omega,
            "log_dt": low + (high - low) * jax.random.uniform(key_dt, (N,), wide),
            "B_re": B.real, "B_im": B.imag, "C_re": C.real, "C_im": C.imag,
            "D": D if input_size == H else D / math.sqrt(input_size),
        }  # fmt: skip
        return {name: p.astype(dtype) for name, p in params.items()}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return jnp.zeros((batch_size, self._states), jnp.result_type(dtype, jnp.complex64))

    def step(self, params, carry, x):
        p = params
        B, C = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
        lambda_ = -jnp.exp(p["alpha"]) + 1j * p["omega"]
        a = jnp.exp(jnp.exp(p["log_dt"]) * lambda_)
        c = a * carry + (a - 1) / lambda_ * (x @ B)
        return c, 2 * (c @ C).real + (x * p["D"] if p["D"].ndim == 1 else x @ p["D"])

    def project(self, params, xs):
        D = params["D"]
        us = parts.split(xs @ parts.stack(params, "B_re", "B_im"), 2)
        return tuple(us), xs * D if D.ndim == 1 else xs @ D

    def coefficients(self, params, us):
        alpha, omega, log_dt = (params[name].astype(us[0].dtype) for name in ("alpha", "omega", "log_dt"))
        lambda_ = jax.lax.complex(-jnp.exp(alpha), omega)
        change = jnp.expm1(jnp.exp(log_dt) * lambda_)  # exp - 1 would lose the digits of a short step
        b = change / lambda_ * jax.lax.complex(*us)
        return jnp.broadcast_to(1 + change, b.shape), b

    def readout(self, params, rest, previous, states):
        re, im = (2 * params[name].astype(states.real.dtype) for name in ("C_re", "C_im"))
        return states.real @ re - states.imag @ im + rest


def hippo(size: int, dtype) -> tuple[base.Array, base.Array]:
    """Of the normal HiPPO-LegS matrix of twice the size (appendix B.1): imaginary parts of the eigenvalues
    where above 0, (size,), and their eigenvectors, (2 size, size). All real parts are -1/2, the other half
    are conjugates.
    """
    root = jnp.sqrt(jnp.arange(2 * size, dtype=dtype) + 0.5)
    skew = jnp.triu(jnp.outer(root, root), 1)  # the matrix is skew - 1/2
    omega, V = jnp.linalg.eigh(-1j * (skew - skew.T))
    return omega[size:], V[:, size:]
