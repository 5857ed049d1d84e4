"""How many iterations Newton's method takes, and how many steps one after the other that is."""

import functools
import itertools
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import cells
import configs
from cells.scans.newton import DENSE
from experiments.lab import probes, statistics, timing
from experiments.lab.critical_path import critical_path
from train.compile import options

WINDOWS = {0: "sqrt(T)", 1: "1 (DEER)"}
QUICK = 2000  # steps below which compiling takes longer than running
LARGEST = 2**20  # numbers in the Jacobians of a sequence up to which a method is measured


def cell_of(text, hidden_size) -> cells.Cell:
    name, options = configs.with_options(text)
    return cells.get(name, hidden_size=hidden_size, **options)


def initial(cell, seeds, time, dtype=jnp.float32, width=None):
    """Parameters and white noise of each seed, of as many features as units unless told."""
    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(0), seeds))
    width = width or cell.hidden_size
    params = jax.vmap(lambda key: cell.init(key, width, dtype))(keys[:, 0])
    return params, jax.vmap(lambda key: jax.random.normal(key, (1, time, width), dtype))(keys[:, 1])


def methods(cell, time) -> list[tuple[int, str]]:
    """Windows and Jacobians that can be measured."""
    leaves = jax.tree.leaves(cell.initial_carry(1))
    size = sum(x.shape[-1] for x in leaves)
    numbers = {"dense": size**2, "diagonal": size * len(leaves)}
    if cell.is_elementwise or size > DENSE:
        del numbers["dense"]
    return [(w, j) for w in WINDOWS for j in numbers if numbers[j] * len(spans(time, w)) <= LARGEST]


def spans(time, window) -> range:
    """The first steps of windows."""
    return range(0, time, window or int(np.ceil(np.sqrt(time))))


def depth(time, window, iterations, fallback) -> int:
    """Steps one after the other: every iteration runs a window and joins them pair by pair, up and down a
    tree; then a window is run once more, or all of time after all."""
    starts = spans(time, window)
    joins = 2 * int(np.ceil(np.log2(len(starts))))
    return iterations * (starts.step + joins) + starts.step + fallback * time


def iterations(cell, params, xs, fields) -> Iterator[dict]:
    """All methods on every seed's params and xs (seeds, 1, time, features)."""
    seeds, _, time, _ = xs.shape
    exponents = jax.device_get(_follow(cell)(params, xs))
    for window, jacobian in methods(cell, time):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "newton: the states did not converge")
            report, error = jax.device_get(_run(cell, window, jacobian, time < QUICK)(params, xs))
            jax.effects_barrier()
        for seed in range(seeds):
            did = {name: getattr(report, name)[seed].item() for name in report._fields}
            row = fields | {"cell": cells.CELLS.name_of(cell), "seed": seed, "time": time, "window": window}
            row |= {"jacobian": jacobian, "exponent": exponents[seed].item(), "error": error[seed].item()}
            yield row | did | {"depth": depth(time, window, did["iterations"], did["fallback"])}


def chains(cell, params, xs) -> Iterator[dict]:
    """The longest chain of operations of a forward run, by Newton's method with the iterations that it took,
    and step by step, on every seed's params and xs (seeds, 1, time, features)."""
    report, error = jax.device_get(_run(cell, 0, "auto", xs.shape[2] < QUICK)(params, xs))

    def chain(strategy, turns=()):
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (params, xs))
        run = lambda params, xs: cells.scan(cell, params, xs, strategy=strategy)[1]  # noqa: E731
        return critical_path(run, *one, turns=turns)

    stepwise = chain("sequential")
    for seed, (count, fell) in enumerate(zip(report.iterations, report.fallback, strict=True)):
        row = {"seed": seed, "time": xs.shape[2], "iterations": int(count), "fallback": bool(fell)}
        row |= {"error": float(error[seed]), "newton": chain("newton", (int(count), int(fell)))}
        yield row | {"stepwise": stepwise}


@functools.cache
def _run(cell, window, jacobian, quick):
    """Compiled: what a run reports, and its largest error against a sequential one, of each seed."""

    def run(params, xs):
        newton = cells.Newton(window=window, jacobian=jacobian, iterations=100 * (window == 1))
        *got, report = cells.scan(cell, params, xs, strategy=newton, report=True)
        return report, _error(got[1], cells.scan(cell, params, xs, strategy="sequential")[1])

    return jax.jit(jax.vmap(run), compiler_options=options("once") if quick else None)


@functools.cache
def _follow(cell):
    """Compiled: the largest Lyapunov exponent per step of each seed."""
    return jax.jit(jax.vmap(functools.partial(probes.largest_exponent, cell)))


def _error(got, want):
    """The largest difference of two trees, over the largest entry (some arrays have no gradient)."""
    got, want = (jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) for tree in (got, want))
    return jnp.abs(got - want).max() / jnp.abs(want).max()


