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
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import convergence, experiment, probes, runs, statistics, timing, tuning
from experiments.lab.convergence import usual
from experiments.lab.convergence_figures import both
from experiments.lab.experiment import Claim, Experiment, Part, Verdict, untested
from experiments.lab.protocol import Known
from experiments.lab.rules import agrees, every_below
from experiments.lab.statistics import LEAST

SHARE = 0.25  # of the steps of a sequential run: a depth below it counts as parallel
EXACT, WRONG = 1e-4, 1e-2  # errors over the largest entry: rounding, and other states
RULE = (
    "steps one after the other over T, longest T: {}, 95 % interval of the mean over seeds below "
    f"{SHARE:g} for every one true, above it for one false"
)
TIME = "it takes less time than step by step, {}"
TIME_RULE = (
    "time over that step by step, forward and gradients, longest T: 95 % interval of the geometric mean over "
    "rounds below 1 for every cell true, above 1 for one false"
)
CLAIMS = {
    "newton": Claim(
        "A nonlinear cell runs in parallel over time by Newton's method",
        {
            "newton_initial": Part("as initialised, on white noise", RULE.format("cells")),
            "newton_trained": Part(
                "trained to recall over a gap, on longer gaps",
                RULE.format(f"cells with {LEAST} seeds that solved it, those seeds"),
            ),
            "newton_calm": Part(
                "with weights of any size whose largest Lyapunov exponent is below 0",
                RULE.format("sizes of v of sru_feedback and U of rnn with the exponent's interval below 0"),
            ),
            "newton_chaos": Part(
                "with weights whose largest Lyapunov exponent is above 0",
                RULE.format("those sizes with the exponent's interval above 0"),
            ),
            "newton_exact": Part(
                "its outputs and gradients are those of a sequential run, in float32",
                f"largest error of all cells and seeds, over the largest entry: at most {EXACT:g} true, at "
                f"least {WRONG:g} false; where it did not fall back",
            ),
            "newton_time": Part(TIME.format("on CPU cores"), TIME_RULE),
            "newton_time_gpu": Part(TIME.format("on a GPU"), TIME_RULE),
        },
        "newton",
    )
}
DIALS = {"sru_feedback": ("|v|", "feedback"), "rnn": ("U x", "scales")}  # sizes of weights, and the setting
DIAGONAL = ("gru:diagonal=true", "lstm:diagonal=true")
STAGES = {"initial": "initial, noise", "untrained": "initial, task", "trained": "trained"}


def eligible() -> list[str]:
    """The cells that have the strategy."""
    return [name for name in cells.names() if cells.Newton().refuses(probes.default(name)) is None]


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = (*eligible(), *DIAGONAL)
    hidden_size: int = 64
    times: tuple = (64, 512, 16384)
    trained: tuple = ("rnn", "lstm", "gru", "sru_feedback", *DIAGONAL)
    gap: int = 10  # of delayed recall, that they are trained on
    steps: int = 600
    feedback: tuple = (0.5, 1.0, 1.7, 2.5, 4.0, 8.0)  # |v| of sru_feedback
    scales: tuple = (1.0, 2.0, 4.0)  # of the RNN's orthogonal matrix
    sized: int = 16  # hidden size of those two
    error_time: int = 512
    timed: tuple = ("lstm", "gru", "sru_feedback", *DIAGONAL)
    timed_lengths: tuple = (4096,)
    timed_hidden_size: int = 64
    batch: int = 4  # of what is timed
    rounds: int = 12
    repeats: int = 3

    least: ClassVar = tuning.Settings.least | {"times": 3, "error_time": 2}
    optional: ClassVar = ("feedback", "scales")

    def runs(self, ended=lambda name, config: None):
        known = Known(ended)
        for text in self.trained:
            known.follow(_trained, self, text)
        return known.runs

    def configs(self):
        return [_config(self, text) for text in {*self.cells, *self.trained, *self.timed}]


