"""Does the optimiser change the ranking of cells? The same with Adam, Muon and schedule-free AdamW.

  python -m experiments.optimisers
  python -m experiments.optimisers --cells=gru,sru --config.optimizers=adam,muon --config.columns=recall_30
  python -m experiments.optimisers --preset=full --workers=2

Tasks are columns of the atlas (`lab/needs.py`). Every cell is tuned anew for every optimiser, learning rate
and initialisation (`lab/tuning.py`). Schedule-free AdamW keeps its learning rate, the others let it fall as
in the atlas; Muon has AdamW for what is no matrix.
"""

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from experiments.lab import bench, experiment, matrix, rules, runs, statistics, style, tuning
from experiments.lab.experiment import Claim, Experiment, Part, Verdict, untested
from experiments.lab.needs import COLUMNS
from train.config import OPTIMIZERS

BASE = "adam"
OTHERS = {"muon": "Muon", "schedule_free_adamw": "schedule-free AdamW"}
ALIKE = 0.5  # rank correlation from which on two rankings count as much the same
RANKS = (
    f"the interval of the rank correlation of the cells' mean scores, averaged over tasks, lies above {ALIKE}"
)
BETTER = "the interval of the mean difference of scores, over cells and tasks, lies above 0"
CLAIMS = {
    "optimiser_ranks": Claim(
        "The optimiser does not change the ranking of cells",
        {
            f"{kind}_{name}": Part(text.format(words), rule + " (false: below)")
            for kind, text, rule in (
                ("ranks", "{} ranks the cells as Adam does", RANKS),
                ("better", "{} trains them better than Adam", BETTER),
            )
            for name, words in OTHERS.items()
        },
        "optimisers",
    )
}


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = ("rnn", "lstm", "gru", "sru", "mamba2", "attention")
    columns: tuple = ("recall_30", "parity", "pixels")
    optimizers: tuple = (BASE, *OTHERS)
    shorter: int = 1  # divides every budget of steps, for trying things out

    choices: ClassVar = {"columns": tuple(COLUMNS), "optimizers": OPTIMIZERS}

    def part(self, train, *model):
        return _trained(train, self, *model)

    def configs(self):
        return (_config(self, *model) for model in self.models())

    def models(self):
        return itertools.product(self.optimizers, self.columns, self.cells)


