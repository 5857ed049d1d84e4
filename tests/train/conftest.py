"""Tiny runs, compiled in a hurry: compilation is most of these tests' time."""

import functools

import jax
import pytest

import configs

TINY = {
    "cell": {"hidden_size": 8},
    "task": {"gap": 3, "symbols": 4, "distractors": 2, "eval_examples": 64},
    "optim": {"learning_rate": 0.02, "warmup_steps": 2},
    "train": {"steps": 40, "batch_size": 8, "seeds": 2, "eval_every": 10, "checkpoint_seconds": 0.0},
}
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def _accepted(name, value):
    """Whether this version's compiler knows the option."""
    try:
        jax.jit(lambda: 0.0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


OPTIONS = {name: value for name, value in QUICK.items() if _accepted(name, value)}


@pytest.fixture(scope="session")
def jit():
    """`jax.jit`, compiled in a hurry."""
    return functools.partial(jax.jit, compiler_options=OPTIONS)


@pytest.fixture(scope="module")
def in_a_hurry():
    """So are the programs of a run; they mean the same."""
    compile = jax.stages.Lowered.compile

    def quickly(lowered, compiler_options=None):
        return compile(lowered, {**OPTIONS, **(compiler_options or {})})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", quickly)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def tiny():
    """Cell, sections -> the frozen config of a tiny run of delayed recall, as the command line makes it."""

    def config(cell="gru", /, **sections):
        base = configs.make(cell, "delayed_recall", **TINY)
        flat = {f"{s}.{f}": v for s, fields in sections.items() for f, v in fields.items()}
        return configs.freeze(configs.apply(base, flat))

    return config
