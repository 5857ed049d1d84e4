"""How long a gap each cell still learns, and how far it goes beyond the length it was trained on.

  python -m experiments.horizon
  python -m experiments.horizon --cells=lstm,lstm:forget_bias=3 --config.tasks=adding --config.longest=512
  python -m experiments.horizon --preset=full --config.chrono=task

For every task and cell the gap is doubled until fewer than half of the seeds solve the task within the budget
of steps, then bisected. Every cell has the same budget of parameters, the same steps, seeds and grid of
learning rates; a seed is trained with all of them and counts with the one that was best for the other seeds.
Cells start as they are by default; with --config.chrono=task gated ones know the gap beforehand (chrono
initialisation). Then cells that were trained on one gap are tested on longer ones.
"""

import dataclasses
import itertools
from typing import ClassVar

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import experiment, protocol, runs, statistics, style
from experiments.lab.experiment import Claim, Experiment, Verdict
from train import metrics, tasks
from train.config import CHRONO
from train.model import count
from train.tasks import STRETCHABLE

CLAIMS = {
    "lstm_length": Claim("LSTM's gates help, but only up to some length", "horizon"),
    "gru_fast": Claim("GRU has fewer parameters and converges fast", "horizon"),
}
FACTORS = (1, 2, 4, 8)  # lengths of the tests, as multiples of the one trained on


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback")
    tasks: tuple = ("delayed_recall", "adding")
    seeds: int = 5
    parameters: int = 5000
    steps: int = 400
    batch_size: int = 32
    learning_rates: tuple = (0.003, 0.01)
    shortest: int = 8
    longest: int = 128
    bisections: int = 1
    trained_at: int = 16  # for the test on longer gaps, and for convergence
    chrono: str = "cell"

    choices: ClassVar = {"chrono": CHRONO, "tasks": STRETCHABLE}
    least: ClassVar = {"bisections": 0}

    def runs(self, ended=lambda name, config: None):
        known = protocol.Known(ended)
        for part, *of in itertools.product((_search, _beyond), self.tasks, self.cells):
            known.follow(part, self, *of)
        return known.runs

    def configs(self):
        self.require("longest", self.longest >= self.shortest, f"at least config.shortest = {self.shortest}")
        for gap in {self.shortest, self.longest, self.trained_at}:
            yield from (_config(self, *of, gap, gap) for of in itertools.product(self.tasks, self.cells))


