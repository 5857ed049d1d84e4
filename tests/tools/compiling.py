"""Quick compilation: it is nearly all of a test's time."""

import functools

import jax

from train.compile import options

jit = functools.partial(jax.jit, compiler_options=options("once"))
