"""A feed-forward layer on a window of inputs: the baseline without recurrence (Waibel 1989, TDNN)."""

import dataclasses

import jax.numpy as jnp

from cells import base


@dataclasses.dataclass(frozen=True)
class Window(base.Cell):
    """h_t = tanh(W_0 x_t + W_1 x_{t-1} + ... + b), over the last `window` inputs

    The carry, (batch, window - 1, hidden_size), is what the inputs so far add to the next steps.
    """

    window: int = 8

    parallel = ("parallel",)

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "window", type(self.window) is int and self.window > 0, "a positive int")

    def init(self, key, input_size, dtype=jnp.float32):
        shape = (self.window * input_size, self.hidden_size)
        W = base.input_initializer()(key, shape, dtype).reshape(self.window, input_size, -1)
        return {"W": W, "b": jnp.zeros(self.hidden_size, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        return jnp.zeros((batch_size, self.window - 1, self.hidden_size), dtype)

    def step(self, params, carry, x):
        a, pending = base.push(carry, *self.project(params, x)[0])
        return pending, jnp.tanh(a)

    def project(self, params, xs):
        W = params["W"]
        past = [xs @ W[lag] for lag in range(1, self.window)]
        return (xs @ W[0] + params["b"], jnp.concatenate(past, -1) if past else xs[..., :0]), None

    def over_time(self, params, carry, us, rest, steps):
        a, pending = steps.causal(*us, carry)
        return pending, jnp.tanh(a)
