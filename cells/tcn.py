"""The temporal convolutional network (Bai 2018, "An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling")."""

import dataclasses

import jax.numpy as jnp
from jax.nn import relu

from cells import base


@dataclasses.dataclass(frozen=True)
class TCN(base.Cell):
    """Residual blocks of two causal convolutions each; level l skips 2^l steps between the inputs it sees:

    y_t = relu(b + W_0 x_t + W_1 x_{t-d} + ... + W_{k-1} x_{t-(k-1)d}), d = 2^l, twice;  x = relu(x + y)

    It sees 1 + 2 (k - 1) (2^levels - 1) steps. No weight normalisation; dropout is the model's. The first
    shortcut is a projection where sizes differ. The carry is a tuple over convolutions, (batch,
    (k - 1) * d, hidden_size) each: what the inputs so far add to the next steps.

    Options:
      levels: residual blocks; kernel: inputs k of a convolution.
    """

    levels: int = 4
    kernel: int = 3

    parallel = ("parallel",)

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "levels", type(self.levels) is int and 0 < self.levels <= 20, "in 1..20")
        base.require(self, "kernel", type(self.kernel) is int and self.kernel > 1, "an int of at least 2")

    def init(self, key, input_size, dtype=jnp.float32):
        H, k = self.hidden_size, self.kernel
        params, size, keys = {}, input_size, iter(base.keys(key, 2 * self.levels + 1))
        if input_size != H:
            params["W_x"] = base.input_initializer()(next(keys), (input_size, H), dtype)
        for n in range(2 * self.levels):
            # Variance 2 / fan_in keeps the scale through relu (He 2015).
            W = 2**0.5 * base.input_initializer()(next(keys), (k * size, H), dtype)
            params |= {f"W_{n}": W.reshape(k, size, H), f"b_{n}": jnp.zeros(H, dtype)}
            size = H
        return params

    def initial_carry(self, batch_size, dtype=jnp.float32):
        shapes = [
            (batch_size, (self.kernel - 1) * 2 ** (n // 2), self.hidden_size) for n in range(2 * self.levels)
        ]
        return tuple(jnp.zeros(shape, dtype) for shape in shapes)

    def _network(self, params, carry, u, shortcut, product, convolve):
        """The blocks, for one step or all: `convolve(now, past, pending, dilation)`."""
        pending, x = [], shortcut  # x: what a block adds to; y: what its convolutions see
        y = x
        for n in range(2 * self.levels):
            if n:
                W, b = params[f"W_{n}"], params[f"b_{n}"]
                u = product(y, W[0]) + b, jnp.concatenate([product(y, W_lag) for W_lag in W[1:]], -1)
            a, left = convolve(*u, carry[n], 2 ** (n // 2))
            y = relu(a)
            pending.append(left)
            if n % 2:
                x = y = relu(x + y)
        return tuple(pending), x

    def step(self, params, carry, x):
        u, shortcut = self.project(params, x)

        def convolve(now, past, pending, dilation):
            return base.push(pending, now, past, dilation)

        return self._network(params, carry, u, shortcut, jnp.matmul, convolve)

    def project(self, params, xs):
        W = params["W_0"]
        past = jnp.concatenate([xs @ W_lag for W_lag in W[1:]], -1)
        return (xs @ W[0] + params["b_0"], past), xs @ params["W_x"] if "W_x" in params else xs

    def over_time(self, params, carry, us, rest, steps):
        return self._network(params, carry, us, rest, steps.product, steps.causal)