PRESETS = {
    "quick": Settings(
        cells=("rnn", "gru"), tasks=("delayed_recall",), seeds=2, parameters=1500, steps=40,
        learning_rates=(0.01, 0.03), shortest=2, longest=4, trained_at=2,
    ),
    "fast": Settings(),
    "full": Settings(
        tasks=("delayed_recall", "adding", "copy_memory"), seeds=10, parameters=20_000, steps=5000,
        learning_rates=(0.0003, 0.001, 0.003, 0.01), longest=2048, bisections=4, trained_at=64,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`runs`: every seed and learning rate at every gap tried; `lengths`: the metric at multiples of
    `trained_at`, for the chosen learning rates."""
    searched, lengths = [], []
    for task in settings.tasks:
        for cell in settings.cells:
            searched += _search(lab.train, settings, task, cell)
            lengths += _beyond(lab.train, settings, task, cell)
    return {"runs": pd.DataFrame(searched), "lengths": pd.DataFrame(lengths)}


def _config(settings, task, cell, gap, longest):
    stretch = tasks.TASKS.cls(task).stretch
    return runs.config(
        cell,
        task,
        task={stretch: gap, f"max_{stretch}": longest, "eval_examples": 512},
        # One width for all tasks and cells, so that a cell without recurrent matrix is not all embedding.
        model={"embedding_size": 32},
        optim={"learning_rates": settings.learning_rates},
        train=settings.of("steps", "seeds", "batch_size")
        | {"eval_every": max(1, min(25, settings.steps // 4))},
        parameters=settings.parameters,
        chrono=settings.chrono,
    )  # fmt: skip


def _program_length(settings, gap) -> int:
    """What sequences of a gap are padded to: gaps of one length share a program, since compiling one takes
    longer than a short run. With chrono=task the cells know the length, so there it is the gap."""
    length = gap if settings.chrono == "task" else min(2 * settings.shortest, settings.longest)
    while length < gap:
        length *= 4
    return max(gap, min(length, settings.longest))


def _search(train, settings, task, cell) -> list[dict]:
    """Doubling, then bisection: the rows of every gap tried, from `train(name, config)`."""
    rows, solved, failed = [], 0, None

    def half_solve(gap):
        config = _config(settings, task, cell, gap, _program_length(settings, gap))
        seeds = train(f"{task}-{runs.file_name(cell)}-{gap}", config)
        frame = runs.with_chosen(seeds, runs.higher_is_better(config))
        rows.extend(frame.assign(task=task, **runs.labels(cell), gap=gap).to_dict("records"))
        return 2 * frame["solved"][frame["chosen"]].sum() >= settings.seeds

    gap = settings.shortest
    while gap <= settings.longest and failed is None:
        solved, failed = (gap, None) if half_solve(gap) else (solved, gap)
        gap *= 2
    for _ in range(settings.bisections):
        middle = (solved + (failed or 0)) // 2
        if failed is None or middle in (solved, failed) or middle < 2:
            break
        solved, failed = (middle, failed) if half_solve(middle) else (solved, middle)
    return rows


def _beyond(train, settings, task, cell) -> list[dict]:
    """The test metric at multiples of the gap that the seeds were trained on."""
    name = f"{task}-{runs.file_name(cell)}-beyond-{settings.trained_at}"
    config = _config(settings, task, cell, settings.trained_at, settings.trained_at)

    def probe(result):
        run, rows = result.run, []
        stretch = run.config.task.stretch

        def score(params, batch):
            outputs = run.model.apply(params, batch.xs, lengths=batch.lengths)
            total, number = metrics.score(run.spec, outputs, batch)
            return total / number

        scores = jax.jit(jax.vmap(score, (0, None)))
        for factor in FACTORS:
            gap = factor * settings.trained_at
            options = {stretch: gap, f"max_{stretch}": max(FACTORS) * settings.trained_at}
            longer = dataclasses.replace(run.config.task, **options)
            values = np.asarray(scores(result.state.params, longer.eval_batch(longer.load(), "test", 0, 256)))
            rows += [
                seed | {"factor": factor, "gap": gap, "metric": float(value), "budget_steps": settings.steps}
                for seed, value in zip(runs.seeds(result), values, strict=True)
            ]
        return rows

    rows = pd.DataFrame(train(name, config, probe, {"factors": FACTORS}))
    rows = runs.with_chosen(rows, runs.higher_is_better(config))
    rows = rows[rows.pop("chosen")]
    return rows.assign(task=task, **runs.labels(cell)).to_dict("records")


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """`lstm_length`: LSTM's horizon against the RNN's, and against the longest gap tried. The gates help on
    a task if the intervals of the medians are apart, LSTM's above; the help ends if LSTM's horizon is below
    the longest gap. Holds: both on every task; does not hold: they help on no task; else in part.

    `gru_fast`: GRU against LSTM. Fewer parameters is a count at equal width. Faster: fewer steps to solve
    `trained_at`, intervals apart. Holds: faster on every task; does not hold: slower on every task; else in
    part.
    """
    evidence, helps, ends = [], [], []
    for task, group in statistics.horizons(frames["runs"]).groupby("task", sort=False):
        of = {label: statistics.median(seeds["horizon"]) for label, seeds in group.groupby("label")}
        longest = group.groupby("label")["longest"].max()
        if {"lstm", "rnn"} <= set(of):
            helps.append(of["lstm"].low > of["rnn"].high)
            ends.append(np.isfinite(of["lstm"].high))
            shown = [_horizon(of[label], longest[label]) for label in ("rnn", "lstm")]
            evidence.append("{}: RNN {}, LSTM {} steps".format(task, *shown))
    verdict = "holds" if all(helps + ends) else "holds in part" if any(helps) else "does not hold here"
    length = Verdict(verdict if helps else "not tested here", "; ".join(evidence) + ".")

    lengths, evidence, faster, slower = frames["lengths"], [], [], []
    for task in dict.fromkeys(lengths["task"]):
        gru, lstm = (_steps(lengths, task, label) for label in ("gru", "lstm"))
        if gru and lstm:
            faster.append(gru.high < lstm.low)
            slower.append(lstm.high < gru.low)
            gru, lstm = (_steps_text(steps, lengths, task) for steps in (gru, lstm))
            evidence.append(f"{task}: GRU {gru}, LSTM {lstm} steps")
    verdict = "holds" if all(faster) else "does not hold here" if all(slower) else "holds in part"
    gap = int(lengths["gap"].min()) if len(lengths) else 0
    fast = f"At equal width {_ratio():.0%} of LSTM's parameters. At equal parameters, to solve a gap of "
    fast += f"{gap}: {'; '.join(evidence)}."
    return {"lstm_length": length, "gru_fast": Verdict(verdict if faster else "not tested here", fast)}


def _horizon(estimate, longest) -> str:
    return statistics.censored(estimate, f"≥{longest:.0f}")


def _steps(lengths, task, label) -> statistics.Estimate | None:
    """Steps to solve `trained_at`, the median over seeds."""
    one = lengths[(lengths["task"] == task) & (lengths["label"] == label) & (lengths["factor"] == 1)]
    return statistics.median_steps(one["solved_step"]) if len(one) else None


def _steps_text(steps, lengths, task) -> str:
    return statistics.censored(steps, f">{lengths['budget_steps'][lengths['task'] == task].max():.0f}")


def _ratio(size: int = 64) -> float:
    """Parameters of a GRU over those of an LSTM of the same input and hidden size."""
    inits = [cells.get(name, hidden_size=size).init for name in ("gru", "lstm")]
    gru, lstm = (jax.eval_shape(lambda init=init: init(jax.random.key(0), size)) for init in inits)
    return count(gru) / count(lstm)


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Horizons; metric at multiples of the trained length."""
    lengths, shown = frames["lengths"], {}
    for task, group in statistics.horizons(frames["runs"]).groupby("task", sort=False):
        rows = []
        for label, seeds in group.groupby("label", sort=False):
            here = frames["runs"][(frames["runs"]["task"] == task) & (frames["runs"]["label"] == label)]
            row = {"cell": label, "params": f"{int(here['parameters'].iloc[0]):,}"}
            row["horizon [95 %]"] = _horizon(statistics.median(seeds["horizon"]), seeds["longest"].max())
            row["gaps tried"] = ",".join(map(str, sorted(set(here["gap"]))))
            rates = (f"{rate:g}" for rate in sorted(set(here["learning_rate"][here["chosen"]])))
            rows.append(row | {"rates chosen": ", ".join(rates)})
        title = f"{task}: largest gap that is learned (median of {group['seed'].nunique()} seeds)"
        shown[title] = pd.DataFrame(rows)
        rows, here = [], lengths[lengths["task"] == task]
        for label, seeds in here.groupby("label", sort=False):
            steps = _steps_text(_steps(lengths, task, label), lengths, task)
            row = {"cell": label, "steps to solve": steps}
            for factor, tests in seeds.groupby("factor"):
                row[f"{factor}x"] = f"{statistics.median(tests['metric']):.2g}"
            rows.append(row)
        metric = "accuracy" if here["higher_is_better"].iloc[0] else "mse"
        title = f"{task}: trained at {int(here['gap'].min())}, test {metric} at multiples of it"
        shown[title] = pd.DataFrame(rows)
    return shown


def figures(frames) -> dict[str, Figure]:
    """`horizon`: share of seeds that solve each gap; `lengths`: the metric beyond the trained length."""
    tried, lengths = frames["runs"], frames["lengths"]
    look = style.styles(pd.concat([tried, lengths])[["cell", "label"]])
    budget = int(tried["budget_steps"].max())
    gaps = _figure(
        tried[tried["chosen"]], "gap", "test_metric", look, "{}",
        {task: "gap, steps" if task == "delayed_recall" else "length, steps" for task in tried["task"]},
        f" {budget:,} steps of training each.",
    )  # fmt: skip
    name = f"length of the test, multiples of the trained {int(lengths['gap'].min())} steps"
    names = dict.fromkeys(lengths["task"], name)
    return {"horizon": gaps, "lengths": _figure(lengths, "factor", "metric", look, "{}x", names)}


def _figure(frame, x, y, look, tick, names, note="") -> Figure:
    """A panel per task; `names` of their x axes."""
    figure, axes = style.panels(1, len(names), (4.7, 3.9))
    for ax, (task, name) in zip(axes[0], names.items(), strict=True):
        here = frame[frame["task"] == task]
        for label, group in here.groupby("label", sort=False):
            style.line(ax, group, x, y, look[label], label=label)
        good = here["higher_is_better"].iloc[0]
        ax.set(xscale="log", xlabel=name, yscale="linear" if good else "log")
        ax.set_ylabel(f"test {'accuracy (higher' if good else 'mean squared error (lower'} is better)")
        style.ticks_at(ax, here[x], tick)
        style.title(ax, task.replace("_", " "), strong=True)
    note = f"Line: median over {frame['seed'].nunique()} seeds; band: all.{note}"
    style.legend(figure, axes[0, 0], [note])
    return figure


EXPERIMENT = Experiment(
    "How long a gap does each cell still learn, and how far beyond it does it go?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
