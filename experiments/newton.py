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
import itertools
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import convergence, experiment, probes, protocol, runs, statistics, style, timing
from experiments.lab.convergence import WINDOWS, count_text, depth_text, usual
from experiments.lab.experiment import Claim, Experiment, Verdict

CLAIMS = {"newton": Claim("A nonlinear cell runs in parallel over time by Newton's method", "newton")}
SHARE = 0.25  # of the steps of a sequential run: a depth below it counts as parallel
MORE = 1  # iterations at the longest time beyond those at the shortest: they count as not growing with time
DIALS = {"sru_feedback": ("|v|", "feedback"), "rnn": ("U x", "scales")}  # sizes of weights, and the setting
STAGES = {"initial": "initial, noise", "untrained": "initial, task", "trained": "trained"}


def eligible() -> list[str]:
    """The cells that have the strategy."""
    return [name for name in cells.names() if "newton" in cells.strategies(probes.default(name))]


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
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

    least: ClassVar = {"times": 3, "error_time": 2}
    optional: ClassVar = ("feedback", "scales")

    def runs(self, ended=None):
        return {f"train-{runs.file_name(text)}": _config(self, text) for text in self.trained}

    def configs(self):
        return [_config(self, text) for text in {*self.cells, *self.trained, *self.timed}]


