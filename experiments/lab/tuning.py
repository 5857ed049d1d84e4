"""Every cell is tuned alike before it is compared: as many trials, on seeds that the comparison does not use.

A trial is one learning rate with one initialisation: the cell's default one or one of its `knobs`. A cell
with fewer knobs has more learning rates, between the others. The grid of rates grows until the best one is
inside it. Trials count: `cost` says how many optimiser steps they took.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

import cells
import configs
from experiments.lab import protocol, runs
from train.config import OptimConfig, RunConfig

FIRST_SEED = 1000  # of tuning; comparisons have 0, 1, 2, ...
# How many times the steps of the fastest trial the others are given: enough to draw what a rate costs.
RACE = 2.0
LADDER = tuple(float(f"{digit}e{power}") for power in range(-6, 2) for digit in (1, 3))  # of learning rates


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    """Those of an experiment whose cells are tuned: `seeds` are the ones that count."""

    seeds: int = 10
    tuning_seeds: int = 2
    learning_rates: tuple = (0.001, 0.003, 0.01, 0.03)
    initialisations: int = 3  # tried of each cell, the default one among them
    widenings: int = 4

    least: ClassVar = {"widenings": 0}

    def models(self) -> Iterable[tuple]:
        """What is tuned and trained: the arguments of `part`."""
        return ()

    def part(self, train: Callable, *model) -> Any:
        """Tunes and trains one of `models`, by `train` as in `tuned`."""

    def runs(self, ended: protocol.Ended = lambda name, config: None):
        known = protocol.Known(ended)
        for model in self.models():
            known.follow(self.part, *model)
        return known.runs

    def __post_init__(self):
        super().__post_init__()
        most = FIRST_SEED
        self.require("seeds", self.seeds <= most, f"at most {most}: those from there on are for tuning")


class Trial(NamedTuple):
    """A cell with one initialisation, and the learning rates that it is tried with."""

    label: str
    rates: tuple[float, ...]


class Tuned(NamedTuple):
    """What tuning found.

    Attributes:
      rows: one per trial, rate and seed: those of `store.Lab.train`, `trial`, `stops`, `higher_is_better`,
        whether it is of the trial and rate that were `picked`, and whether these are `inside` of the grid.
      config: the run with these, on the seeds that count.
    """

    rows: list[dict]
    config: RunConfig


def trials(text: str, settings: Settings) -> list[Trial]:
    """The same number of trials for every cell; an option that its text names is not tried."""
    name, options = configs.with_options(text)
    knobs = [knob for knob in cells.CELLS.cls(name).knobs if not knob.keys() & options.keys()]
    found = [Trial(text, settings.learning_rates)]
    found += [Trial(_with(text, knob), settings.learning_rates) for knob in knobs]
    found = found[: settings.initialisations]
    missing = settings.initialisations - len(found)
    for number in range(1, missing + 1):
        between = 10 ** (number / (2 * (missing + 1)))
        found.append(Trial(text, tuple(float(f"{rate * between:.2g}") for rate in settings.learning_rates)))
    return found


def _with(text: str, knob: dict) -> str:
    return ":".join([text, *(f"{name}={str(value).lower()}" for name, value in knob.items())])


def tuned(train: Callable, name: str, make: Callable[[str], RunConfig], text: str, settings: Settings):
    """Tunes a cell on a task.

    Args:
      train: `store.Lab.train`, or what stands for it.
      name: of the runs.
      make: the run of a cell with such a text, without learning rate and seeds.
      text: the cell.

    Returns:
      Tuned.
    """
    better, rows = runs.higher_is_better(make(text)), []
    numbered = list(enumerate(trials(text, settings)))

    def try_(number, trial, rates, suffix=""):
        config = _tuning(make(trial.label), text, settings, rates, _fastest(rows))
        for row in train(f"{name}-tune{number}{suffix}", config):
            told = {"trial": trial.label, "stops": config.train.stop_when_solved, "higher_is_better": better}
            rows.append(row | told)

    for number, trial in numbered:
        try_(number, trial, trial.rates)
    for _ in range(settings.widenings):
        label, rate = best(pd.DataFrame(rows))
        further = _further(rate, {row["learning_rate"] for row in rows if row["trial"] == label})
        if further is None:
            break
        number, trial = next((number, trial) for number, trial in numbered if trial.label == label)
        try_(number, trial, (further,), f"-{further:g}")
    label, rate = best(pd.DataFrame(rows))
    inside = _further(rate, {row["learning_rate"] for row in rows if row["trial"] == label}) is None
    for row in rows:
        row["picked"] = row["trial"] == label and row["learning_rate"] == rate
        row["inside"] = inside
    return Tuned(rows, _final(make(label), text, settings, rate))


def tuned_and_trained(
    train: Callable, name: str, make, text: str, settings: Settings, *probe, suffix: str = "-final"
):
    """As `tuned`: its rows, and those of the run with what was picked, of that name and `suffix`.

    Args:
      probe: as for `store.Lab.train`, with what it depends on.
    """
    rows, final = tuned(train, name, make, text, settings)
    return rows, train(name + suffix, final, *probe)


def best(rows: pd.DataFrame) -> tuple[str, float]:
    """The trial and learning rate that solve the task with most seeds, then in the fewest steps, then have
    the best validation metric; where solving is not what ends a run, by that metric alone."""
    stops, higher = bool(rows["stops"].iloc[0]), bool(rows["higher_is_better"].iloc[0])

    def rank(group):
        metric = group["best_valid_metric"].astype(float)
        metric = metric.fillna(-np.inf) if higher else -metric.fillna(np.inf)
        if not stops:
            return (metric.mean(),)
        steps = group["solved_step"].astype(float).fillna(group["budget_steps"])
        return group["solved"].sum(), -steps.mean(), metric.mean()

    groups = dict(list(rows.groupby(["trial", "learning_rate"], sort=False)))
    return max(groups, key=lambda key: rank(groups[key]))


def _further(rate: float, tried: set[float]) -> float | None:
    """The next learning rate of the ladder, where `rate` is the lowest or highest tried."""
    if rate == max(tried):
        return next((rung for rung in LADDER if rung > 1.01 * rate), None)
    if rate == min(tried):
        return next((rung for rung in reversed(LADDER) if rung < 0.99 * rate), None)
    return None


def _fastest(rows: list[dict]) -> int:
    """Steps in which the fastest trial so far solved the task with all its seeds; 0: none has."""
    if not rows:
        return 0
    by = pd.DataFrame(rows).astype({"solved_step": float}).groupby(["trial", "learning_rate"])["solved_step"]
    steps = by.max()[by.count() == by.size()]
    return int(steps.min()) if len(steps) else 0


def _tuning(config: RunConfig, text: str, settings: Settings, rates: tuple, to_beat: int) -> RunConfig:
    race = {"race": RACE, "to_beat": to_beat} if config.train.stop_when_solved else {}
    return dataclasses.replace(
        config,
        label=text,
        optim=dataclasses.replace(
            config.optim, learning_rates=rates, learning_rate=OptimConfig.learning_rate
        ),
        train=dataclasses.replace(config.train, seed=FIRST_SEED, seeds=settings.tuning_seeds, **race),
    )


def _final(config: RunConfig, text: str, settings: Settings, rate: float) -> RunConfig:
    return dataclasses.replace(
        config,
        label=text,
        optim=dataclasses.replace(config.optim, learning_rates=(), learning_rate=rate),
        train=dataclasses.replace(config.train, seed=0, seeds=settings.seeds),
    )


def cost(rows: pd.DataFrame) -> int:
    """Optimiser steps of all trials together."""
    return int(rows["final_step"].sum())


def by_rate(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per trial and learning rate: `steps` to solve (mean over seeds, the budget where one did not),
    `solved`, `metric` (mean of the best on validation), `picked`."""
    steps = rows["solved_step"].astype(float).fillna(rows["budget_steps"])
    found = rows.assign(steps=steps, metric=rows["best_valid_metric"].astype(float))
    return found.groupby(["trial", "learning_rate"], as_index=False, sort=False).agg(
        steps=("steps", "mean"), solved=("solved", "sum"), metric=("metric", "mean"), picked=("picked", "any")
    )


def picked_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per label: what was picked, out of how many trials, whether inside of the grid, and the cost."""
    found = []
    for label, group in rows.groupby("label", sort=False):
        trials = by_rate(group)
        one = trials[trials["picked"].astype(bool)].iloc[0]
        row = {"cell": label, "picked": one["trial"], "learning rate": f"{one['learning_rate']:g}"}
        row |= {"of trials": len(trials), "inside": "yes" if group["inside"].all() else "no"}
        found.append(row | {"steps of all": f"{cost(group):,}"})
    return pd.DataFrame(found)
