"""Compiling and caching: a program is compiled once in a process for arguments of some shapes."""

import functools
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


def _compile(program: Callable, fast: bool, tree, shapes: tuple) -> Callable:
    global _COMPILING
    args = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(s, d, sharding=sh) for s, d, sh in shapes])
    # A program that runs only once is compiled without optimisation, where the backend has a level for it.
    quick = jax.default_backend() == "cpu" and not fast
    with _CHANGED:
        _COMPILING += 1
    try:
        return program.lower(*args).compile({"xla_backend_optimization_level": 0} if quick else {})
    finally:
        with _CHANGED:
            _COMPILING -= 1
            _CHANGED.notify_all()


@kept(256)
def _executable(*asked) -> Once:
    return Once(lambda: _compile(*asked))


def executable(program: Callable, *args, fast: bool = True) -> Callable:
    """`program`, compiled for these arguments: quick to run, or (not `fast`) quick to compile."""
    leaves, tree = jax.tree.flatten(args)
    placed = [isinstance(x, jax.ShapeDtypeStruct) or getattr(x, "committed", False) for x in leaves]
    shapes = tuple(
        (np.shape(x), x.dtype, x.sharding if at else None) for x, at in zip(leaves, placed, strict=True)
    )
    with _CHANGED:
        once = _executable(program, fast, tree, shapes)
    return once()
