"""Horizon: the quick preset end to end, the search, and what follows from made-up numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import horizon
from experiments.lab import statistics
from experiments.lab.store import Lab


class _Made(Lab):
    """Rows of seeds that solve a gap up to a limit of their own; nothing trains."""

    def __init__(self, limits):
        self.limits, self.tried = limits, []

    def train(self, name, config, probe=None, settings=None):
        gap = config.task.gap
        self.tried.append(gap)
        assert config.task.longest >= gap
        return [
            {
                "seed": seed, "learning_rate": rate, "solved": gap <= limit, "valid_metric": 0.5,
                "solved_step": 10.0 if gap <= limit else None,
            }
            for rate in config.optim.learning_rates
            for seed, limit in enumerate(self.limits)
        ]  # fmt: skip


def _settings(**values):
    return horizon.Settings(seeds=3, shortest=4, longest=64, bisections=2, **values)


def test_the_gap_is_doubled_until_half_of_the_seeds_fail_and_then_bisected():
    lab = _Made([5, 22, 40])
    rows = pd.DataFrame(horizon._search(lab.train, _settings(), "delayed_recall", "gru"))
    assert lab.tried == [4, 8, 16, 32, 24, 20]
    found = statistics.horizons(rows)
    assert found["horizon"].tolist() == [4, 20, np.inf]  # the last one solved all that were tried
    assert statistics.median(found["horizon"]).value == 20


def test_a_cell_that_never_fails_is_censored_at_the_longest_gap():
    lab = _Made([1000] * 3)
    rows = pd.DataFrame(horizon._search(lab.train, _settings(), "delayed_recall", "gru"))
    assert lab.tried == [4, 8, 16, 32, 64]
    found = statistics.horizons(rows)
    assert np.isinf(found["horizon"]).all() and (found["longest"] == 64).all()


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(horizon.PRESETS["quick"], cells=("rnn",))
    frames = measured(horizon.EXPERIMENT, settings)
    lengths = frames["lengths"]
    assert len(lengths) == len(settings.cells) * settings.seeds * len(horizon.FACTORS)
    assert lengths["metric"].between(0, 1).all() and lengths["higher_is_better"].all()
    chosen = frames["runs"][frames["runs"]["chosen"]]
    assert (chosen.groupby(["label", "gap"]).size() == settings.seeds).all()


def _frames(horizons, steps):
    runs = pd.DataFrame(
        {"task": "adding", "cell": cell, "label": cell, "seed": seed, "gap": gap, "chosen": True,
         "solved": gap <= limit}
        for cell, limit in horizons.items()
        for seed in range(5)
        for gap in (8, 16, 32, 64)
    )  # fmt: skip
    lengths = pd.DataFrame(
        {"task": "adding", "cell": cell, "label": cell, "seed": seed, "factor": 1, "gap": 16,
         "solved_step": step + seed, "budget_steps": 400}
        for cell, step in steps.items()
        for seed in range(5)
    )  # fmt: skip
    return {"runs": runs, "lengths": lengths}


@pytest.mark.parametrize(
    "horizons, verdict",
    [
        ({"rnn": 8, "lstm": 32}, "holds"),
        ({"rnn": 8, "lstm": 64}, "holds in part"),  # it helps, and no end was found
        ({"rnn": 32, "lstm": 32}, "does not hold here"),
        ({"rnn": 8}, "not tested here"),
    ],
)
def test_the_verdict_on_lstm_follows_the_numbers(horizons, verdict):
    frames = _frames(horizons, {"gru": 50, "lstm": 50})
    assert horizon.judge(frames)["lstm_length"].verdict == verdict


@pytest.mark.parametrize(
    "steps, verdict",
    [
        ({"gru": 50, "lstm": 90}, "holds"),
        ({"gru": 50, "lstm": 51}, "holds in part"),
        ({"gru": 90, "lstm": 50}, "does not hold here"),
    ],
)
def test_the_verdict_on_gru_follows_the_numbers(steps, verdict):
    got = horizon.judge(_frames({"rnn": 8, "lstm": 8}, steps))["gru_fast"]
    assert got.verdict == verdict
    assert "75%" in got.evidence
