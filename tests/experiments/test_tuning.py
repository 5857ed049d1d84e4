"""Tuning: the same number of trials for every cell, a grid that grows, seeds of its own."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import cells
from experiments.lab import runs, tuning

SETTINGS = tuning.Settings()


class Made:
    """Stands for training: steps to solve by learning rate (and trial), the fastest at `best`."""

    def __init__(self, best, knob="", never=False):
        self.best, self.knob, self.never, self.configs = best, knob, never, {}

    def __call__(self, name, config):
        assert name not in self.configs
        self.configs[name] = config
        rates = config.optim.learning_rates or (config.optim.learning_rate,)
        of_knob = not self.knob or getattr(config.cell, self.knob) != type(config.cell)(8).__dict__[self.knob]
        rows = []
        for rate in rates:
            steps = 100 * (1 + abs(np.log10(rate / self.best))) * (1 if of_knob else 3)
            solved = steps <= config.train.steps and not self.never
            for seed in range(config.train.seed, config.train.seed + config.train.seeds):
                row = {"seed": seed, "learning_rate": rate, "solved": solved, "final_step": 500}
                row |= {"solved_step": steps if solved else None, "budget_steps": config.train.steps}
                rows.append(row | {"best_valid_metric": 1 / steps})
        return rows


def make(text, **train):
    options = {"steps": 400, "stop_when_solved": True} | train
    return runs.config(text, "delayed_recall", cell={"hidden_size": 8}, train=options)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_has_as_many_trials(name):
    found = tuning.trials(name, SETTINGS)
    assert len(found) == SETTINGS.initialisations
    tried = {(trial.label, rate) for trial in found for rate in trial.rates}
    assert len(tried) == SETTINGS.initialisations * len(SETTINGS.learning_rates)
    programs = {make(trial.label).cell for trial in found}
    assert len(programs) == 1 + min(2, len(cells.CELLS.cls(name).knobs))


def test_what_a_text_names_is_not_tried():
    assert {trial.label for trial in tuning.trials("gru:update_bias=1", SETTINGS)} == {"gru:update_bias=1"}


@pytest.mark.parametrize("best", [0.0001, 0.003, 0.3])
def test_the_grid_grows_until_the_best_rate_is_inside(best):
    train = Made(best)
    found = tuning.tuned(train, "x", make, "gru", SETTINGS)
    rows = pd.DataFrame(found.rows)
    assert rows["inside"].all() and set(rows[rows["picked"]]["learning_rate"]) == {best}
    assert found.config.optim.learning_rate == best and found.config.optim.learning_rates == ()
    assert rows["seed"].min() >= tuning.FIRST_SEED > found.config.train.seeds
    assert found.config.train.seed == 0 and found.config.train.race == 0
    assert tuning.by_rate(rows)["picked"].sum() == 1 and tuning.cost(rows) == 500 * len(rows)


def test_a_grid_that_must_not_grow_says_so():
    still = dataclasses.replace(SETTINGS, widenings=0)
    assert not any(row["inside"] for row in tuning.tuned(Made(0.3), "x", make, "gru", still).rows)


def test_the_initialisation_that_is_faster_is_picked_and_later_trials_race_the_fastest():
    train = Made(0.003, "update_bias")
    found = tuning.tuned(train, "x", make, "gru", SETTINGS)
    assert found.config.cell.update_bias == 2.0 and found.config.label == "gru"
    races = [config.train.to_beat for config in train.configs.values()]
    assert races == [300, 300, 100][: len(races)] or races == [0, 300, 100]


def test_where_nothing_is_solved_the_better_metric_counts_and_real_data_do_not_race():
    found = tuning.tuned(Made(0.01, never=True), "x", make, "lstm", SETTINGS)
    assert found.config.optim.learning_rate == 0.01
    train = Made(0.03)
    found = tuning.tuned(train, "x", lambda text: make(text, stop_when_solved=False), "lstm", SETTINGS)
    assert found.config.optim.learning_rate == 0.03
    assert all(config.train.race == 0 for config in train.configs.values())
