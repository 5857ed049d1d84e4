"""Compiling in a hurry: it is nearly all of a test's time."""

import functools

import jax


def _accepted(name, value):
    """Whether this version's compiler knows the option."""
    try:
        jax.jit(lambda: 0.0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
OPTIONS = {name: value for name, value in QUICK.items() if _accepted(name, value)}
jit = functools.partial(jax.jit, compiler_options=OPTIONS)
