"""Timing: all cases of a group in one process, in turn, compilation and warm-up apart."""

import functools
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


def bounds(repeats: int = 7, size: int = 3000) -> dict[str, float]:
    """What the machine can do: a matmul of (size, size) float32 in GFLOP/s, a copy in GB/s."""
    n = size
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
