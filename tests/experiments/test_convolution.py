"""SRU and convolutions: the quick preset end to end, and words that follow from the numbers."""

import dataclasses

import pandas as pd
import pytest

from experiments import convolution
from experiments.lab import identity


def identities(values=1e-7):
    """The identity, and a control that is far off."""
    rows = {"check": convolution.CONVOLUTION, "seed": 0, "control": [False, False, True]}
    rows |= {"what": ["values", "gradients", "own"], "deviation": [values, 1e-7, 0.3]}
    return {"identities": pd.DataFrame(rows)}


def worked(test=None, **steps):
    """`work` on two tasks, 5 seeds: steps to solve by cell, None for not solved, the same on both."""
    rows = [
        {
            "task": task, "cell": cell, "label": cell, "seed": seed, "learning_rate": 0.01, "chosen": True,
            "solved": at is not None, "solved_step": at and at + seed, "higher_is_better": True,
            "test_metric": (1.0 if at else (test or {}).get(cell, 0.5)) + 0.001 * seed, "parameters": 100,
            "budget_steps": 300,
        }
        for task in ("near", "far")
        for cell, at in steps.items()
        for seed in range(5)
    ]  # fmt: skip
    return {"work": pd.DataFrame(rows)}


ALIKE = {"sru": 100, "qrnn": 100, "knn": 100, "tcn": 100, "window": None}


@pytest.mark.parametrize(
    "work, verdict",
    [
        (worked(**ALIKE), "holds"),
        (worked(**ALIKE | {"qrnn": 50}), "holds in part"),
        (worked(**ALIKE | {"tcn": 50}), "holds in part"),
        (worked(**ALIKE | {"window": 100}), "holds in part"),  # nothing that takes a recurrence
        (worked(**ALIKE | {"qrnn": 50, "knn": 50}), "does not hold here"),
        (worked(**ALIKE | {"sru": None}), "does not hold here"),
        (worked({"sru": 0.7}, **dict.fromkeys(ALIKE)), "holds in part"),  # nobody solves it
        (worked({"qrnn": 0.7, "knn": 0.7}, **dict.fromkeys(ALIKE)), "does not hold here"),
        (worked(sru=100, qrnn=100), "holds in part"),  # no kernel network
    ],
)
def test_verdicts_on_the_work_of_convolutions(work, verdict):
    assert convolution.judge(identities() | work)["sru_convolution"].verdict == verdict
    assert any("work of convolutions" in title for title in convolution.tables(identities() | work))
    untrue = identities(values=1e-3) | work
    assert convolution.judge(untrue)["sru_convolution"].verdict == "does not hold here"


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(convolution.PRESETS["quick"], cells=("sru",))
    frames = measured(convolution.EXPERIMENT, settings)
    rows, control = frames["identities"], frames["identities"]["control"]
    assert (rows[~control]["deviation"] <= identity.ROUNDING).all()
    assert (rows[control]["deviation"] >= identity.FAR_OFF).all()
    assert frames["work"].groupby(["task", "label"])["chosen"].sum().eq(settings.seeds).all()
    units = frames["units"]
    assert units["mean"].between(0, 1).all() and units["std"].between(0, 0.5).all()
    assert set(units["seed"]) == set(range(settings.seeds))
