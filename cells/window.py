"""A feed-forward layer on a window of inputs: the baseline without recurrence (Waibel 1989, TDNN)."""

import dataclasses

import jax.numpy as jnp

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class Window(base.Sequence):
    """h_t = tanh(W[0] x_t + W[1] x_{t-1} + ... + W[window-1] x_{t-window+1} + b)

    The carry, (batch, window - 1, hidden_size), is what the inputs so far add to the next steps.

    Options:
      window: inputs that it sees, this one included.

    The first layer of a TDNN, with tanh for its logistic units.
    """

    window: int = 8

    forms = ("parallel",)
    dynamics = "window"
    style = ("#595959", parts.DOTTED, ".")

    def __post_init__(self):
        super().__post_init__()
        base.check_positive(self, "window")

    def init(self, key, input_size, dtype=jnp.float32):
        shape = (self.window * input_size, self.hidden_size)
        W = parts.input_initializer()(key, shape, dtype).reshape(self.window, input_size, -1)
        return {"W": W, "b": jnp.zeros(self.hidden_size, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return jnp.zeros((batch_size, self.window - 1, self.hidden_size), dtype)

    def step(self, params, carry, x):
        a, pending = parts.push(carry, *self.project(params, x)[0])
        return pending, jnp.tanh(a)

    def project(self, params, xs):
        return parts.taps(xs, params["W"], params["b"]), None

    def over_time(self, params, carry, us, rest, steps):
        a, pending = steps.causal(*us, carry)
        return pending, jnp.tanh(a)
