"""Compiling and caching: a program is compiled once in a process for arguments of some shapes."""

import functools
import os
import threading
from collections.abc import Callable

import jax
import numpy as np

from train import host

_CACHES = []  # what `make_room` empties
_CHANGED = threading.Condition()  # guards the caches and the number of threads that compile now
_COMPILING = 0


def kept(maxsize: int) -> Callable:
    """`functools.lru_cache` for what holds programs: `make_room` empties it."""

    def decorate(f):
        _CACHES.append(functools.lru_cache(maxsize)(f))
        return _CACHES[-1]

    return decorate


def make_room() -> None:
    """Forgets compiled programs where the process holds so many that the compiler would soon crash.

    Waits until no other thread compiles; a program that someone holds goes on working.
    """
    with _CHANGED:
        if host.crowded():
            _CHANGED.wait_for(lambda: _COMPILING == 0)
            for cache in _CACHES:
                cache.cache_clear()
            jax.clear_caches()


class Once:
    """f(), called by the thread that first asks for it; the others wait. An error is not kept."""

    def __init__(self, f: Callable):
        self._f, self._lock, self._value = f, threading.Lock(), None

    def __call__(self):
        with self._lock:
            if self._f is not None:
                self._value, self._f = self._f(), None
            return self._value


# How much work XLA puts into a program for a CPU. Measured on 2 cores, forward and backward: level 1 compiles
# in 0.8 of the time of the usual level and runs as fast; without the "fusion emitters", which newer versions
# cannot do without, in half of it, and training runs between 0.93 and 1.10 times as long where a state
# sequence has up to 500,000 floats, 1.05 times with 10 million.
EFFORTS = {
    "once": {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
    "small": {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False},
    "large": {"xla_backend_optimization_level": 1},
}


def options(effort: str) -> dict:
    """Compiler options of an effort: those that this backend knows, and the user's XLA_FLAGS do not set."""
    if jax.default_backend() != "cpu":
        return {}
    flags, asked = os.environ.get("XLA_FLAGS", ""), EFFORTS[effort]
    return {name: value for name, value in asked.items() if name not in flags and _knows(name, value)}


@functools.cache
def _knows(name: str, value) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _compile(program: Callable, effort: str, tree, shapes: tuple) -> Callable:
    global _COMPILING
    args = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(s, d, sharding=sh) for s, d, sh in shapes])
    with _CHANGED:
        _COMPILING += 1
    try:
        return program.lower(*args).compile(options(effort))
    finally:
        with _CHANGED:
            _COMPILING -= 1
            _CHANGED.notify_all()


@kept(256)
def _executable(*asked) -> Once:
    return Once(lambda: _compile(*asked))


def executable(program: Callable, *args, effort: str = "large") -> Callable:
    """`program`, compiled for these arguments.

    Args:
      effort: of `EFFORTS`: "once" for what runs once, "small" and "large" for what a small or large model
        trains with.
    """
    leaves, tree = jax.tree.flatten(args)
    placed = [isinstance(x, jax.ShapeDtypeStruct) or getattr(x, "committed", False) for x in leaves]
    shapes = tuple(
        (np.shape(x), x.dtype, x.sharding if at else None) for x, at in zip(leaves, placed, strict=True)
    )
    with _CHANGED:
        once = _executable(program, effort, tree, shapes)
    return once()
