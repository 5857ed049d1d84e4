"""Tiny runs."""

import jax
import pytest

import compiling
import tiny_runs


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
    return tiny_runs.config


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