def errors(text, time, seeds, hidden_size) -> Iterator[dict]:
    """Against a sequential run: of outputs, and of the gradients of their mean square, in both precisions."""
    cell = cell_of(text, hidden_size)
    for bits in (32, 64):
        with jax.enable_x64(bits == 64):

            def run(strategy, params, xs):
                def loss(params, xs):
                    _, ys, report = cells.scan(cell, params, xs, strategy=strategy, report=True)
                    return jnp.square(ys).mean(), (ys, report)

                return jax.grad(loss, (0, 1), has_aux=True)(params, xs)

            def both(params, xs):
                d_got, (got, report) = run("newton", params, xs)
                d_want, (want, _) = run("sequential", params, xs)
                return _error(got, want), _error(d_got, d_want), report

            args = initial(cell, seeds, time, jnp.dtype(f"float{bits}"))
            compared = jax.jit(jax.vmap(both), compiler_options=options("once"))
            states, gradients, report = jax.device_get(compared(*args))
        for seed in range(seeds):
            row = {"label": text, "bits": bits, "time": time, "seed": seed}
            row |= {"states": states[seed].item(), "gradients": gradients[seed].item()}
            yield row | {"iterations": int(report.iterations[seed]), "fallback": bool(report.fallback[seed])}


def usual(rows: pd.DataFrame, window: int = 0) -> pd.DataFrame:
    """Those of the Jacobian that "auto" takes: dense where there is one."""
    return rows[
        (rows["window"] == window) & (rows["jacobian"] == rows.groupby("label")["jacobian"].transform("min"))
    ]


def count_text(group: pd.DataFrame) -> str:
    """Median and maximum over seeds, and how many fell back."""
    if group.empty:
        return "–"
    fell, most = int(group["fallback"].sum()), group["iterations"].max()
    text = f"{group['iterations'].median():.0f} ({most})"
    return text + f", {fell}/{len(group)} fell back" * bool(fell)


def chain_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per time of the rows of `chains`."""
    return pd.DataFrame(
        {"steps": f"{time:,}", "iterations": count_text(group)}
        | {name: f"{group[name].median():,.0f} operations" for name in ("newton", "stepwise")}
        for time, group in rows.groupby("time")
    )


def depth_text(group: pd.DataFrame) -> str:
    """Median over seeds of the depth, over that of a sequential run."""
    return f"{100 * (group['depth'] / group['time']).median():.1f} %" if len(group) else "–"


def times(settings, time: int) -> list[dict]:
    """Newton's method and the sequential run of the cells that are timed, in turn: ms by pass and round."""
    cases, size = [], settings.timed_hidden_size
    for text, strategy in itertools.product(settings.timed, ("sequential", "newton")):
        cell = cell_of(text, size)
        xs = jax.random.normal(jax.random.key(1), (settings.batch, time, size))

        def layer(params, xs, cell=cell, strategy=strategy):
            return cells.scan(cell, params, xs, strategy=strategy)[1]

        def labels(which, text=text, strategy=strategy):
            return {"label": text, "strategy": strategy, "pass": which, "time": time}

        cases += timing.by_pass(labels, layer, cell.init(jax.random.key(0), size), xs)
    return timing.rounds(cases, settings.rounds, settings.repeats, batch=settings.batch, hidden_size=size)


# --- what is shown


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Iterations by label, stage, method and time; of trained cells only the seeds that solved the task."""
    if "solved" in rows:
        rows = rows[(rows["stage"] != "trained") | (rows["solved"].astype(str) == "True")]
    found, times = [], sorted(rows["time"].unique())
    by = ["label", "stage", "window", "jacobian"]
    for (label, stage, window, jacobian), group in rows.groupby(by, sort=False):
        row = {"cell": label, "stage": stage, "seeds": group["seed"].nunique(), "window": WINDOWS[window]}
        row["Jacobian"] = jacobian
        row |= {f"T = {time:,}": count_text(group[group["time"] == time]) for time in times}
        found.append(row | {"depth / T": depth_text(group[group["time"] == times[-1]])})
    return pd.DataFrame(found)


def dial_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Exponent, iterations and depth by size of recurrent weights and time."""
    found, dials = [], rows[rows["stage"] == "dial"].groupby(["label", "dial", "time"], sort=False)
    for (label, dial, time), group in dials:
        row = {"cell": label, "weights": dial, "T": f"{time:,}"}
        row["exponent"] = f"{statistics.mean(group.drop_duplicates('seed')['exponent']):+.3f}"
        for window, words in WINDOWS.items():
            part = usual(group, window)
            row |= {f"windows {words}": count_text(part), f"depth / T, {words}": depth_text(part)}
        found.append(row)
    return pd.DataFrame(found)


def error_table(errors: pd.DataFrame) -> pd.DataFrame:
    """The largest errors by label and precision."""
    return pd.DataFrame(
        {"cell": label, "precision": f"float{bits}", "fell back": f"{group['fallback'].sum()}/{len(group)}"}
        | {name: f"{group[name].max():.0e}" for name in ("states", "gradients")}
        for (label, bits), group in errors.groupby(["label", "bits"], sort=False)
    )


def time_table(time: pd.DataFrame) -> pd.DataFrame:
    """ms and their ratio by label, pass and time."""
    found, middle = [], time.groupby(["label", "pass", "time", "strategy"])["ms"].median()
    for (label, how, length), of in timing.ratios(time, "newton", "sequential").items():
        row = {"cell": label, "pass": how, "T": f"{length:,}", "newton / sequential": f"{of:.2f}"}
        ms = {f"{s}, ms": f"{middle[label, how, length, s]:.3g}" for s in ("sequential", "newton")}
        found.append(row | ms)
    return pd.DataFrame(found)
