"""c_t = a_t c_{t-1} + b_t by a kernel: a solver of `cells.scans.linear`, whose derivative rule it is."""

import jax.numpy as jnp
from jax import lax

from cells.scans.kernels import recurrence
from cells.scans.kernels.recurrence import Way, times


def solve(way: Way, a, b, reverse):
    """All states from zeros, (time, batch, channels); real, or complex as two numbers."""
    way = way.of(b)
    if jnp.iscomplexobj(b):
        parts = tuple(part for x in (a, b) for part in (jnp.real(x), jnp.imag(x)))
        zero = jnp.zeros_like(parts[0][0])
        out = (parts[0].dtype,) * 2
        _, ys, _ = recurrence.scan(_complex, (), (zero, zero), parts, out, reverse, True, way)
        return lax.complex(*ys)
    first = (jnp.zeros_like(b[0]),)
    return recurrence.scan(_real, (), first, (a, b), (b.dtype,), reverse, True, way)[1][0]


def _real(_, carry, xs):
    (c,), (a, b) = carry, xs
    c = times(a, c) + b
    return (c,), (c,), ()


def _complex(_, carry, xs):
    (c, d), (a_re, a_im, b_re, b_im) = carry, xs
    gone = (a_re == 0) & (a_im == 0)
    c, d = (jnp.where(gone, jnp.zeros_like(x), x) for x in (c, d))
    c, d = a_re * c - a_im * d + b_re, a_re * d + a_im * c + b_im
    return (c, d), (c, d), ()
