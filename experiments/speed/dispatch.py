"""Timing what an accelerator does later: programs are compiled side by side, and short ones started often."""

import concurrent.futures
import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments.lab import timing
from experiments.lab.timing import Case

AT_ONCE = max(1, (os.cpu_count() or 1) - 4)  # programs that are compiled at the same time
LEAST_MS = 4.0  # of a timed run


@dataclasses.dataclass
class Many:
    """A run of something that an accelerator does later: started so many times, then waited for.

    start: starts it; its result is what `wait` takes.
    """

    start: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    times: int = 1

    def __call__(self) -> None:
        for _ in range(self.times):
            out = self.start()
        self.wait(out)

    def lengthened(self, least_ms: float) -> "Many":
        """Of as many starts as take so long."""
        start = time.perf_counter()
        self()
        ms = 1e3 * (time.perf_counter() - start) / self.times
        return dataclasses.replace(self, times=max(1, math.ceil(least_ms / ms)))


def interleaved(cases: list[Case], repeats: int, tell: Callable[[str], None] = lambda what: None):
    """`timing.interleaved` of cases that make a `Many`; `compile_s` is with others beside it."""

    def built(case):
        tell(" ".join(map(str, case.labels.values())))
        start = time.perf_counter()
        try:
            run = case.make()
            run()
        except Exception as error:  # told by `timing.interleaved`
            return error, 0.0
        return run, time.perf_counter() - start

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        made = list(threads.map(built, cases))

    def ready(case, run):
        if isinstance(run, Exception):

            def fail():
                raise run

            return case._replace(make=fail)
        run = run.lengthened(LEAST_MS)
        return case._replace(make=lambda: run, units=run.times)

    rows = timing.interleaved([ready(case, run) for case, (run, _) in zip(cases, made, strict=True)], repeats)
    return [row | {"compile_s": seconds} for row, (_, seconds) in zip(rows, made, strict=True)]


def bounds(repeats: int = 7, size: int = 8192, numbers: int = 2**28) -> dict[str, float]:
    """`timing.bounds`, at sizes that fill an accelerator: no cache of it holds so many numbers."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    x = jax.random.normal(jax.random.key(1), (numbers,))
    multiply, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    cases = [Case({}, lambda: Many(lambda: multiply(a))), Case({}, lambda: Many(lambda: copy(x)))]
    matmul, copied = interleaved(cases, repeats)
    return {
        "matmul_gflops": 2 * size**3 / matmul["ms"] / 1e6,
        "copy_gb_per_s": 2 * x.nbytes / copied["ms"] / 1e6,
    }
