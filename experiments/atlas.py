"""Which recurrence for which need: every cell, tuned alike, on the tasks that stand for each need.

  python -m experiments.atlas
  python -m experiments.atlas --cells=lstm,gru,sru --config.columns=recall_100,parity
  python -m experiments.atlas --preset=full --workers=2
  python -m experiments.atlas --preset=full --config.only_trained=true
  python -m experiments.atlas --preset=full --config.only_trained=true --beside=DIR

Each cell stands by itself ("bare") or in a gated residual block with a short convolution ("block", see
`train.layers.Gated`), with as many parameters; or ("state") bare, with as many numbers in the state.
It is tuned on seeds of its own (`lab/tuning.py`), then ten others count. Made-up tasks are trained until
solved, real data for the whole budget, of which the best result on validation is tested (`lab/needs.py`).
Attention is the control, the window of eight inputs, which has no recurrence, the floor. The last two
commands show what the one before them has trained so far, alone and beside other evidence, such as
experiments/figures/claims/atlas; the full preset needs the data of train/README.md and, for `vowels`, the
extra `series`.
"""

import dataclasses
import itertools
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import bench, experiment, matrix, matrix_figures, ranking, runs, timing, tuning
from experiments.lab.experiment import Experiment, Verdict
from experiments.lab.needs import COLUMNS
from experiments.lab.protocol import NotYet
from train import files
from train.config import RunConfig

CLAIMS = {}  # it answers a question


# The order in which they are trained; others come after them.
FIRST = ("rnn", "lstm", "gru", "sru", "window", "attention", "mingru", "mamba2", "deltanet", "s5", "slstm")
EVERY = (*FIRST, *(name for name in cells.names() if name not in FIRST))


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = EVERY
    columns: tuple = tuple(COLUMNS)
    forms: tuple = ("bare",)
    shorter: int = 1  # divides every budget of steps, for trying things out
    only_trained: bool = False  # train nothing: a look at what has been trained so far
    timed_on: str = "recall_100"  # the column whose optimiser steps are timed
    rounds: int = 15

    choices: ClassVar = {"columns": tuple(COLUMNS), "forms": tuple(bench.FORMS), "timed_on": tuple(COLUMNS)}

    def models(self):
        """Form, cell, column; what a state of one size holds is asked where there is much to keep."""
        for form, cell, column in itertools.product(self.forms, self.cells, self.columns):
            bounded = COLUMNS[column].need == "capacity" and cell.split(":")[0] not in bench.UNBOUNDED
            if form != "state" or bounded:
                yield form, cell, column

    def part(self, train, *model):
        return _trained(train, self, *model)

    def runs(self, ended=lambda name, config: None):
        return {} if self.only_trained else super().runs(ended)

    def configs(self):
        """Of every form, cell and column one: all of them together would take a minute to make."""
        models, seen = list(self.models()), set()
        for model in models:
            if not set(model) <= seen:
                seen |= set(model)
                yield _config(self, *model)


