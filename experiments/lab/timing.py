"""Timing: all cases of a group in one process, in turn, compilation and warm-up apart."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Case(NamedTuple):
    """Something to time.

    labels: columns of its row.
    make: () -> run, or a list of such runs: settings of which the fastest counts; a run returns when all
      it started has ended.
    units: what one run does, for times per unit.
    """

    labels: dict
    make: Callable[[], Any]
    units: int = 1


def interleaved(
    cases: list[Case], repeats: int, tell: Callable[[str], None] = lambda what: None
) -> list[dict]:
    """Times every case `repeats` times, in turn.

    Returns:
      A row for each case: its labels, `ms` per unit (median), `ms_q25`, `ms_q75`, `compile_s` (building,
      compiling and the first run), `repeats`, and `error` where it failed.
    """
    rows, runs = [], []
    for case in cases:
        tell(" ".join(map(str, case.labels.values())))
        start = time.perf_counter()
        row = dict(case.labels)
        try:
            made = case.make()
            run = (
                made
                if callable(made)
                else min(made, key=lambda run: np.median([_once(run) for _ in range(3)]))
            )
            run()
            row["compile_s"] = time.perf_counter() - start
            run()
        except Exception as error:  # one case that cannot run must not cost the others
            run, row["error"] = None, f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
        rows.append(row)
        runs.append(run)
    times = [[] for _ in cases]
    for _ in range(repeats):
        for run, seconds in zip(runs, times, strict=True):
            if run:
                seconds.append(_once(run))
    for case, row, seconds in zip(cases, rows, times, strict=True):
        if seconds:
            middle, low, high = 1e3 * np.quantile(seconds, [0.5, 0.25, 0.75]) / case.units
            row |= {"ms": middle, "ms_q25": low, "ms_q75": high, "repeats": repeats}
    return rows


def _once(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bounds(repeats: int = 7) -> dict[str, float]:
    """What the machine can do: a matmul of (3000, 3000) float32 in GFLOP/s, a copy in GB/s."""
    n = 3000
    a = jax.random.normal(jax.random.key(0), (n, n))
    x = jnp.zeros(16 * 1024 * 1024)
    multiply, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    cases = [
        Case({}, lambda: lambda: multiply(a).block_until_ready()),
        Case({}, lambda: lambda: copy(x).block_until_ready()),
    ]
    matmul, copied = interleaved(cases, repeats)
    return {
        "matmul_gflops": 2 * n**3 / matmul["ms"] / 1e6,
        "copy_gb_per_s": 2 * x.nbytes / copied["ms"] / 1e6,
    }
