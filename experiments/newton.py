"""Nonlinear cells in parallel over time by Newton's method: when it converges, how fast, at what cost.

  python -m experiments.newton
  python -m experiments.newton --cells=gru,lstm:forget_bias=2 --config.times=256,4096
  python -m experiments.newton --config.feedback=1,2,3,4,6 --config.scales=1,8

Iterations of `strategy="newton"` by cell and length: from guesses at the starts of windows of sqrt(T) steps,
or of single steps (DEER), by whole Jacobians or their diagonals (quasi), at the authors' initialisation on
white noise, and on delayed recall before and after training on a short gap. Then with ever larger recurrent
weights, into chaos: where the largest Lyapunov exponent is above 0 a wrong start grows, and where a state can
stay in more than one place it may stay in the wrong one; no window forgets either. What counts on a machine
without end is the depth, the steps that go one after the other; measured time also has the work: an iteration
is a run of the cell and of its tangents.
"""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

import cells
import configs
from cells.scans.newton import DENSE
from experiments.lab import experiment, probes, runs, statistics, style, timing
from experiments.lab.experiment import Claim, Experiment, Verdict

CLAIMS = {"newton": Claim("A nonlinear cell runs in parallel over time by Newton's method", "newton")}
SHARE = 0.25  # of the steps of a sequential run: a depth below it counts as parallel
MORE = 1  # iterations at the longest time beyond those at the shortest: they count as not growing with time
QUICK = 2000  # steps below which compiling takes longer than running
LARGEST = 2**20  # numbers in the Jacobians of a sequence up to which a method is measured
WINDOWS = {0: "sqrt(T)", 1: "1 (DEER)"}
STAGES = {"initial": "initial, noise", "untrained": "initial, task", "trained": "trained"}


def eligible() -> list[str]:
    """The cells that have the strategy."""
    return [name for name in cells.names() if "newton" in cells.strategies(probes.default(name))]


