"""How long a gap each cell still learns, and how far it goes beyond the length it was trained on.

  python -m experiments.horizon
  python -m experiments.horizon --cells=lstm,lstm:forget_bias=3 --config.tasks=adding --config.longest=512
  python -m experiments.horizon --preset=full --config.chrono=task

For every task and cell the gap is doubled until fewer than half of the seeds solve the task within the budget
of steps, then bisected. Every cell has the same budget of parameters, the same steps, seeds and grid of
learning rates; a seed is trained with all of them and counts with the one that was best for the other seeds.
Cells start as they are by default; --config.chrono=task tells gated ones the gap beforehand (chrono
initialisation). Then cells that were trained on one gap are tested on longer ones.
"""

import dataclasses
import sys

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import plots
from experiments.lab import statistics, study
from experiments.lab.study import Verdict
from train import metrics

FACTORS = (1, 2, 4, 8)  # lengths of the tests, as multiples of the one trained on


@dataclasses.dataclass(frozen=True)
class Settings:
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
    runs, lengths = [], []
    for task in settings.tasks:
        for cell in settings.cells:
            found = _search(settings, lab, task, cell)
            runs += found
            lengths += _beyond(settings, lab, task, cell)
    return {"runs": pd.DataFrame(runs), "lengths": pd.DataFrame(lengths)}