PRESETS = {
    "quick": Settings(
        cells=("rnn", "gru"), columns=("recall_30",), optimizers=(BASE, "muon"), seeds=2, tuning_seeds=1,
        learning_rates=(0.01,), initialisations=1, widenings=0, shorter=50,
    ),
    "fast": Settings(cells=("rnn", "lstm", "gru", "sru"), columns=("recall_30", "parity")),
    "full": Settings(),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial; `final`: the seeds that count."""
    found = {"tuning": [], "final": []}
    for optimizer, column, cell in settings.models():
        told = {"form": optimizer, "column": column, **runs.labels(cell)}
        for name, rows in zip(found, _trained(lab.train, settings, optimizer, column, cell), strict=True):
            found[name] += [told | row for row in rows]
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


def _trained(train, settings, optimizer, column, cell):
    name = f"{optimizer}-{column}-{runs.file_name(cell)}"
    return bench.tuned_and_trained(
        train, name, lambda text: _config(settings, optimizer, column, text), cell, settings
    )


def _config(settings, optimizer, column, cell):
    config = bench.config(COLUMNS[column], cell, "bare", settings.shorter)
    more = {"schedule": "constant"} if optimizer == "schedule_free_adamw" else {}
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, optimizer=optimizer, **more))


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `optimiser_ranks`: scores are those of the atlas (`matrix.scores`), for each optimiser by
    itself; intervals are of resampled seeds of every cell and task."""
    found, seeds = {}, 0
    scores = {}
    if len(frames["final"]):
        seeds = int(frames["final"].groupby(["form", "column", "label"]).size().min())
        together = matrix.scores(frames["final"], together=True)
        for optimizer, here in together.groupby("form"):
            scores[optimizer] = here.set_index(["column", "label"])["seeds"]
    for name in OTHERS:
        if not {BASE, name} <= set(scores) or scores[BASE].index.get_level_values("label").nunique() < 3:
            why = untested("needs Adam, this optimiser and three cells")
            found |= {f"ranks_{name}": why, f"better_{name}": why}
            continue
        ranks, better = _compared(scores[BASE], scores[name].loc[scores[BASE].index])
        found[f"ranks_{name}"] = rules.above(ranks, ALIKE, seeds, f"{ALIKE}, Adam")
        found[f"better_{name}"] = rules.above(better, 0, seeds, "0, Adam", form="+.3f")
    return found


def _compared(base: pd.Series, other: pd.Series) -> tuple[statistics.Estimate, statistics.Estimate]:
    """Rank correlation of cells and the mean difference of scores, with intervals by resampled seeds."""
    columns = base.index.get_level_values("column")
    draw = np.random.default_rng(0)

    def both(a, b):
        correlations = [
            stats.spearmanr(a[columns == column], b[columns == column]).statistic
            for column in dict.fromkeys(columns)
        ]
        return np.mean(np.nan_to_num(correlations)), np.mean(b - a)  # cells that are all alike have no rank

    def means(of, resampled):
        return np.array([np.mean(draw.choice(s, len(s)) if resampled else s) for s in of])

    value = both(means(base, False), means(other, False))
    drawn = [both(means(base, True), means(other, True)) for _ in range(statistics.RESAMPLES // 4)]
    low, high = np.quantile(drawn, [(1 - statistics.LEVEL) / 2, (1 + statistics.LEVEL) / 2], axis=0)
    return tuple(statistics.Estimate(*map(float, of)) for of in zip(value, low, high, strict=True))


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """A table per task: cells by optimisers."""
    found, shown = matrix.scores(frames["final"], together=True), {}
    for column, here in found.groupby("column", sort=False):
        wide = here.pivot(index="label", columns="form", values="text").loc[
            list(dict.fromkeys(here["label"]))
        ]
        wide = wide[list(dict.fromkeys(here["form"]))]
        wide = wide.rename_axis(columns=None).reset_index(names="cell")
        shown[f"{COLUMNS[column].title}: median steps to solve, or (test metric); real data: test metric"] = (
            wide
        )
    picked = frames["tuning"][frames["tuning"]["picked"]].drop_duplicates(["form", "column", "label"])
    rates = picked.pivot(index="label", columns=["column", "form"], values="learning_rate")
    rates.columns = [" ".join(name) for name in rates.columns]
    return shown | {"Learning rates picked": rates.map("{:g}".format).reset_index(names="cell")}


def figures(frames) -> dict[str, Figure]:
    """`optimisers`: the score of every cell by optimiser, a panel per task."""
    found = matrix.scores(frames["final"], together=True)
    look, columns = style.styles(found), list(dict.fromkeys(found["column"]))
    figure, axes = style.panels(1, len(columns), (3.6, 3.4), sharey=True)
    order = list(dict.fromkeys(found["form"]))
    for ax, column in zip(axes[0], columns, strict=True):
        for label, rows in found[found["column"] == column].groupby("label", sort=False):
            ax.plot([order.index(form) for form in rows["form"]], rows["score"], label=label, **look[label])
        ax.set_xticks(range(len(order)), [OTHERS.get(name, "Adam").replace(" ", "\n") for name in order])
        style.title(ax, COLUMNS[column].title, strong=True)
    axes[0, 0].set_ylabel("score (higher is better)")
    note = "Score: the share of the budget of steps that is left when a task is solved, or how far a test "
    seeds = frames["final"]["seed"].nunique()
    note += f"metric is from the baseline to the best. Mean over {seeds} seeds, all tuned."
    style.legend(figure, axes[0, 0], [note])
    return {"optimisers": figure}


EXPERIMENT = Experiment(
    "Does the optimiser change the ranking of cells?", CLAIMS, PRESETS, measure, judge, tables, figures,
    models={"form": "optimizers", "column": "columns", "label": "cells"},
)  # fmt: skip

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
