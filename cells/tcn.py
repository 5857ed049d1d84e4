"""The temporal convolutional network (Bai 2018, "An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling")."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.nn import relu

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class TCN(base.Sequence):
    """Residual blocks of two causal convolutions each; in block l they skip d - 1 = 2^l - 1 inputs.

    y_t = relu(b + W[0] x_t + W[1] x_{t-d} + ... + W[k-1] x_{t-(k-1)d}), twice;   x = relu(x + y)

    Section 3 and figure 1. It sees 1 + 2 (k - 1) (2^levels - 1) inputs. The first block's x + y has a
    projection, W_x x + b_x, where sizes differ. The carry is a tuple over convolutions, (batch, (k - 1) * d,
    hidden_size) each: what the inputs so far add to the next steps.

    Options:
      levels: residual blocks.
      kernel: inputs k of a convolution.

    Without the paper's weight normalisation, so weights start with variance 2 / fan_in (He 2015), not 0.0001;
    dropout belongs to the model.
    """

    levels: int = 4
    kernel: int = 3

    forms = ("parallel",)
    length_options = ("levels",)
    dynamics = "window"
    knobs = ({"levels": 6}, {"levels": 8})
    style = ("#8C8C8C", parts.DOTTED, "*")

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "levels", type(self.levels) is int and 0 < self.levels <= 20, "in 1..20")
        base.require(self, "kernel", type(self.kernel) is int and self.kernel > 1, "an int of at least 2")

    def _length(self, steps):
        # Until the convolutions see that far (section 3.2).
        levels = math.ceil(math.log2((steps - 1) / (2 * (self.kernel - 1)) + 1))
        return {"levels": min(20, max(1, levels))}

    def init(self, key, input_size, dtype=jnp.float32):
        H, k = self.hidden_size, self.kernel
        params, size, keys = {}, input_size, iter(jax.random.split(key, 2 * self.levels + 1))
        if input_size != H:
            params["W_x"] = parts.input_initializer()(next(keys), (input_size, H), dtype)
            params["b_x"] = jnp.zeros(H, dtype)
        for n in range(2 * self.levels):
            W = 2**0.5 * parts.input_initializer()(next(keys), (k * size, H), dtype)
            params |= {f"W_{n}": W.reshape(k, size, H), f"b_{n}": jnp.zeros(H, dtype)}
            size = H
        return params

    def initial_carry(self, batch_size, dtype=jnp.float32):
        steps = [(self.kernel - 1) * 2 ** (n // 2) for n in range(2 * self.levels)]
        return tuple(jnp.zeros((batch_size, later, self.hidden_size), dtype) for later in steps)

    def _network(self, params, carry, u, shortcut, product, convolve):
        """The blocks, for one step or all: `convolve(now, past, pending, dilation)`."""
        pending, x = [], shortcut  # x: what a block adds to; y: what its convolutions see
        y = x
        for n in range(2 * self.levels):
            if n:
                u = parts.taps(y, params[f"W_{n}"], params[f"b_{n}"], product)
            a, left = convolve(*u, carry[n], 2 ** (n // 2))
            y = relu(a)
            pending.append(left)
            if n % 2:
                x = y = relu(x + y)
        return tuple(pending), x

    def step(self, params, carry, x):
        u, shortcut = self.project(params, x)

        def convolve(now, past, pending, dilation):
            return parts.push(pending, now, past, dilation)

        return self._network(params, carry, u, shortcut, jnp.matmul, convolve)

    def project(self, params, xs):
        shortcut = xs @ params["W_x"] + params["b_x"] if "W_x" in params else xs
        return parts.taps(xs, params["W_0"], params["b_0"]), shortcut

    def over_time(self, params, carry, us, rest, steps):
        return self._network(params, carry, us, rest, steps.product, steps.causal)