PRESETS = {
    "quick": Settings(
        cells=("sru_feedback",), seeds=2, tuning_seeds=1, learning_rates=(0.01,), initialisations=1,
        widenings=0, hidden_size=4, times=(8, 40), trained=("sru_feedback",), gap=2, steps=20,
        feedback=(6.0,), scales=(1.0,), sized=4, error_time=20, timed=("sru_feedback",), timed_lengths=(30,),
        timed_hidden_size=4, batch=2, rounds=2, repeats=1,
    ),
    "fast": Settings(),
    "full": Settings(
        times=(64, 256, 1024, 4096, 16384, 65536), trained=(*eligible(), *DIAGONAL), gap=30, steps=3000,
        feedback=(0.5, 1.0, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0), scales=(1.0, 1.5, 2.0, 3.0, 4.0, 8.0),
        error_time=4096, timed=(*eligible(), *DIAGONAL), timed_lengths=(512, 4096, 16384),
        rounds=20, repeats=5,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`iterations`: by label, stage, dial (a size of recurrent weights), method, time and seed, with the
    exponent and depth; `tuning`: every trial of what was trained; `errors`: against a sequential run,
    gradients too; `time`: ms by round."""
    shared = settings.of("seeds", "hidden_size", "times")
    rows, tuned, errors, times = [], [], [], []
    for text in settings.cells:
        rows += lab.do(f"start-{runs.file_name(text)}", shared, lambda text=text: [*_start(settings, text)])
    for text, (_, name) in DIALS.items():
        fields = shared | {"values": getattr(settings, name), "hidden_size": settings.sized}
        rows += lab.do(f"dial-{text}", fields, lambda text=text: [*_dial(settings, text)])
    for text in settings.trained:
        probe = lambda result: [*_probe(settings, result)]  # noqa: E731
        trials, probed = _trained(lab.train, settings, text, probe, shared)
        rows, tuned = rows + probed, tuned + [runs.labels(text) | row for row in trials]
    for text in settings.cells:
        fields = {"time": settings.error_time, "seeds": settings.seeds, "hidden_size": settings.hidden_size}
        compare = lambda text=text, fields=fields: [*convergence.errors(text, **fields)]  # noqa: E731
        errors += lab.do(f"errors-{runs.file_name(text)}", fields, compare)
    fields = settings.of("timed", "timed_hidden_size", "batch", "rounds", "repeats")
    fields["backend"] = jax.default_backend()
    for time in settings.timed_lengths:
        times += lab.do(f"time-{time}", fields, lambda time=time: convergence.times(settings, time))
    frames = {"iterations": rows, "tuning": tuned, "errors": errors, "time": times}
    return {name: pd.DataFrame(rows) for name, rows in frames.items()}


def _trained(train, settings, text, *probe) -> tuple[list, list]:
    make = lambda label: _config(settings, label)  # noqa: E731
    return tuning.tuned_and_trained(train, runs.file_name(text), make, text, settings, *probe)


def _config(settings, text):
    return runs.config(
        text, "delayed_recall",
        cell={"hidden_size": settings.hidden_size}, model={"embedding_size": settings.hidden_size},
        task={"gap": settings.gap}, train={"steps": settings.steps, "eval_every": min(25, settings.steps)},
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
    """Every seed on its task over longer gaps, as initialised and as trained, and whether it solved it."""
    config, spec = result.run.config, result.run.spec
    solved = {row["seed"]: bool(row["solved"]) for row in runs.seeds(result)}
    for stage, params in (("untrained", runs.initial(result)), ("trained", runs.trained(result))):
        fields = {"label": config.label, "stage": stage, "dial": "-"}
        for time in settings.times:
            task = dataclasses.replace(config.task, gap=time - 2, max_gap=0)
            tokens = task.eval_batch({}, "test", 0, 1).xs
            xs = jax.vmap(lambda params, tokens=tokens: probes.embedded(spec, params, tokens))(params)
            for row in convergence.iterations(config.cell, probes.layer_params(params), xs, fields):
                yield row | {"solved": solved[row["seed"]]}


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `newton`, of `cells.Newton()` as it is; what was not measured is not tested."""
    rows, errors, time = (frames.get(name, pd.DataFrame()) for name in ("iterations", "errors", "time"))
    found = {part: untested("it is not among what was measured") for part in EXPERIMENT.parts}
    found |= _depths_judged(rows) if len(rows) else {}
    if len(errors) and len(same := errors[(errors["bits"] == 32) & ~errors["fallback"].astype(bool)]):
        worst = same[["states", "gradients"]].max(axis=1).max()
        found["newton_exact"] = agrees(worst, EXACT, WRONG, same["seed"].nunique())
    found["newton_time_gpu"] = untested("no GPU: `python -m experiments.newton --preset=full` on one")
    for backend, suffix in (("cpu", ""), ("gpu", "_gpu")):
        if len(time) and len(here := time[time["backend"] == backend]):
            found["newton_time" + suffix] = _time_judged(here)
    return found


def _depths_judged(rows) -> dict[str, Verdict]:
    longest = rows["time"].max()
    last = usual(rows[rows["time"] == longest])
    last = last.assign(share=last["depth"] / last["time"], name=last["label"])
    last["name"] = last["name"].where(last["dial"] == "-", last["label"] + " " + last["dial"])

    def judged(part, lacks, note="") -> Verdict:
        groups = {name: group["share"].to_numpy() for name, group in part.groupby("name", sort=False)}
        show = lambda of: "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * share for share in of))  # noqa: E731
        fell = int(part["fallback"].sum())
        notes = [f"T = {longest:,}", note, f"{fell} of {len(part)} runs fell back" * bool(fell)]
        return every_below(groups, SHARE, show, f"{SHARE:.0%}", lacks, "; ".join(filter(None, notes)))

    found = {"newton_initial": judged(last[last["stage"] == "initial"], "nothing was measured")}
    trained = last[last["stage"] == "trained"]
    solved = trained[trained["solved"].astype(bool)] if len(trained) else trained
    counts = solved["name"].value_counts()
    told = "seeds that solved it: " + ", ".join(
        f"{name} {counts.get(name, 0)}" for name in dict.fromkeys(trained["name"])
    )
    enough = solved[solved["name"].map(counts) >= LEAST]
    found["newton_trained"] = judged(enough, told, told)
    sized = last[last["stage"] == "dial"]
    signs = {name: statistics.mean(group["exponent"]) for name, group in sized.groupby("name")}
    for part, names in (
        ("newton_calm", [name for name, exponent in signs.items() if exponent.high < 0]),
        ("newton_chaos", [name for name, exponent in signs.items() if exponent.low > 0]),
    ):
        told = ", ".join(f"{name} {signs[name].value:+.3f}" for name in names)
        part_of = sized[sized["name"].isin(names)]
        found[part] = judged(part_of, "no size had such an exponent", f"exponents {told}")
    return found


def _time_judged(time) -> Verdict:
    last = time[(time["pass"] == "gradient") & (time["time"] == time["time"].max())]
    by = last.pivot(index=["label", "round"], columns="strategy", values="ms")
    logs = np.log(by["newton"] / by["sequential"]).groupby("label", sort=False)
    groups = {label: values.to_numpy() for label, values in logs}
    every = ", ".join(f"{label} {np.exp(values.mean()):.2f}" for label, values in groups.items())
    note = (
        f"{every}; {timing.machine(time)}, {last['time'].iloc[0]:,} steps, {last['round'].nunique()} rounds"
    )
    show = lambda log: f"{statistics.Estimate(*np.exp(log)):.3g}"  # noqa: E731
    return every_below(groups, 0, show, "1: step by step", "", note)._replace(seeds=0)


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Iterations by method and time; into chaos; errors; time; tuning."""
    rows, errors, time = frames["iterations"], frames["errors"], frames["time"]
    title = "Iterations: median (most) over seeds; depth at the longest time, over sequential"
    shown = {title: convergence.table(rows[rows["stage"] != "dial"])}
    shown["Into chaos: largest Lyapunov exponent per step above 0"] = convergence.dial_table(rows)
    title = f"Largest error against sequential at {errors['time'].max():,} steps, relative"
    shown[title] = convergence.error_table(errors)
    title = f"Measured time, {timing.machine(time)} (median of rounds [95 %])"
    shown[title] = convergence.time_table(time)
    return shown | {"Tuning: what was picked for each trained cell": tuning.picked_table(frames["tuning"])}


def figures(frames) -> dict[str, Figure]:
    """`newton`: depth against time by cell and stage; `chaos`: depth against the exponent."""
    return both(frames["iterations"], SHARE, STAGES)


EXPERIMENT = Experiment(
    "When does Newton's method run a nonlinear cell in parallel over time, and at what cost?",
    CLAIMS, PRESETS, measure, judge, tables, figures, eligible,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