PRESETS = {
    "quick": Settings(
        cells=("sru_feedback",), seeds=2, hidden_size=4, times=(8, 40), trained=("sru_feedback",), gap=2,
        steps=20, feedback=(6.0,), scales=(1.0,), sized=4, error_time=20, timed=("sru_feedback",),
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
    shared = settings.of("seeds", "hidden_size", "times")
    rows, errors, times = [], [], []
    for text in settings.cells:
        rows += lab.do(f"start-{runs.file_name(text)}", shared, lambda text=text: [*_start(settings, text)])
    for text, (_, name) in DIALS.items():
        fields = shared | {"values": getattr(settings, name), "hidden_size": settings.sized}
        rows += lab.do(f"dial-{text}", fields, lambda text=text: [*_dial(settings, text)])
    for name, config in settings.runs().items():
        rows += lab.train(name, config, lambda result: [*_probe(settings, result)], shared)
    for text in settings.cells:
        fields = {"time": settings.error_time, "seeds": settings.seeds, "hidden_size": settings.hidden_size}
        compare = lambda text=text, fields=fields: [*convergence.errors(text, **fields)]  # noqa: E731
        errors += lab.do(f"errors-{runs.file_name(text)}", fields, compare)
    fields = settings.of("timed", "timed_hidden_size", "batch", "rounds", "repeats")
    fields["backend"] = jax.default_backend()
    for time in settings.timed_lengths:
        times += lab.do(f"time-{time}", fields, lambda time=time: convergence.times(settings, time))
    return {"iterations": pd.DataFrame(rows), "errors": pd.DataFrame(errors), "time": pd.DataFrame(times)}


def _config(settings, text):
    return runs.config(
        text, "delayed_recall",
        cell={"hidden_size": settings.hidden_size}, model={"embedding_size": settings.hidden_size},
        task={"gap": settings.gap}, optim={"learning_rate": 0.01},
        train={"steps": settings.steps, "seeds": settings.seeds, "eval_every": 50},
    )  # fmt: skip


def _start(settings, text) -> Iterator[dict]:
    cell = convergence.cell_of(text, settings.hidden_size)
    fields = {"label": text, "stage": "initial", "dial": "-"}
    for time in settings.times:
        yield from convergence.iterations(cell, *convergence.initial(cell, settings.seeds, time), fields)


def _dial(settings, text) -> Iterator[dict]:
    """Recurrent weights of another size: an SRU's v of one absolute value, a multiple of an RNN's matrix."""
    cell, (dial, name) = convergence.cell_of(text, settings.sized), DIALS[text]
    for time in settings.times[1:]:
        params, xs = convergence.initial(cell, settings.seeds, time)
        for value in getattr(settings, name):
            weights = {key: p for key, p in params.items() if key[0] in "vU"}
            sized = {key: value * (jnp.sign(p) if p.ndim == 2 else p) for key, p in weights.items()}
            fields = {"label": text, "stage": "dial", "dial": f"{dial} {value:g}"}
            yield from convergence.iterations(cell, params | sized, xs, fields)


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
            yield from convergence.iterations(config.cell, probes.layer_params(params), xs, fields)


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """`newton`, by `judged`. Holds: every cell passes at every stage, and with recurrent weights of every
    size. Does not hold here: less than half of the cells pass at initialisation. Else in part.
    """
    rows, parts = judged(frames["iterations"]), []
    longest = f"{frames['iterations']['time'].max():,} steps"
    for stage, words in (("initial", "At initialisation"), ("trained", "After training")):
        part = rows[rows["stage"] == stage]
        if len(part):
            counts = ", ".join(f"{row.label} {row.iterations}" for row in part.itertuples())
            parts.append(
                f"{words} {part['passes'].sum()} of {len(part)} cells converge at every length up to "
                f"{longest} in counts that do not grow ({counts} iterations at most); depth at most "
                f"{100 * part['depth'].max():.1f} % of a sequential run's{_failed(part)}"
            )
    sized = rows[rows["stage"] == "dial"]
    calm = sized["exponent"] <= 0
    for part, words in ((sized[calm], "up to 0"), (sized[~calm], "above 0")):
        text = f"{part['passes'].sum()} of {len(part)} pass{_failed(part)}" if len(part) else "none was there"
        parts.append(f"Of sizes of recurrent weights with a largest Lyapunov exponent {words}, {text}")
    worst = frames["errors"].groupby("bits")[["states", "gradients"]].max().itertuples()
    text = (f"float{bits} {states:.0e} and {gradients:.0e}" for bits, states, gradients in worst)
    parts.append(f"Largest relative error of outputs and gradients: {', '.join(text)}")
    time, ratios = frames["time"], timing.ratios(frames["time"], "newton", "sequential")
    text = ", ".join(f"{label} {which} {ratio:.2f}" for (label, which, _), ratio in ratios.items())
    where = f"{timing.machine(time)}, {time['time'].max():,} steps"
    parts.append(f"Time over a sequential run's ({where}): {text}")
    few = rows["passes"][rows["stage"] == "initial"].mean() < 0.5
    verdict = "does not hold here" if few else "holds" if rows["passes"].all() else "holds in part"
    return {"newton": Verdict(verdict, ". ".join(parts) + ".")}


def _failed(part: pd.DataFrame) -> str:
    """What does not pass, and why."""
    failed = []
    for row in part[~part["passes"]].to_dict("records"):
        why = ["counts grow"] * row["growing"] + [f"{row['fallbacks']} fell back"] * (row["fallbacks"] > 0)
        why += [f"depth {100 * row['depth']:.0f} %"] * (row["depth"] > SHARE)
        name = row["label"] if row["dial"] == "-" else f"{row['label']} {row['dial']}"
        failed.append(f"{name} ({', '.join(why)}; exponent {row['exponent']:+.2f})")
    return f"; not {', '.join(failed)}" if failed else ""


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per label, stage and dial, of `cells.Newton()` as it is.

    `depth`: over that of a sequential run, at the longest time, of the worst seed. `growing`: the median
    count at the longest time is more than MORE above that at the shortest. `passes`: no seed fell back at any
    length, the count does not grow, and the depth is at most SHARE.
    """
    found, by = [], ["label", "stage", "dial"]
    for (label, stage, dial), group in usual(rows).groupby(["label", "stage", "dial"], sort=False):
        by = {time: part for time, part in group.groupby("time")}
        first, last = by[min(by)], by[max(by)]
        growth = last["iterations"].median() - first["iterations"].median()
        row = {"label": label, "stage": stage, "dial": dial, "iterations": group["iterations"].max()}
        row |= {"exponent": last["exponent"].median(), "depth": (last["depth"] / max(by)).max()}
        row |= {"growing": growth > MORE, "fallbacks": int(group["fallback"].sum())}
        found.append(row | {"passes": not (row["growing"] or row["fallbacks"]) and row["depth"] <= SHARE})
    return pd.DataFrame(found)


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Iterations by method and time; into chaos; errors; time."""
    rows, counts, chaos, ms = frames["iterations"], [], [], []
    times, by = sorted(rows["time"].unique()), ["label", "stage", "window", "jacobian"]
    for (label, stage, window, jacobian), group in rows[rows["stage"] != "dial"].groupby(by, sort=False):
        row = {"cell": label, "stage": stage, "window": WINDOWS[window], "Jacobian": jacobian}
        row |= {f"T = {time:,}": count_text(group[group["time"] == time]) for time in times}
        counts.append(row | {"depth / T": depth_text(group[group["time"] == times[-1]])})
    dials = rows[rows["stage"] == "dial"].groupby(["label", "dial", "time"], sort=False)
    for (label, dial, time), group in dials:
        row = {"cell": label, "weights": dial, "T": f"{time:,}"}
        row["exponent"] = f"{statistics.median(group.drop_duplicates('seed')['exponent']):+.3f}"
        for window, words in WINDOWS.items():
            part = usual(group, window)
            row |= {f"windows {words}": count_text(part), f"depth / T, {words}": depth_text(part)}
        chaos.append(row)
    errors = pd.DataFrame(
        {"cell": label, "precision": f"float{bits}", "fell back": f"{group['fallback'].sum()}/{len(group)}"}
        | {name: f"{group[name].max():.0e}" for name in ("states", "gradients")}
        for (label, bits), group in frames["errors"].groupby(["label", "bits"], sort=False)
    )
    middle = frames["time"].groupby(["label", "pass", "time", "strategy"])["ms"].median()
    for (label, how, time), of in timing.ratios(frames["time"], "newton", "sequential").items():
        row = {"cell": label, "pass": how, "T": f"{time:,}", "newton / sequential": f"{of:.2f}"}
        ms.append(row | {f"{s}, ms": f"{middle[label, how, time, s]:.3g}" for s in ("sequential", "newton")})
    title = "Iterations: median (most) over seeds; depth at the longest time, over sequential"
    return {
        title: pd.DataFrame(counts),
        "Into chaos: largest Lyapunov exponent per step above 0": pd.DataFrame(chaos),
        f"Largest error against sequential at {frames['errors']['time'].max():,} steps, relative": errors,
        f"Measured time, {timing.machine(frames['time'])} (median of rounds [95 %])": pd.DataFrame(ms),
    }


def figures(frames) -> dict[str, Figure]:
    """`newton`: iterations against time by stage and window; `chaos`: depth against the exponent."""
    rows = frames["iterations"]
    look, stages = style.styles(rows), [name for name in STAGES if name in set(rows["stage"])]
    figure, axes = style.panels(len(WINDOWS), len(stages), (3.1, 3), sharex=True, sharey=True)
    for (row, window), (column, stage) in itertools.product(enumerate(WINDOWS), enumerate(stages)):
        ax, here = axes[row, column], rows[(rows["stage"] == stage) & (rows["window"] == window)]
        dense = set(here[here["jacobian"] == "dense"]["label"])
        for (label, jacobian), group in here.groupby(["label", "jacobian"]):
            quasi = {"linestyle": ":", "lw": 1} if jacobian == "diagonal" and label in dense else {}
            style.line(ax, group, "time", "iterations", look[label] | quasi)
        style.lengths(ax, rows["time"])
        style.log(ax)
        style.title(ax, f"{STAGES[stage]}: windows {WINDOWS[window]}")
    handles = [style.handle(label, ms=4, **look[label]) for label in sorted(look)]
    style.names(axes, "length T, steps", "iterations")
    style.legend(figure, handles, ["Line: median of seeds; band: all. Dotted: diagonal Jacobians."])
    if not (times := sorted(rows[rows["stage"] == "dial"]["time"].unique())[-2:]):
        return {"newton": figure}  # of one length there is no dial
    chaos, axes = style.panels(len(times), len(WINDOWS), (4.1, 3.2), sharex=True, sharey="row")
    for (row, time), (column, window) in itertools.product(enumerate(times), enumerate(WINDOWS)):
        ax, here = axes[row, column], usual(rows[rows["time"] == time], window)
        for (label, fell), group in here.groupby(["label", "fallback"]):
            hollow = {"markerfacecolor": "none"} if fell else {}
            mark = look[label] | {"linestyle": "", "ms": 5, "alpha": 0.8} | hollow
            ax.plot(group["exponent"], group["depth"] / time, **mark)
        ax.axvline(0, color=style.MUTED, lw=1, ls="--")
        ax.axhline(1, color=style.MUTED, lw=1, ls=":")
        style.log(ax)
        style.title(ax, f"T = {time:,}: windows {WINDOWS[window]}")
    style.names(axes, "largest Lyapunov exponent per step", "depth / T")
    style.legend(chaos, handles, ["A point per cell, size and seed. Hollow: fell back. Dotted: sequential."])
    return {"newton": figure, "chaos": chaos}


EXPERIMENT = Experiment(
    "When does Newton's method run a nonlinear cell in parallel over time, and at what cost?",
    CLAIMS, PRESETS, measure, judge, tables, figures, eligible,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