@dataclasses.dataclass(frozen=True)
class Settings:
    cells: tuple = tuple(eligible())
    seeds: int = 5
    hidden_size: int = 8
    times: tuple = (64, 512, 16384)
    trained: tuple = ("rnn", "gru", "sru_feedback")
    gap: int = 10  # of delayed recall, that they are trained on
    steps: int = 1500
    feedback: tuple = (0.5, 1.0, 1.7, 2.5, 4.0, 8.0)  # |v| of sru_feedback
    scales: tuple = (1.0, 2.0, 4.0)  # of the RNN's orthogonal matrix
    sized: int = 16  # hidden size of those two
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
        gap=2, steps=20, feedback=(1.0, 6.0), scales=(1.0,), sized=4, error_time=20, timed=("sru_feedback",),
        timed_lengths=(30,), timed_hidden_size=4, batch=2, rounds=2, repeats=1,
    ),
    "fast": Settings(),
    "full": Settings(
        seeds=10, times=(64, 256, 1024, 4096, 16384, 65536), trained=tuple(eligible()), gap=30, steps=3000,
        feedback=(0.5, 1.0, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0), scales=(1.0, 1.5, 2.0, 3.0, 4.0, 8.0),
        error_time=4096, timed=tuple(eligible()), timed_lengths=(512, 4096, 16384), rounds=15, repeats=5,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`iterations`: by label, stage, dial (a size of recurrent weights), method, time and seed, with the
    exponent and depth; `errors`: against a sequential run, gradients too; `time`: ms by round."""
    shared = {name: getattr(settings, name) for name in ("seeds", "hidden_size", "times")}
    dials = (("sru_feedback", "|v|", settings.feedback), ("rnn", "U x", settings.scales))
    rows, errors, times = [], [], []
    for text in settings.cells:
        start = functools.partial(_start, settings, text)
        rows += lab.do(f"start-{runs.file_name(text)}", shared, lambda start=start: [*start()])
    for text, dial, values in dials:
        fields = shared | {"values": values, "hidden_size": settings.sized}
        dialled = functools.partial(_dial, settings, text, dial, values)
        rows += lab.do(f"dial-{text}", fields, lambda dialled=dialled: [*dialled()])
    lab.console.print("initial cells are measured")
    for text in settings.trained:
        config = runs.config(
            text, "delayed_recall",
            cell={"hidden_size": settings.hidden_size}, model={"embedding_size": settings.hidden_size},
            task={"gap": settings.gap}, optim={"learning_rate": 0.01},
            train={"steps": settings.steps, "seeds": settings.seeds, "eval_every": 50},
        )  # fmt: skip
        name = f"train-{runs.file_name(text)}"
        rows += lab.train(name, config, lambda result: [*_probe(settings, result)], shared)
    for text in settings.cells:
        fields = {"time": settings.error_time, "seeds": settings.seeds, "hidden_size": settings.hidden_size}
        errors += lab.do(
            f"errors-{runs.file_name(text)}", fields, lambda text=text: [*_errors(settings, text)]
        )
    names = ("timed", "timed_hidden_size", "batch", "rounds", "repeats")
    fields = {name: getattr(settings, name) for name in names} | {"backend": jax.default_backend()}
    for time in settings.timed_lengths:
        times += lab.do(f"time-{time}", fields, lambda time=time: _times(settings, time))
    return {"iterations": pd.DataFrame(rows), "errors": pd.DataFrame(errors), "time": pd.DataFrame(times)}


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
    told = {"label": text, "stage": "initial", "dial": "-"}
    for time in settings.times:
        yield from _iterations(cell, *_initial(cell, settings.seeds, time), told)


def _dial(settings, text, dial, values) -> Iterator[dict]:
    """Recurrent weights of another size: an SRU's v of one absolute value, a multiple of an RNN's matrix."""
    cell = _cell(text, settings.sized)
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
    config, spec = result.run.config, result.run.spec
    solved = sum(seed["solved"] for seed in runs.seeds(result))
    for stage, params in (("untrained", runs.initial(result)), ("trained", runs.trained(result))):
        fields = {"label": config.label, "stage": stage, "dial": "-", "solved": solved}
        for time in settings.times:
            task = dataclasses.replace(config.task, gap=time - 2, max_gap=0)
            tokens = task.eval_batch({}, "test", 0, 1).xs
            xs = jax.vmap(lambda params, tokens=tokens: probes.embedded(spec, params, tokens))(params)
            yield from _iterations(config.cell, probes.layer_params(params), xs, fields)


def methods(cell, time) -> list[tuple[int, str]]:
    """Windows and Jacobians that can be measured."""
    leaves = jax.tree.leaves(cell.initial_carry(1))
    size = sum(x.shape[-1] for x in leaves)
    numbers = {"dense": size**2, "diagonal": size * len(leaves)}
    if cell.is_elementwise or size > DENSE:
        del numbers["dense"]
    return [(w, j) for w in WINDOWS for j in numbers if numbers[j] * len(_spans(time, w)) <= LARGEST]


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
        how = cells.Newton(window=window, jacobian=jacobian, iterations=100 * (window == 1))
        *got, report = cells.scan(cell, params, xs, strategy="newton", newton=how, report=True)
        return report, _error(got[1], cells.scan(cell, params, xs, strategy="sequential")[1])

    return jax.jit(jax.vmap(run), compiler_options={"xla_backend_optimization_level": 0} if quick else None)


@functools.cache
def _follow(cell):
    """Compiled: the largest Lyapunov exponent per step of each seed."""
    return jax.jit(jax.vmap(functools.partial(probes.largest_exponent, cell)))


def _error(got, want):
    """The largest difference of two trees, over the largest entry (some arrays have no gradient)."""
    got, want = (jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) for tree in (got, want))
    return jnp.abs(got - want).max() / jnp.abs(want).max()


def _errors(settings, text) -> Iterator[dict]:
    """Of outputs, and of the gradients of their mean square, in both precisions."""
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


def _times(settings, time) -> list[dict]:
    """Both strategies in turn."""
    cases, size = [], settings.timed_hidden_size
    for text, strategy in itertools.product(settings.timed, ("sequential", "newton")):
        cell = _cell(text, size)
        xs = jax.random.normal(jax.random.key(1), (settings.batch, time, size))

        def layer(params, xs, cell=cell, strategy=strategy):
            return cells.scan(cell, params, xs, strategy=strategy)[1]

        def labels(which, text=text, strategy=strategy):
            return {"label": text, "strategy": strategy, "pass": which, "time": time}

        cases += timing.by_pass(labels, layer, cell.init(jax.random.key(0), size), xs)
    return timing.rounds(cases, settings.rounds, settings.repeats, batch=settings.batch, hidden_size=size)


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """`newton`, by `judged`. Holds: every cell passes at every stage, and with recurrent weights of every
    size. Does not hold here: less than half of the cells pass at initialisation. Else in part.
    """
    rows, parts = frames["iterations"], []
    found = judged(rows)
    for stage, words in (("initial", "At initialisation"), ("trained", "After training")):
        part = found[found["stage"] == stage]
        if len(part):
            counts = ", ".join(f"{row.label} {row.iterations}" for row in part.itertuples())
            parts.append(
                f"{words} {part['passes'].sum()} of {len(part)} cells converge at every length up to "
                f"{rows['time'].max():,} steps in counts that do not grow ({counts} iterations at most); "
                f"depth at most {100 * part['depth'].max():.1f} % of a sequential run's{_failed(part)}"
            )
    sized = found[found["stage"] == "dial"]
    for part, words in (
        (sized[sized["exponent"] <= 0], "up to 0"),
        (sized[sized["exponent"] > 0], "above 0"),
    ):
        told = f"{part['passes'].sum()} of {len(part)} pass{_failed(part)}" if len(part) else "none was there"
        parts.append(f"Of sizes of recurrent weights with a largest Lyapunov exponent {words}, {told}")
    worst = frames["errors"].groupby("bits")[["states", "gradients"]].max()
    told = (f"float{bits} {row['states']:.0e} and {row['gradients']:.0e}" for bits, row in worst.iterrows())
    parts.append(f"Largest relative error of outputs and gradients: {', '.join(told)}")
    told = (f"{label} {how} {of:.2f}" for (label, how, _), of in ratios(frames["time"]).items())
    longest = f"{frames['time']['time'].max():,} steps"
    parts.append(
        f"Time over a sequential run's ({timing.machine(frames['time'])}, {longest}): {', '.join(told)}"
    )
    few = 2 * found[found["stage"] == "initial"]["passes"].sum() < (found["stage"] == "initial").sum()
    verdict = "does not hold here" if few else "holds" if found["passes"].all() else "holds in part"
    return {"newton": Verdict(verdict, ". ".join(parts) + ".")}


def _failed(part: pd.DataFrame) -> str:
    """What does not pass, and why."""
    told = []
    for row in part[~part["passes"]].to_dict("records"):
        why = ["counts grow"] * row["growing"] + [f"{row['fallbacks']} fell back"] * (row["fallbacks"] > 0)
        why += [f"depth {100 * row['depth']:.0f} %"] * (row["depth"] > SHARE)
        name = row["label"] if row["dial"] == "-" else f"{row['label']} {row['dial']}"
        told.append(f"{name} ({', '.join(why)}; exponent {row['exponent']:+.2f})")
    return f"; not {', '.join(told)}" if told else ""


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per label, stage and dial, of `cells.Newton()` as it is.

    `depth`: over that of a sequential run, at the longest time, of the worst seed. `growing`: the median
    count at the longest time is more than MORE above that at the shortest. `passes`: no seed fell back at any
    length, the count does not grow, and the depth is at most SHARE.
    """
    found = []
    for (label, stage, dial), group in _usual(rows).groupby(["label", "stage", "dial"], sort=False):
        by = {time: part for time, part in group.groupby("time")}
        first, last = by[min(by)], by[max(by)]
        growth = last["iterations"].median() - first["iterations"].median()
        row = {"label": label, "stage": stage, "dial": dial, "iterations": group["iterations"].max()}
        row |= {"exponent": last["exponent"].median(), "depth": (last["depth"] / max(by)).max()}
        row |= {"growing": growth > MORE, "fallbacks": int(group["fallback"].sum())}
        found.append(row | {"passes": not (row["growing"] or row["fallbacks"]) and row["depth"] <= SHARE})
    return pd.DataFrame(found)


def _usual(rows: pd.DataFrame, window: int = 0) -> pd.DataFrame:
    """Those of the Jacobian that "auto" takes: dense where there is one."""
    return rows[
        (rows["window"] == window) & (rows["jacobian"] == rows.groupby("label")["jacobian"].transform("min"))
    ]


def ratios(time: pd.DataFrame) -> dict:
    """Newton's time over the sequential one's, an Estimate over rounds, by (label, pass, time)."""
    by = time.pivot(index=["label", "pass", "time", "round"], columns="strategy", values="ms")
    of = (by["newton"] / by["sequential"]).groupby(level=[0, 1, 2], sort=False)
    return {key: statistics.median(values) for key, values in of}


# --- what is shown


def _count(group: pd.DataFrame) -> str:
    """Median and maximum over seeds, and how many fell back."""
    if group.empty:
        return "–"
    fell, most = int(group["fallback"].sum()), group["iterations"].max()
    told = f"{group['iterations'].median():.0f} ({most})"
    return told + f", {fell}/{len(group)} fell back" * bool(fell)


def _depth(group: pd.DataFrame) -> str:
    return f"{100 * (group['depth'] / group['time']).median():.1f} %" if len(group) else "–"


def tables(frames) -> dict[str, pd.DataFrame]:
    """Iterations by method and time; into chaos; errors; time."""
    rows, counts, chaos, ms = frames["iterations"], [], [], []
    times, by = sorted(rows["time"].unique()), ["label", "stage", "window", "jacobian"]
    for (label, stage, window, jacobian), group in rows[rows["stage"] != "dial"].groupby(by, sort=False):
        row = {"cell": label, "stage": stage, "window": WINDOWS[window], "Jacobian": jacobian}
        row |= {f"T = {time:,}": _count(group[group["time"] == time]) for time in times}
        counts.append(row | {"depth / T": _depth(group[group["time"] == times[-1]])})
    by = ["label", "dial", "time"]
    for (label, dial, time), group in rows[rows["stage"] == "dial"].groupby(by, sort=False):
        row = {"cell": label, "weights": dial, "T": f"{time:,}"}
        row["exponent"] = f"{statistics.median(group.drop_duplicates('seed')['exponent']):+.3f}"
        for window, words in WINDOWS.items():
            part = _usual(group, window)
            row |= {f"windows {words}": _count(part), f"depth / T, {words}": _depth(part)}
        chaos.append(row)
    errors = pd.DataFrame(
        {"cell": label, "precision": f"float{bits}", "fell back": f"{group['fallback'].sum()}/{len(group)}"}
        | {name: f"{group[name].max():.0e}" for name in ("states", "gradients")}
        for (label, bits), group in frames["errors"].groupby(["label", "bits"], sort=False)
    )
    middle = frames["time"].groupby(["label", "pass", "time", "strategy"])["ms"].median()
    for (label, how, time), of in ratios(frames["time"]).items():
        row = {"cell": label, "pass": how, "T": f"{time:,}", "newton / sequential": f"{of:.2f}"}
        ms.append(row | {f"{s}, ms": f"{middle[label, how, time, s]:.3g}" for s in ("sequential", "newton")})
    return {
        "Iterations: median (most) over seeds; depth at the longest time, over sequential": pd.DataFrame(
            counts
        ),
        "Into chaos: largest Lyapunov exponent per step above 0": pd.DataFrame(chaos),
        f"Largest error against sequential at {frames['errors']['time'].max():,} steps, relative": errors,
        f"Measured time, {timing.machine(frames['time'])} (median of rounds [95 %])": pd.DataFrame(ms),
    }


def figures(frames) -> dict[str, Figure]:
    """`newton`: iterations against time by stage and window; `chaos`: depth against the exponent."""
    rows = frames["iterations"]
    look, stages = style.styles(rows), [name for name in STAGES if name in set(rows["stage"])]
    figure, axes = style.panels(len(WINDOWS), len(stages), (3.1, 3), sharex=True, sharey=True)
    for (line, window), (column, stage) in itertools.product(
        zip(axes, WINDOWS, strict=True), enumerate(stages)
    ):
        here = rows[(rows["stage"] == stage) & (rows["window"] == window)]
        dense = set(here[here["jacobian"] == "dense"]["label"])
        for (label, jacobian), group in here.groupby(["label", "jacobian"]):
            quasi = {"linestyle": ":", "lw": 1} if jacobian == "diagonal" and label in dense else {}
            style.line(line[column], group, "time", "iterations", look[label] | quasi)
        style.lengths(line[column], rows["time"])
        style.title(line[column], f"{STAGES[stage]}: windows {WINDOWS[window]}")
    note = f"Line: median of {rows['seed'].nunique()} seeds; band: all. Dotted: quasi, by diagonal Jacobians."
    _finish(figure, axes, "length T, steps", "iterations", look, note)
    times = sorted(rows[rows["stage"] == "dial"]["time"].unique())[-2:]
    chaos, axes = style.panels(len(times), len(WINDOWS), (4.1, 3.2), sharex=True, sharey="row")
    for (row, time), (column, window) in itertools.product(enumerate(times), enumerate(WINDOWS)):
        ax, here = axes[row, column], _usual(rows[rows["time"] == time], window)
        for (label, fell), group in here.groupby(["label", "fallback"]):
            mark = {name: look[label][name] for name in ("color", "marker")} | {"ls": "", "ms": 5}
            mark |= {"markerfacecolor": "none"} if fell else {}
            ax.plot(group["exponent"], group["depth"] / time, alpha=0.8, **mark)
        ax.axvline(0, color=style.MUTED, lw=1, ls="--")
        ax.axhline(1, color=style.MUTED, lw=1, ls=":")
        style.title(ax, f"T = {time:,}: windows {WINDOWS[window]}")
    note = "A point per cell, setting and seed. Hollow: fell back. Dotted: a sequential run."
    _finish(chaos, axes, "largest Lyapunov exponent per step", "depth / T", look, note)
    return {"newton": figure, "chaos": chaos}


def _finish(figure, axes, x, y, look, note):
    for ax in axes.flat:
        ax.set(yscale="log", xlabel="", ylabel="")
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())
        ax.label_outer()
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)
    style.legend(figure, [style.handle(label, ms=4, **look[label]) for label in sorted(look)], [note])


EXPERIMENT = Experiment(
    "When does Newton's method run a nonlinear cell in parallel over time, and at what cost?",
    CLAIMS, PRESETS, measure, judge, tables, figures, eligible,
)  # fmt: skip

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
