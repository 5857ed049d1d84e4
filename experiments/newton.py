"""Nonlinear cells in parallel over time by Newton's method: when it converges, how fast, and what it costs.

  python -m experiments.newton
  python -m experiments.newton --cells=gru,lstm:forget_bias=2 --config.times=256,4096
  python -m experiments.newton --config.feedback=1,2,3,4,6 --config.scales=1,8

Iterations of `strategy="newton"` by cell and length: from guesses at the starts of windows of sqrt(T) steps, or
of single steps (DEER), by whole Jacobians or their diagonals (quasi), at the authors' initialisation on white
noise, and on delayed recall before and after training on a short gap. Then with ever larger recurrent weights,
into chaos: where the largest Lyapunov exponent is above 0, a wrong start is not forgotten but grows, and nothing
makes time parallel for long. What counts on a machine without end is the depth, the steps that go one after the
other; measured time also has the work, an iteration's being that of a run and of its tangents.
"""

import dataclasses
import functools
import os
import sys
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
import configs
from experiments import plots
from experiments.lab import probes, statistics, study
from experiments.lab.study import Verdict
from experiments.speed import layers
from experiments.speed import measure as timing

SHARE = 0.25  # of the steps of a sequential run: a depth below it counts as parallel
MORE = 1  # iterations at the longest time beyond those at the shortest: they count as not growing with time
QUICK = 2000  # steps below which compiling takes longer than running
LARGEST = 2**20  # numbers in the Jacobians of a sequence up to which a method is measured
WINDOWS = {0: "sqrt(T)", 1: "1 (DEER)"}


def eligible() -> list[str]:
    """The cells that have the strategy."""
    units = {name: cells.CELLS.cls(name).size_multiple() for name in cells.names()}
    return [n for n, unit in units.items() if "newton" in cells.strategies(cells.get(n, hidden_size=unit))]


@dataclasses.dataclass(frozen=True)
class Settings:
    cells: tuple = tuple(eligible())
    seeds: int = 5
    hidden_size: int = 8
    times: tuple = (64, 512, 16384)
    trained: tuple = ("rnn", "gru", "sru_feedback")
    gap: int = 10  # of delayed recall, that they are trained on
    steps: int = 600
    feedback: tuple = (0.5, 1.0, 1.7, 2.5, 4.0)  # |v| of sru_feedback
    scales: tuple = (1.0, 2.0, 4.0)  # of the RNN's orthogonal matrix
    error_time: int = 512
    timed: tuple = ("gru", "sru_feedback")
    timed_lengths: tuple = (4096,)
    timed_hidden_size: int = 32
    batch: int = 4  # of what is timed
    rounds: int = 5
    repeats: int = 3


PRESETS = {
    "quick": Settings(
        cells=("gru", "sru_feedback"), seeds=2, hidden_size=4, times=(8, 40), trained=("sru_feedback",),
        gap=2, steps=20, feedback=(1.0, 6.0), scales=(1.0,), error_time=20, timed=("sru_feedback",),
        timed_lengths=(30,), timed_hidden_size=4, batch=2, rounds=2, repeats=1,
    ),
    "fast": Settings(),
    "full": Settings(
        seeds=10, times=(64, 256, 1024, 4096, 16384, 65536), trained=tuple(eligible()), gap=30, steps=3000,
        feedback=(0.5, 1.0, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0), scales=(1.0, 1.5, 2.0, 3.0, 4.0, 8.0),
        error_time=4096, timed=tuple(eligible()), timed_lengths=(512, 4096, 16384), rounds=15, repeats=5,
    ),
}  # fmt: skip


