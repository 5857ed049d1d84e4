"""Timing: all cases of a group in one process, in turn, compilation and warm-up apart."""

import concurrent.futures
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import NamedSharding, PartitionSpec

from experiments.lab import statistics

PASSES = ("forward", "gradient")


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


def interleaved(
    cases: list[Case],
    repeats: int,
    tell: Callable[[str], None] = lambda what: None,
    at_once: int = 1,
    least_ms: float = 0.0,
    most_s: float = math.inf,
) -> list[dict]:
    """Times every case `repeats` times, in turn.

    Args:
      at_once: cases that are compiled at the same time, in threads.
      least_ms: a shorter run, if it is a `Many`, is started so often that it takes as long.
      most_s: what all timed runs of a case should take at most; there are three at least.

    Returns:
      A row for each case: its labels, `ms` per unit (median), `ms_q25`, `ms_q75`, `compile_s` (building,
      compiling and the first run), `repeats`, and `error` where it failed.
    """

    def built(case):
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
        return row, run

    if at_once == 1:
        made = list(map(built, cases))
    else:
        with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
            made = list(threads.map(built, cases))
    turns = [_turns(run, repeats, least_ms, most_s) if run else 0 for _, run in made]
    times = [[] for _ in cases]
    for turn in range(repeats):
        for (_, run), seconds, wanted in zip(made, times, turns, strict=True):
            if turn < wanted:
                seconds.append(_once(run))
    for case, (row, run), seconds in zip(cases, made, times, strict=True):
        if seconds:
            units = case.units * (run.times if isinstance(run, Many) else 1)
            middle, low, high = 1e3 * np.quantile(seconds, [0.5, 0.25, 0.75]) / units
            row |= {"ms": middle, "ms_q25": low, "ms_q75": high, "repeats": len(seconds)}
    return [row for row, _ in made]


def _turns(run, repeats: int, least_ms: float, most_s: float) -> int:
    """How often a run is timed; one that is too short is made longer."""
    if least_ms and isinstance(run, Many):
        run.times = max(1, math.ceil(least_ms / 1e3 / min(_once(run) for _ in range(2))))
    if most_s == math.inf:
        return repeats
    return min(repeats, max(3, int(most_s / _once(run))))


def _once(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rounds(cases: list[Case], number: int, repeats: int, **fields) -> list[dict]:
    """Times all cases in turn, round after round; the rows also say which round, and the machine."""
    fields |= {"backend": jax.default_backend(), "cores": os.cpu_count()}
    return [row | fields | {"round": turn} for turn in range(number) for row in interleaved(cases, repeats)]


def by_pass(labels: Callable[[str], dict], layer, params, xs) -> list[Case]:
    """A case for each pass of a layer, (params, xs) -> ys; compiled in its first round and kept."""

    def case(which):
        @functools.cache
        def make():
            d_ys = np.ones(jax.eval_shape(layer, params, xs).shape, np.float32)
            return jax_run(layer, params, xs, jax.device_put(d_ys), which, devices=1)

        return Case(labels(which), make)

    return [case(which) for which in PASSES]


def ratios(time: pd.DataFrame, one: str, other: str) -> dict:
    """The time of one strategy over another's, an Estimate over rounds, by (label, pass, time)."""
    by = time.pivot(index=["label", "pass", "time", "round"], columns="strategy", values="ms")
    of = (by[one] / by[other]).groupby(level=[0, 1, 2], sort=False)
    return {key: statistics.median(values) for key, values in of}


def table(time: pd.DataFrame) -> pd.DataFrame:
    """A line per label: ms at the longest time by pass, and the power of time that they grow with."""
    rows, longest = [], time["time"].max()
    for label, group in time.groupby("label", sort=False):
        row = {"layer": label}
        for which, of in group.groupby("pass", sort=False):
            middle = of.groupby("time")["ms"].median()
            row[f"{which}, ms"] = f"{statistics.median(of['ms'][of['time'] == longest])}"
            row[f"{which}, time ~ T^"] = f"{statistics.exponent(middle.index, middle):.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def machine(time: pd.DataFrame) -> str:
    """What the rows of `rounds` were measured on."""
    first = time.iloc[0]
    size = f", hidden size {first['hidden_size']}" * (time["hidden_size"].nunique() == 1)
    return f"{first['batch']} sequences{size}, {first['backend']}, {first['cores']} CPU cores"


def jax_run(layer, params, xs, d_ys, which, devices):
    """A compiled run of `layer`; on several devices each takes its rows of the batch."""
    program, args = program_of(layer, params, xs, d_ys, which, devices)
    return lambda: jax.block_until_ready(program(*args))


def program_of(layer, params, xs, d_ys, which, devices):
    """The jitted program and its arguments: ys, or ys and the gradients of params and xs given d_ys."""

    def forward(params, xs, d_ys):
        return layer(params, xs)

    def gradient(params, xs, d_ys):
        ys, pullback = jax.vjp(layer, params, xs)
        d_params, d_xs = pullback(d_ys)
        return ys, d_params if devices == 1 else jax.lax.psum(d_params, "batch"), d_xs

    f = gradient if which == "gradient" else forward
    if devices == 1:
        return jax.jit(f), (params, xs, d_ys)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("batch",))
    whole, rows = PartitionSpec(), PartitionSpec("batch")
    out = (rows, whole, rows) if which == "gradient" else rows
    f = jax.shard_map(f, mesh=mesh, in_specs=(whole, rows, rows), out_specs=out, check_vma=False)
    args = (
        jax.device_put(params, NamedSharding(mesh, whole)),
        *jax.device_put((xs, d_ys), NamedSharding(mesh, rows)),
    )
    return jax.jit(f), args


def bounds(repeats: int = 7, size: int = 3000, numbers: int = 16 * 1024 * 1024) -> dict[str, float]:
    """What the machine can do: a matmul of (size, size) float32 in GFLOP/s, a copy of so many in GB/s."""
    n = size
    a = jax.random.normal(jax.random.key(0), (n, n))
    x = jnp.zeros(numbers)
    multiply, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    cases = [Case({}, lambda: Many(lambda: multiply(a))), Case({}, lambda: Many(lambda: copy(x)))]
    matmul, copied = interleaved(cases, repeats, least_ms=5.0)
    return {
        "matmul_gflops": 2 * n**3 / matmul["ms"] / 1e6,
        "copy_gb_per_s": 2 * x.nbytes / copied["ms"] / 1e6,
    }
