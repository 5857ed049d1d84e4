"""Horizon: the quick preset end to end, the search, and the rules on made-up numbers and on noise."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import horizon
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED

ORTHOGONAL, IDENTITY = horizon.PLAIN


def test_gaps_are_tried_until_half_of_the_seeds_fail():
    tried = []

    def train(name, config, probe=None, settings=None):
        if probe:
            return [{"seed": 0, "factor": 1, "metric": 1.0}]
        gap, rates = config.task.gap, config.optim.learning_rates or (config.optim.learning_rate,)
        if not config.optim.learning_rates:
            tried.append(gap)
        solved = gap <= 20
        shared = {"solved": solved, "solved_step": 10.0 if solved else None, "budget_steps": 400}
        shared |= {"best_valid_metric": 0.5, "final_step": 400}
        return [
            {"seed": config.train.seed + i, "learning_rate": rate} | shared
            for rate in rates
            for i in range(config.train.seeds)
        ]

    settings = horizon.Settings(seeds=3, gaps=(4, 8, 16, 32, 64))
    found = horizon._search(train, settings, "delayed_recall", "gru")
    assert tried == [4, 8, 16, 32]
    assert {row["trained_at"] for row in found["lengths"]} == {16}
    assert {row["gap"] for row in found["tuning"]} == set(tried)


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(horizon.PRESETS["quick"], cells=("rnn",))
    frames = measured(horizon.EXPERIMENT, settings)
    assert (frames["runs"].groupby(["label", "gap"]).size() == settings.seeds).all()
    assert frames["tuning"].groupby("gap")["picked"].sum().eq(settings.tuning_seeds).all()


def made(seeds=10, budget=400, noise=10, draw=None, **steps):
    """Steps to solve gaps 8, 16, 32, ... on both tasks: of each cell a list, None for a gap that fails."""
    draw = draw or np.random.default_rng(0)
    labels = {"orthogonal": ORTHOGONAL, "identity": IDENTITY}
    rows = []
    for name, by_gap in steps.items():
        for number, at in enumerate(by_gap):
            for seed in range(seeds):
                step = at and max(1.0, at + noise * draw.standard_normal())
                step = step if step and step <= budget else None
                label = labels.get(name, name)
                row = {"cell": label.split(":")[0], "label": label, "seed": seed, "gap": 8 * 2**number}
                row |= {"solved": step is not None, "solved_step": step, "budget_steps": budget}
                rows += [row | {"task": task} for task in horizon.WORDS]
    return {"runs": pd.DataFrame(rows), "lengths": pd.DataFrame()}


def verdict(part, frames):
    found = horizon.judge(frames)
    assert set(found) == set(horizon.EXPERIMENT.parts)
    assert found[f"{part}_recall"].verdict == found[f"{part}_adding"].verdict
    return found[f"{part}_recall"].verdict


@pytest.mark.parametrize(
    "part, steps, wanted",
    [
        ("lstm_helps", {"lstm": [50, 100, 200], "orthogonal": [80, None]}, TRUE),
        ("lstm_helps", {"lstm": [50, 100], "orthogonal": [80, None], "identity": [40, 60]}, FALSE),
        ("lstm_helps", {"lstm": [50, None], "identity": [80, 200]}, FALSE),
        ("lstm_helps", {"lstm": [100], "orthogonal": [101]}, UNDECIDED),
        ("lstm_helps", {"lstm": [None], "orthogonal": [None]}, NOT_TESTED),
        ("lstm_helps", {"lstm": [50]}, NOT_TESTED),
        ("lstm_ends", {"lstm": [50, None]}, TRUE),
        ("lstm_ends", {"lstm": [50, 60]}, FALSE),
        ("lstm_ends", {"gru": [50, 60]}, NOT_TESTED),
        ("lstm_grows", {"lstm": [50, 100, 200]}, TRUE),
        ("lstm_grows", {"lstm": [200, 100, 50]}, FALSE),
        ("lstm_grows", {"lstm": [100, 100, 100]}, UNDECIDED),
        ("lstm_grows", {"lstm": [50, 100, None]}, NOT_TESTED),
        ("gru_faster", {"gru": [50, 90], "lstm": [80, 150]}, TRUE),
        ("gru_faster", {"gru": [80, 150], "lstm": [50, 90]}, FALSE),
        ("gru_faster", {"gru": [100, 100], "lstm": [100, 100]}, UNDECIDED),
        ("gru_faster", {"gru": [None], "lstm": [100]}, NOT_TESTED),
    ],
)
def test_each_part_on_both_sides_of_its_edge(part, steps, wanted):
    assert verdict(part, made(**steps)) == wanted
    assert verdict(part, made(seeds=9, **steps)) == NOT_TESTED


@pytest.mark.slow
def test_noise_decides_nothing():
    """Cells that are the same, of noise: each rule decides in one of twenty draws or fewer, give or take."""
    draw, decided = np.random.default_rng(0), {"lstm_helps": 0, "lstm_grows": 0, "gru_faster": 0}
    for _ in range(15):
        alike = {name: [200, 200, 200] for name in ("lstm", "gru", "orthogonal")}
        frames = made(noise=60, draw=draw, **alike)
        for part in decided:
            decided[part] += horizon.judge(frames)[f"{part}_recall"].verdict in (TRUE, FALSE)
    assert all(count <= 4 for count in decided.values()), decided


def test_fewer_parameters_are_counted():
    found = horizon.judge(made(lstm=[50]))["gru_fewer"]
    assert found.verdict == TRUE and found.number.startswith("75")