def _config(settings, task, cell, gap, longest):
    from train import tasks

    stretch = tasks.TASKS.cls(task).stretch
    return study.cell_config(
        cell,
        task,
        task={stretch: gap, f"max_{stretch}": longest, "eval_examples": 512},
        # One width for all tasks and cells, so that a cell without recurrent matrix is not all embedding.
        model={"embedding_size": 32},
        optim={"learning_rates": settings.learning_rates},
        train={
            "steps": settings.steps, "seeds": settings.seeds, "batch_size": settings.batch_size,
            "eval_every": max(1, min(25, settings.steps // 4)), "on_nan": "drop",
        },
        parameters=settings.parameters,
        chrono=settings.chrono,
    )  # fmt: skip


def _program_length(settings, gap) -> int:
    """What sequences of a gap are padded to: gaps of one length share a program, since compiling one takes
    longer than a short run. With chrono=task the cells are told the length, so there it is the gap."""
    length = gap if settings.chrono == "task" else min(2 * settings.shortest, settings.longest)
    while length < gap:
        length *= 4
    return max(gap, min(length, settings.longest))


def _search(settings, lab, task, cell) -> list[dict]:
    """Doubling, then bisection: the rows of every gap tried."""
    found, solved, failed = [], 0, None

    def half_solve(gap):
        longest = _program_length(settings, gap)
        name = f"{task}-{cell.replace(':', '_')}-{gap}"
        rows = lab.train(name, _config(settings, task, cell, gap, longest))
        shared = {"task": task, "cell": cell.split(":")[0], "label": cell, "gap": gap}
        better = task != "adding"
        frame = pd.DataFrame(rows).assign(higher_is_better=better, **shared)
        frame = frame.astype({"solved_step": float})
        chosen = statistics.tuned(frame).set_index(["seed", "learning_rate"]).index
        frame["chosen"] = frame.set_index(["seed", "learning_rate"]).index.isin(chosen)
        found.extend(frame.to_dict("records"))
        return 2 * frame["solved"][frame["chosen"]].sum() >= settings.seeds

    gap = settings.shortest
    while gap <= settings.longest and failed is None:
        if half_solve(gap):
            solved, gap = gap, 2 * gap
        else:
            failed = gap
    for _ in range(settings.bisections):
        middle = (solved + (failed or 0)) // 2
        if failed is None or middle in (solved, failed) or middle < 2:
            break
        if half_solve(middle):
            solved = middle
        else:
            failed = middle
    return found


def _beyond(settings, lab, task, cell) -> list[dict]:
    """The test metric at multiples of the gap that the seeds were trained on."""
    name = f"{task}-{cell.replace(':', '_')}-beyond-{settings.trained_at}"
    config = _config(settings, task, cell, settings.trained_at, settings.trained_at)

    def probe(result):
        run = result.run
        longest = max(FACTORS) * settings.trained_at
        stretch = config.task.stretch

        def score(params, batch):
            total, count = metrics.score(
                run.spec, run.model.apply(params, batch.xs, lengths=batch.lengths), batch
            )
            return total / count

        scores = jax.jit(jax.vmap(score, (0, None)))
        seeds, rows = result.summary["seeds"], []
        for factor in FACTORS:
            gap = factor * settings.trained_at
            longer = dataclasses.replace(config.task, **{stretch: gap, f"max_{stretch}": longest})
            batch = longer.eval_batch(longer.load(), "test", 0, 256)
            values = np.asarray(scores(result.state.params, batch))
            rows += [
                seed | {"factor": factor, "gap": gap, "metric": float(value), "budget_steps": settings.steps}
                for seed, value in zip(seeds, values, strict=True)
            ]
        return rows

    rows = pd.DataFrame(lab.train(name, config, probe, {"factors": FACTORS}))
    rows = rows.assign(higher_is_better=task != "adding").astype({"solved_step": float})
    chosen = statistics.tuned(rows[rows["factor"] == 1])[["seed", "learning_rate"]]
    rows = rows.merge(chosen, on=["seed", "learning_rate"])
    return rows.assign(task=task, cell=cell.split(":")[0], label=cell).to_dict("records")


# --- what follows from the numbers


def horizons(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per task, cell and seed: `horizon`, the largest gap that the seed solved with all shorter ones
    that were tried (0: none), infinite where it solved all that were tried; `longest` gap tried."""
    rows = []
    for (task, label, seed), group in runs[runs["chosen"]].groupby(["task", "label", "seed"]):
        group, horizon = group.sort_values("gap"), 0.0
        for gap, solved in zip(group["gap"], group["solved"], strict=True):
            if not solved:
                break
            horizon = float(gap)
        else:
            horizon = np.inf
        cell, longest = group["cell"].iloc[0], group["gap"].max()
        rows.append(
            {"task": task, "label": label, "cell": cell, "seed": seed, "horizon": horizon, "longest": longest}
        )
    return pd.DataFrame(rows)


def _steps(frames, task, label) -> statistics.Estimate | None:
    """Steps to solve `trained_at`, the median over seeds."""
    lengths = frames["lengths"]
    one = lengths[(lengths["task"] == task) & (lengths["label"] == label) & (lengths["factor"] == 1)]
    return statistics.median(one["solved_step"].fillna(np.inf)) if len(one) else None


def tables(frames) -> dict[str, pd.DataFrame]:
    """Horizons; metric at multiples of the trained length."""
    found, shown = horizons(frames["runs"]), {}
    lengths = frames["lengths"]
    for task, group in found.groupby("task", sort=False):
        rows = []
        for label, seeds in group.groupby("label", sort=False):
            here = frames["runs"][(frames["runs"]["task"] == task) & (frames["runs"]["label"] == label)]
            rates = here[here["chosen"]].groupby("learning_rate").size()
            rows.append(
                {
                    "cell": label,
                    "params": f"{int(here['parameters'].iloc[0]):,}",
                    "horizon [95 %]": _horizon(statistics.median(seeds["horizon"]), seeds["longest"].max()),
                    "gaps tried": ",".join(str(gap) for gap in sorted(set(here["gap"]))),
                    "rates chosen": ", ".join(f"{rate:g}" for rate in rates.index),
                }
            )
        shown[f"{task}: largest gap that is learned (median of {group['seed'].nunique()} seeds)"] = (
            pd.DataFrame(rows)
        )
        rows = []
        here = lengths[lengths["task"] == task]
        for label, seeds in here.groupby("label", sort=False):
            row = {"cell": label, "steps to solve": _steps_text(_steps(frames, task, label), here)}
            for factor, tests in seeds.groupby("factor"):
                row[f"{factor}x"] = f"{statistics.median(tests['metric']):.2g}"
            rows.append(row)
        trained_at = int(here["gap"].min())
        metric = "accuracy" if here["higher_is_better"].iloc[0] else "mse"
        shown[f"{task}: trained at {trained_at}, test {metric} at multiples of it"] = pd.DataFrame(rows)
    return shown


def _horizon(estimate, longest) -> str:
    def show(x):
        return f"≥{longest:.0f}" if np.isinf(x) else f"{x:.0f}"

    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def _steps_text(estimate, here) -> str:
    limit = int(here["budget_steps"].max())

    def show(x):
        return f">{limit}" if np.isinf(x) else f"{x:.0f}"

    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def figures(frames) -> dict[str, Figure]:
    """`horizon`: share of seeds that solve each gap; `lengths`: the metric beyond the trained length."""
    runs, lengths = frames["runs"], frames["lengths"]
    look = plots.styles(pd.concat([runs, lengths])[["cell", "label"]])
    tasks = list(dict.fromkeys(runs["task"]))
    figure = Figure(figsize=(4.7 * len(tasks) + 0.5, 4.2), layout="constrained")
    for ax, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        here = runs[(runs["task"] == task) & runs["chosen"]]
        good = bool(here["higher_is_better"].iloc[0])
        for label, group in here.groupby("label", sort=False):
            by_gap = group.groupby("gap")["test_metric"]
            middle = by_gap.median()
            ax.plot(middle.index, middle, label=label, ms=5, **look[label])
            ax.fill_between(
                middle.index, by_gap.min(), by_gap.max(), color=look[label]["color"], alpha=0.15, lw=0
            )
        ax.set(xscale="log", xlabel="gap, steps" if task == "delayed_recall" else "length, steps")
        ax.set_xticks(sorted(set(here["gap"])), [str(gap) for gap in sorted(set(here["gap"]))], fontsize=8)
        ax.minorticks_off()
        ax.set_yscale("linear" if good else "log")
        ax.set_ylabel(f"test {'accuracy (higher' if good else 'mean squared error (lower'} is better)")
        ax.set_title(task.replace("_", " "), loc="left", fontweight="bold")
        _tidy(ax)
    budget = int(runs["budget_steps"].max())
    note = f"Line: median over {runs['seed'].nunique()} seeds; band: all. {budget:,} steps of training each."
    plots.legend(figure, figure.axes[0].get_legend_handles_labels()[0], [note])
    return {"horizon": figure, "lengths": _lengths_figure(lengths, look)}


def _lengths_figure(lengths, look) -> Figure:
    tasks = list(dict.fromkeys(lengths["task"]))
    figure = Figure(figsize=(4.7 * len(tasks) + 0.5, 4.2), layout="constrained")
    for ax, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        here = lengths[lengths["task"] == task]
        for label, group in here.groupby("label", sort=False):
            by_factor = group.groupby("factor")["metric"]
            ax.plot(by_factor.median().index, by_factor.median(), label=label, ms=5, **look[label])
            ax.fill_between(
                by_factor.min().index, by_factor.min(), by_factor.max(), color=look[label]["color"],
                alpha=0.15, lw=0,
            )  # fmt: skip
        good = bool(here["higher_is_better"].iloc[0])
        ax.set(xscale="log", yscale="linear" if good else "log")
        ax.set_xticks(FACTORS, [f"{factor}x" for factor in FACTORS])
        ax.minorticks_off()
        ax.set_xlabel(f"length of the test, multiples of the trained {int(here['gap'].min())} steps")
        ax.set_ylabel("test accuracy" if good else "test mean squared error")
        ax.set_title(task.replace("_", " "), loc="left", fontweight="bold")
        _tidy(ax)
    note = f"Line: median over {lengths['seed'].nunique()} seeds; band: all."
    plots.legend(figure, figure.axes[0].get_legend_handles_labels()[0], [note])
    return figure


def _tidy(ax):
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def verdicts(frames) -> dict[str, Verdict]:
    """`lstm_length`: LSTM's horizon against the RNN's, and against the longest gap tried. The gates help on
    a task if the intervals of the medians are apart, LSTM's above; the help ends if LSTM's horizon is below
    the longest gap. Holds: both on every task; does not hold: they help on no task; else in part.

    `gru_fast`: GRU against LSTM. Fewer parameters is a count at equal width. Faster: fewer steps to solve
    `trained_at`, intervals apart. Holds: faster on every task; does not hold: slower on every task; else in
    part.
    """
    found, said, outcomes = horizons(frames["runs"]), [], []
    for task, group in found.groupby("task", sort=False):
        of = {label: statistics.median(seeds["horizon"]) for label, seeds in group.groupby("label")}
        longest = group.groupby("label")["longest"].max()
        if {"lstm", "rnn"} <= set(of):
            helps, ends = of["lstm"].low > of["rnn"].high, np.isfinite(of["lstm"].high)
            outcomes.append((helps, ends))
            told = {label: _horizon(of[label], longest[label]) for label in ("rnn", "lstm")}
            said.append(f"{task}: RNN {told['rnn']}, LSTM {told['lstm']} steps")
    verdict = "not tested here"
    if outcomes:
        verdict = "holds in part" if any(helps for helps, _ in outcomes) else "does not hold here"
        verdict = "holds" if all(helps and ends for helps, ends in outcomes) else verdict
    out = {"lstm_length": Verdict(verdict, "; ".join(said) + ".")}

    faster, slower, said = [], [], []
    for task in dict.fromkeys(frames["lengths"]["task"]):
        gru, lstm = (_steps(frames, task, label) for label in ("gru", "lstm"))
        if gru and lstm:
            here = frames["lengths"][frames["lengths"]["task"] == task]
            faster.append(gru.high < lstm.low)
            slower.append(lstm.high < gru.low)
            said.append(f"{task}: GRU {_steps_text(gru, here)}, LSTM {_steps_text(lstm, here)} steps")
    verdict = "not tested here"
    if faster:
        verdict = "holds" if all(faster) else "does not hold here" if all(slower) else "holds in part"
    told = f"At equal width {_ratio():.0%} of LSTM's parameters. At equal parameters, to solve a gap of "
    gap = int(frames["lengths"]["gap"].min()) if len(frames["lengths"]) else 0
    out["gru_fast"] = Verdict(verdict, f"{told}{gap}: {'; '.join(said)}.")
    return out


def _ratio(size: int = 64) -> float:
    """Parameters of a GRU over those of an LSTM of the same input and hidden size."""
    import cells

    def count(name):
        shapes = jax.eval_shape(lambda: cells.get(name, hidden_size=size).init(jax.random.key(0), size))
        return sum(p.size for p in shapes.values())

    return count("gru") / count("lstm")


if __name__ == "__main__":
    study.command(sys.modules[__name__])
