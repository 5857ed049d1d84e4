"""The short convolution of gated blocks (De 2024, "Griffin"; Gu & Dao 2023, "Mamba"; Beck 2024, "xLSTM")."""

import dataclasses

import jax.numpy as jnp

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class ShortConvolution(base.Sequence):
    """y_t = w[0] * x_t + w[1] * x_{t-1} + ... + w[width-1] * x_{t-width+1} + b

    Each unit by itself; not in the registry, since no unit sees another. The carry, (batch, width - 1,
    hidden_size), is what the inputs so far add to the next steps.

    Options:
      width: inputs that it sees, this one included.
    """

    width: int = 4

    forms = ("parallel",)
    dynamics = "window"

    def __post_init__(self):
        super().__post_init__()
        base.check_positive(self, "width")

    def init(self, key, input_size, dtype=jnp.float32):
        """`input_size` is hidden_size."""
        w = parts.input_initializer()(key, (self.width, self.hidden_size), dtype)
        return {"w": w, "b": jnp.zeros(self.hidden_size, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return jnp.zeros((batch_size, self.width - 1, self.hidden_size), dtype)

    def step(self, params, carry, x):
        y, pending = parts.push(carry, *self.project(params, x)[0])
        return pending, y

    def project(self, params, xs):
        now, *past = (xs * w for w in params["w"])
        past = jnp.concatenate([*past, xs[..., :0]], axis=-1)
        return (now + params["b"], past), None

    def over_time(self, params, carry, us, rest, steps):
        y, pending = steps.causal(*us, carry)
        return pending, y