PRESETS = {
    "quick": Settings(
        cells=("rnn", "gru"), columns=("recall_30", "parity"), seeds=2, tuning_seeds=1,
        learning_rates=(0.003, 0.01), initialisations=1, widenings=0, shorter=50, timed_on="recall_30",
        rounds=2,
    ),
    "fast": Settings(
        cells=("rnn", "lstm", "gru", "sru", "window", "attention", "mamba2"),
        columns=("recall_30", "recall_100", "select_64", "parity", "pixels"),
    ),
    "full": Settings(forms=("bare", "state", "block")),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial of every cell; `final`: the seeds that count; `time`: ms of an optimiser step of
    one seed, all cells in turn."""
    tuned, final = [], []
    for form, cell, column in settings.models():
        told = {"column": column, "form": form, **runs.labels(cell)}
        try:
            trials, rows = _trained(
                lab.kept if settings.only_trained else lab.train, settings, form, cell, column
            )
        except NotYet:
            continue
        tuned += [told | row for row in trials]
        final += [told | row for row in rows]
    timed = {"cells": settings.cells, "column": settings.timed_on, "rounds": settings.rounds}
    # Another choice of cells, which uses the same runs, is timed by itself: all in turn.
    time = lab.do(f"time-{files.digest(timed)[:12]}", timed, lambda: _time(settings))
    return {"tuning": pd.DataFrame(tuned), "final": pd.DataFrame(final), "time": pd.DataFrame(time)}


def _time(settings) -> list[dict]:
    cases = []
    for cell in settings.cells:
        config = _config(settings, "bare", cell, settings.timed_on)
        train = dataclasses.replace(config.train, seeds=1, eval_every=10, stop_when_solved=False)
        config = dataclasses.replace(config, train=train)
        labels = runs.labels(cell) | {"column": settings.timed_on}
        cases.append(
            timing.Case(labels, lambda config=config: runs.training(config), config.train.eval_every)
        )
    return timing.interleaved(cases, settings.rounds)


def _trained(train, settings, form, cell, column):
    name = f"{column}-{form}-{runs.file_name(cell)}"
    return bench.tuned_and_trained(
        train, name, lambda text: _config(settings, form, text, column), cell, settings
    )


def _config(settings: Settings, form: str, cell: str, column: str) -> RunConfig:
    return bench.config(COLUMNS[column], cell, form, settings.shorter)


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """None: what follows is the advice, `matrix.advice`."""
    return {}


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """The advice; the matrix of each form; ranks; what tuning picked, and what it cost."""
    found, costs = matrix.scores(frames["final"]), _costs(frames)
    shown = {"What to try first, bare": matrix.advice(found[found["form"] == "bare"], costs)}
    for form, here in found.groupby("form", sort=False):
        wide = here.assign(text=here["text"] + here["alike"].map({True: " *", False: ""}))
        wide = wide.pivot(index="label", columns="column", values="text")
        columns = [name for name in COLUMNS if name in wide]
        wide = wide.loc[list(dict.fromkeys(here["label"])), columns].fillna("not run")
        titled = wide.rename(columns=lambda name: COLUMNS[name].title).reset_index(names="cell")
        shown[f"{form}: median steps to solve, or (test metric); real data: test metric; *: as the best"] = (
            titled
        )
    seconds = matrix.seconds(frames["final"], costs)
    if len(seconds):
        shown["Equal seconds: median s to solve, bare, steps x ms a step of one seed"] = seconds
    rows = []
    for one in matrix.overall(found).to_dict("records") if len(found) else ():
        rows.append({"form": one["form"], "cell": one["label"], "score": f"{one['interval']:.2f}"})
    if rows:
        shown["Over all columns: interquartile mean of scores [95 %]"] = pd.DataFrame(rows)
    picked = frames["tuning"][frames["tuning"]["picked"]].drop_duplicates(["form", "column", "label"])
    text = picked["learning_rate"].map("{:g}".format) + _knobs(picked)
    wide = picked.assign(text=text).pivot(index=["form", "label"], columns="column", values="text")
    wide = wide[[name for name in COLUMNS if name in wide]]
    shown["Learning rate and initialisation picked"] = wide.fillna("").reset_index()
    return shown


def _knobs(rows: pd.DataFrame) -> pd.Series:
    knobs = [
        trial[len(label) :].lstrip(":") for trial, label in zip(rows["trial"], rows["label"], strict=True)
    ]
    return pd.Series([f", {knob}" if knob else "" for knob in knobs], index=rows.index)


def _costs(frames) -> dict[str, float]:
    """ms of an optimiser step by label."""
    time = frames["time"]
    return dict(zip(time["label"], time["ms"].astype(float), strict=True)) if "ms" in time else {}


def figures(frames) -> dict[str, Figure]:
    """`needs`: bare cells by needs; `atlas`, bare ones, `blocks` and `states` by tasks; `ranks`: who is told
    apart over all columns."""
    found, final, made = matrix.scores(frames["final"]), frames["final"], {}
    bare = found[found["form"] == "bare"]
    if len(bare):
        rows = matrix.by_need(bare)
        made["needs"] = matrix_figures.by_need(rows, _costs(frames), _needs_note(frames))
    for form, name in (("bare", "atlas"), ("block", "blocks"), ("state", "states")):
        here = found[found["form"] == form]
        if len(here):
            states = final[final["form"] == form]
            cells_of = states.groupby("column")["label"].nunique()
            most = max(
                (name for name in COLUMNS if name in cells_of), key=cells_of.get
            )  # the first with most
            states = states[states["column"] == most]
            states = dict(zip(states["label"], map(int, states["state_size"]), strict=True))
            made[name] = matrix_figures.by_task(
                here, _costs(frames) if form == "bare" else {}, states, _note(frames, form)
            )
    wide = found[found["form"] == "bare"].pivot(index="column", columns="label", values="score")
    wide = wide.dropna(axis=1)
    if min(wide.shape) > 2:
        ranked = ranking.critical_difference(wide, test="nemenyi")
        made["ranks"] = ranking.critical_difference_figure(ranked)
    return made


def _needs_note(frames) -> str:
    seeds = frames["final"].groupby(["form", "column", "label"]).size().min()
    return (
        f"Bare cells, equal parameters, {seeds} seeds, each tuned alike (learning rate, initialisation, "
        "other seeds). Score, 0 to 1: on made-up tasks the share of the budget of steps that is left when "
        "solved (0: not solved), on data how far from the baseline to the best cell here; the mean over "
        "the tasks named, below it 95 % of resampled seeds. Bold: not told apart from the best on most of "
        "them. Shade of the cost: the cheapest over it."
    )


def _note(frames, form) -> str:
    seeds = frames["final"].groupby(["form", "column", "label"]).size().min()
    cells = {
        "bare": "Bare cells, equal parameters",
        "block": "Cells in gated residual blocks, equal parameters",
        "state": f"Bare cells, equal state ({bench.STATE} real numbers)",
    }
    return (
        f"{cells[form]}, {seeds} seeds, each tuned alike (learning rate, initialisation, other "
        "seeds). Made-up tasks: median steps to solve; in brackets the test metric, where fewer than half of "
        "the seeds solve it; m/n: where not all do. Real data: test accuracy; chorales: nats a frame, "
        "characters: bits, lower is better. Shade: the share of the budget that is left, or how far from "
        "baseline to best. Bold: not told apart from the best of its column."
    )


EXPERIMENT = Experiment(
    "Which recurrence for which need?", {}, PRESETS, measure, judge, tables, figures,
    models={"form": "forms", "label": "cells", "column": "columns"},
)  # fmt: skip

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