# --- measuring


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`iterations`: by label, stage, dial (a size of recurrent weights), method, time and seed, with the
    exponent and depth; `errors`: against a sequential run, gradients too; `time`: ms by round."""
    shared = {name: getattr(settings, name) for name in ("seeds", "hidden_size", "times")}
    rows, errors, times = [], [], []
    for text in settings.cells:
        rows += lab.do(f"start-{_file(text)}", shared, lambda text=text: [*_start(settings, text)])
    for text, dial, values in (
        ("sru_feedback", "|v|", settings.feedback), ("rnn", "U x", settings.scales)
    ):  # fmt: skip
        told = shared | {"values": values}
        rows += lab.do(f"dial-{text}", told, lambda t=text, d=dial, v=values: [*_dial(settings, t, d, v)])
    lab.console.print("initial cells are measured")
    for text in settings.trained:
        config = study.cell_config(
            text, "delayed_recall",
            cell={"hidden_size": settings.hidden_size}, model={"embedding_size": settings.hidden_size},
            task={"gap": settings.gap}, optim={"learning_rate": 0.01}, chrono="cell",
            train={"steps": settings.steps, "seeds": settings.seeds, "eval_every": 50, "on_nan": "drop"},
        )  # fmt: skip
        rows += lab.train(f"train-{_file(text)}", config, lambda result: [*_probe(settings, result)], shared)
    for text in settings.cells:
        told = {"time": settings.error_time, "seeds": settings.seeds, "hidden_size": settings.hidden_size}
        errors += lab.do(f"errors-{_file(text)}", told, lambda text=text: [*_errors(settings, text)])
    names = ("timed", "timed_hidden_size", "batch", "rounds", "repeats")
    told = {name: getattr(settings, name) for name in names} | {"backend": jax.default_backend()}
    for time in settings.timed_lengths:
        times += lab.do(f"time-{time}", told, lambda time=time: [*_time(settings, time)])
    return {"iterations": pd.DataFrame(rows), "errors": pd.DataFrame(errors), "time": pd.DataFrame(times)}


def _file(text):
    return text.replace(":", "_")


def _cell(text, hidden_size):
    name, options = configs.with_options(text)
    return cells.get(name, hidden_size=hidden_size, **options)


def _initial(cell, seeds, time, dtype=jnp.float32):
    """Parameters and white noise of each seed."""
    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(0), seeds))
    params = jax.vmap(lambda key: cell.init(key, cell.hidden_size, dtype))(keys[:, 0])
    return params, jax.vmap(lambda key: jax.random.normal(key, (1, time, cell.hidden_size), dtype))(
        keys[:, 1]
    )


def _start(settings, text) -> Iterator[dict]:
    cell = _cell(text, settings.hidden_size)
    told = {"label": text, "stage": "initial", "dial": ""}
    for time in settings.times:
        yield from _iterations(cell, *_initial(cell, settings.seeds, time), told)


def _dial(settings, text, dial, values) -> Iterator[dict]:
    """Recurrent weights of another size: an SRU's v of one absolute value, a multiple of an RNN's matrix."""
    cell = _cell(text, settings.hidden_size)
    for time in settings.times[1:]:
        params, xs = _initial(cell, settings.seeds, time)
        for value in values:
            sized = {
                k: value * (jnp.sign(p) if p.ndim == 2 else p) for k, p in params.items() if k[0] in "vU"
            }
            told = {"label": text, "stage": "dial", "dial": f"{dial} {value:g}"}
            yield from _iterations(cell, params | sized, xs, told)


def _probe(settings, result) -> Iterator[dict]:
    """Every seed on its task over longer gaps, as initialised and as trained."""
    from train import programs

    config, spec = result.run.config, result.run.spec
    solved = sum(seed["solved"] for seed in result.summary["seeds"])
    initial = programs.initial_state(programs.make_run(config)).params
    for stage, params in (("untrained", initial), ("trained", result.state.params)):
        params = jax.device_get(params)
        told = {"label": config.label, "stage": stage, "dial": "", "solved": solved}
        for time in settings.times:
            task = dataclasses.replace(config.task, gap=time - 2, max_gap=0)
            tokens = task.eval_batch({}, "test", 0, 1).xs
            xs = jax.vmap(lambda params, tokens=tokens: probes.embedded(spec, params, tokens))(params)
            yield from _iterations(config.cell, probes.layer_params(params), xs, told)


def methods(cell, time) -> list[tuple[int, str]]:
    """Windows and Jacobians that can be measured."""
    leaves = jax.tree.leaves(cell.initial_carry(1))
    size, found = sum(x.shape[-1] for x in leaves), []
    for window in WINDOWS:
        for jacobian in ("diagonal",) if cell.is_elementwise else ("dense", "diagonal"):
            numbers = size**2 if jacobian == "dense" else size * len(leaves)
            if numbers * len(_spans(time, window)) <= LARGEST:
                found.append((window, jacobian))
    return found


def _spans(time, window) -> range:
    """The first steps of windows."""
    return range(0, time, window or int(np.ceil(np.sqrt(time))))


def depth(time, window, iterations, fallback) -> int:
    """Steps one after the other: every iteration runs a window and joins them pair by pair, up and down a
    tree; then a window is run once more, or all of time after all."""
    spans = _spans(time, window)
    return iterations * (spans.step + 2 * int(np.ceil(np.log2(len(spans))))) + spans.step + fallback * time


def _iterations(cell, params, xs, told) -> Iterator[dict]:
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
            row = told | {"cell": cells.CELLS.name_of(cell), "seed": seed, "time": time, "window": window}
            row |= {"jacobian": jacobian, "exponent": exponents[seed].item(), "error": error[seed].item()}
            yield row | did | {"depth": depth(time, window, did["iterations"], did["fallback"])}


@functools.cache
def _run(cell, window, jacobian, quick):
    """Compiled: what a run reports, and its largest error against a sequential one, of each seed."""

    def run(params, xs):
        how = cells.Newton(window=window, jacobian=jacobian)
        *got, report = cells.scan(cell, params, xs, strategy="newton", newton=how, report=True)
        return report, _error(got[1], cells.scan(cell, params, xs, strategy="sequential")[1])

    return jax.jit(jax.vmap(run), compiler_options={"xla_backend_optimization_level": 0} if quick else None)


@functools.cache
def _follow(cell):
    """Compiled: the largest Lyapunov exponent per step of each seed. Where units do not see each other it is
    that of the fastest growing unit, the mean of log |dc_t / dc_{t-1}|; else one tangent is followed."""

    def follow(params, xs):
        step, start = probes.flat_step(cell, params)
        alone = cell.is_elementwise and len(start) == cell.hidden_size

        def body(carry, x):
            state, tangent = carry
            state, grown = jax.jvp(lambda state: step(state, x)[0], (state,), (tangent,))
            size = jnp.abs(grown) if alone else jnp.linalg.norm(grown)
            log = jnp.log(jnp.maximum(size, jnp.finfo(size.dtype).tiny))
            return (state, tangent if alone else grown / jnp.where(size > 0, size, 1)), log

        tangent = jnp.ones_like(start) if alone else jnp.full_like(start, len(start) ** -0.5)
        return jax.lax.scan(body, (start, tangent), xs[0])[1].mean(0).max()

    return jax.jit(jax.vmap(follow))


def _error(got, want):
    """The largest difference of two trees, over the largest entry of each array."""
    errors = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.maximum(jnp.abs(b).max(), 1e-30), got, want)
    return jnp.stack(jax.tree.leaves(errors)).max()


def _errors(settings, text) -> Iterator[dict]:
    """Of outputs, and of the gradients of their mean square, on the first seed; in both precisions."""
    cell = _cell(text, settings.hidden_size)
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

            args = _initial(cell, settings.seeds, settings.error_time, jnp.dtype(f"float{bits}"))
            quick = {"xla_backend_optimization_level": 0}
            states, gradients, report = jax.device_get(jax.jit(jax.vmap(both), compiler_options=quick)(*args))
        for seed in range(settings.seeds):
            row = {"label": text, "bits": bits, "time": settings.error_time, "seed": seed}
            row |= {"states": states[seed].item(), "gradients": gradients[seed].item()}
            yield row | {"iterations": int(report.iterations[seed]), "fallback": bool(report.fallback[seed])}


def _time(settings, time) -> Iterator[dict]:
    """Both strategies in turn, as `experiments.parallel` times layers."""
    cases, runs = [], {}
    for text in settings.timed:
        cell = _cell(text, settings.timed_hidden_size)
        shape = (settings.batch, time, cell.hidden_size)
        xs, params = jax.random.normal(jax.random.key(1), shape), cell.init(jax.random.key(0), shape[-1])
        for strategy in ("sequential", "newton"):
            for how in layers.PASSES:

                def make(cell=cell, params=params, xs=xs, strategy=strategy, how=how, key=text):
                    if (key, strategy, how) not in runs:  # compiled in the first round
                        layer = lambda params, xs: cells.scan(cell, params, xs, strategy=strategy)[1]  # noqa: E731
                        runs[key, strategy, how] = layers.jax_run(
                            layer, params, xs, jnp.ones_like(xs), how, 1
                        )
                    return runs[key, strategy, how]

                labels = {"label": text, "strategy": strategy, "pass": how, "time": time}
                cases.append(timing.Case(labels, make))
    machine = {"batch": settings.batch, "hidden_size": settings.timed_hidden_size, "cores": os.cpu_count()}
    machine["backend"] = jax.default_backend()
    for number in range(settings.rounds):
        yield from (row | machine | {"round": number} for row in timing.interleaved(cases, settings.repeats))


# --- what follows from the numbers


def _usual(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `cells.Newton()` as it is: windows, and the Jacobian that "auto" takes."""
    first = (
        rows["jacobian"].where(rows["window"] == 0).groupby([rows["label"], rows["time"]]).transform("min")
    )
    return rows[(rows["window"] == 0) & (rows["jacobian"] == first)]


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per label, stage and dial, of the usual method. `depth`: over that of a sequential run, at the
    longest time, worst of the seeds. `growing`: the median count at the longest time is more than MORE above
    that at the shortest. `passes`: no seed fell back at any length, no growth, a depth up to SHARE."""
    found = []
    for (label, cell, stage, dial), group in _usual(rows).groupby(
        ["label", "cell", "stage", "dial"], sort=False
    ):
        last = group[group["time"] == group["time"].max()]
        first = group[group["time"] == group["time"].min()]
        counts = [statistics.median(part["iterations"]).value for part in (first, last)]
        row = {"label": label, "cell": cell, "stage": stage, "dial": dial, "time": last["time"].iloc[0]}
        row |= {"iterations": last["iterations"].max(), "exponent": last["exponent"].median()}
        row |= {"depth": (last["depth"] / last["time"]).max(), "growing": counts[1] > counts[0] + MORE}
        row |= {"fallbacks": int(group["fallback"].sum()), "runs": len(group)}
        found.append(row | {"passes": not (row["growing"] or row["fallbacks"]) and row["depth"] <= SHARE})
    return pd.DataFrame(found)


def _count(group: pd.DataFrame) -> str:
    """Median and maximum over seeds, and how many fell back."""
    fell, most = int(group["fallback"].sum()), group["iterations"].max()
    told = f"{statistics.median(group['iterations']).value:.0f} ({most})"
    return told + f", {fell}/{len(group)} fell back" * bool(fell)


def tables(frames) -> dict[str, pd.DataFrame]:
    """Iterations by method and time; the same against the exponent; errors; time."""
    rows, shown = frames["iterations"].assign(dial=frames["iterations"]["dial"].fillna("")), []
    longest = rows["time"].max()
    for (label, stage, window, jacobian), group in rows[rows["stage"] != "dial"].groupby(
        ["label", "stage", "window", "jacobian"], sort=False
    ):
        row = {"cell": label, "stage": stage, "window": WINDOWS[window], "Jacobian": jacobian}
        row |= {f"T = {t:,}": "–" for t in sorted(rows["time"].unique())}
        row |= {f"T = {t:,}": _count(part) for t, part in group.groupby("time")}
        last = group[group["time"] == longest]
        shares = 100 * last["depth"] / longest
        shown.append(row | {"depth / T": f"{shares.median():.1f} %" if len(last) else "–"})
    made = {"Iterations, median (most) over seeds; depth at the longest time": pd.DataFrame(shown)}
    shown = []
    for (label, dial, time), group in rows[rows["stage"] == "dial"].groupby(
        ["label", "dial", "time"], sort=False
    ):
        row = {"cell": label, "weights": dial, "T": f"{time:,}"}
        row["exponent per step"] = f"{statistics.median(group.drop_duplicates('seed')['exponent']):+.3f}"
        for window, words in WINDOWS.items():
            part = group[(group["window"] == window) & (group["jacobian"] == group["jacobian"].min())]
            row[f"windows of {words}"] = _count(part) if len(part) else "–"
            row[f"{words}: depth / T"] = (
                f"{100 * (part['depth'] / time).median():.0f} %" if len(part) else "–"
            )
        shown.append(row)
    made["Iterations into chaos (largest Lyapunov exponent above 0)"] = pd.DataFrame(shown)
    made["Largest error against a sequential run, relative to the largest entry"] = pd.DataFrame(
        {
            "cell": label, "precision": f"float{bits}", "outputs": f"{group['states'].max():.0e}",
            "gradients": f"{group['gradients'].max():.0e}", "fell back": f"{group['fallback'].sum()}/{len(group)}",
        }
        for (label, bits), group in frames["errors"].groupby(["label", "bits"], sort=False)
    )  # fmt: skip
    shown = []
    for (label, how, time), of in ratios(frames["time"]).items():
        ms = (
            frames["time"]
            .query("label == @label and `pass` == @how and time == @time")
            .groupby("strategy")["ms"]
        )
        row = {"cell": label, "pass": how, "T": f"{time:,}"}
        row |= {f"{strategy}, ms": f"{ms.median()[strategy]:.3g}" for strategy in ("sequential", "newton")}
        shown.append(row | {"newton / sequential": f"{of:.2f}"})
    machine = _machine(frames["time"])
    return made | {f"Measured time, {machine} (median of rounds [95 %])": pd.DataFrame(shown)}


def ratios(time: pd.DataFrame) -> dict:
    """Newton's time over the sequential one's, an Estimate over rounds, by (label, pass, time)."""
    found = {}
    for key, group in time.groupby(["label", "pass", "time"], sort=False):
        wide = group.pivot(index="round", columns="strategy", values="ms")
        found[key] = statistics.median(wide["newton"] / wide["sequential"])
    return found


def _machine(time):
    first = time.iloc[0]
    told = f"{first['batch']} sequences, hidden size {first['hidden_size']}, {first['backend']}"
    return f"{told}, {first['cores']} CPU cores"


def figures(frames) -> dict[str, Figure]:
    """`newton`: iterations against time by stage and window; `chaos`: depth against the exponent."""
    rows = frames["iterations"]
    look, seeds = plots.styles(rows), rows["seed"].nunique()
    stages = [s for s in ("initial", "untrained", "trained") if s in set(rows["stage"])]
    titles = {"initial": "initial, white noise", "untrained": "initial, on the task", "trained": "trained"}
    figure = Figure(figsize=(3.1 * len(stages) + 0.6, 6.4), layout="constrained")
    axes = figure.subplots(len(WINDOWS), len(stages), sharex=True, sharey=True, squeeze=False)
    for line, window in zip(axes, WINDOWS, strict=True):
        for ax, stage in zip(line, stages, strict=True):
            here = rows[(rows["stage"] == stage) & (rows["window"] == window)]
            for (label, jacobian), group in here.groupby(["label", "jacobian"]):
                by = group.groupby("time")["iterations"]
                # Thin: quasi.
                quasi = jacobian == "diagonal" and "dense" in set(here[here["label"] == label]["jacobian"])
                style = look[label] | {"ls": ":" if quasi else "-", "lw": 1 if quasi else 1.6}
                style.pop("linestyle", None)
                ax.plot(by.median().index, by.median(), ms=4, **style)
                ax.fill_between(by.min().index, by.min(), by.max(), color=style["color"], alpha=0.12, lw=0)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.yaxis.set_major_formatter("{x:,.0f}")
            ax.set_title(f"{titles[stage]}; windows of {WINDOWS[window]}", loc="left", fontsize=8)
    note = (
        f"Line: median of {seeds} seeds; band: all. Dotted: diagonal (quasi) Jacobians of cells that are not."
    )
    _finish(figure, axes, "length T, steps", "iterations", look, note)
    chaos = Figure(figsize=(8.5, 4.2), layout="constrained")
    axes = chaos.subplots(1, len(WINDOWS), sharex=True, sharey=True, squeeze=False)
    for ax, window in zip(axes[0], WINDOWS, strict=True):
        here = rows[(rows["window"] == window) & (rows["time"] == rows["time"].max())]
        exact = here["jacobian"] == here.groupby("label")["jacobian"].transform("min")
        for (label, fell), group in here[exact].groupby(["label", "fallback"]):
            filled = {"facecolor": "none"} if fell else {}
            colour, marker = look[label]["color"], look[label]["marker"]
            shares = group["depth"] / group["time"]
            ax.scatter(group["exponent"], shares, s=18, color=colour, marker=marker, alpha=0.8, **filled)
        ax.axvline(0, color=plots.MUTED, lw=1, ls="--")
        ax.axhline(1, color=plots.MUTED, lw=1, ls=":")
        ax.set_yscale("log")
        ax.set_title(f"windows of {WINDOWS[window]}", loc="left", fontsize=10)
    note = f"A point per cell, setting and seed at T = {rows['time'].max():,}. Hollow: fell back. Dotted: sequential."
    _finish(chaos, axes, "largest Lyapunov exponent per step", "depth / T", look, note)
    return {"newton": figure, "chaos": chaos}


def _finish(figure, axes, x, y, look, note):
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)
    handles = [axes.flat[0].plot([], [], label=label, ms=4, **look[label])[0] for label in sorted(look)]
    plots.legend(figure, handles, [note])


def verdicts(frames) -> dict[str, Verdict]:
    """`newton`, by `judged`, of `cells.Newton()` as it is. Holds: every cell passes at every stage, and with
    recurrent weights of every size. Does not hold here: less than half of the cells pass at initialisation.
    Else in part.
    """
    found = judged(frames["iterations"].assign(dial=frames["iterations"]["dial"].fillna("")))
    initial, dialled = found[found["stage"] == "initial"], found[found["stage"] == "dial"]
    if initial.empty:
        return {"newton": Verdict("not tested here", "no cell that has the strategy")}
    trained, longest = found[found["stage"] == "trained"], found["time"].max()
    told = []
    for part, words in ((initial, "at initialisation"), (trained, "after training")):
        if len(part):
            worst, failed = part["depth"].max(), part[~part["passes"]]["label"].tolist()
            told.append(
                f"{words} {part['passes'].sum()} of {len(part)} cells converge at any length up to "
                f"{longest:,} steps without growing counts ({_each(part)} iterations at most; depth at most "
                f"{100 * worst:.1f} % of the steps){'; not ' + ', '.join(failed) if failed else ''}"
            )
    failed = dialled[~dialled["passes"]]
    if len(dialled):
        calm, wild = dialled[dialled["exponent"] <= 0], dialled[dialled["exponent"] > 0]
        told.append(
            f"of {len(dialled)} sizes of recurrent weights {calm['passes'].sum()} of {len(calm)} with a largest "
            f"Lyapunov exponent up to 0 pass, of the chaotic ones {wild['passes'].sum()} of {len(wild)}"
        )
        if len(failed):
            sizes = (f"{r.label} {r.dial} ({r.exponent:+.2f})" for r in failed.itertuples())
            told[-1] += f"; not (exponent) {', '.join(sizes)}"
    errors = frames["errors"].groupby("bits")[["states", "gradients"]].max()
    told.append(
        "largest errors of outputs and gradients: "
        + ", ".join(
            f"float{bits} {e['states']:.0e} and {e['gradients']:.0e}" for bits, e in errors.iterrows()
        )
    )
    shares = (
        f"{label} {how} {of:.2f} (T = {time:,})" for (label, how, time), of in ratios(frames["time"]).items()
    )
    told.append(f"time over a sequential run's ({_machine(frames['time'])}): {', '.join(shares)}")
    few = 2 * initial["passes"].sum() < len(initial)
    verdict = "does not hold here" if few else "holds" if found["passes"].all() else "holds in part"
    return {"newton": Verdict(verdict, "; ".join(told).capitalize()[:1] + "; ".join(told)[1:] + ".")}


def _each(part: pd.DataFrame) -> str:
    return ", ".join(f"{row.label} {row.iterations}" for row in part.itertuples())


if __name__ == "__main__":
    study.command(sys.modules[__name__])
