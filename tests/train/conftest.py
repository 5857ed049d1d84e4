"""Tiny runs."""

import jax
import pytest

import compiling
import configs

TINY = {
    "cell": {"hidden_size": 8},
    "task": {"gap": 3, "symbols": 4, "distractors": 2, "eval_examples": 64},
    "optim": {"learning_rate": 0.02, "warmup_steps": 2},
    "train": {"steps": 40, "batch_size": 8, "seeds": 2, "eval_every": 10, "checkpoint_seconds": 0.0},
}


@pytest.fixture(scope="session")
def jit():
    """`jax.jit`, quick to compile."""
    return compiling.jit


@pytest.fixture(scope="session")
def compilations():
    """A list that grows by one entry with every compilation."""
    events = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


@pytest.fixture(scope="session")
def tiny():
    """Cell, sections -> the frozen config of a tiny run of delayed recall, as the command line makes it."""

    def config(cell="gru", /, **sections):
        base = configs.make(cell, "delayed_recall", **TINY)
        flat = {f"{s}.{f}": v for s, fields in sections.items() for f, v in fields.items()}
        return configs.freeze(configs.apply(base, flat))

    return config


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
