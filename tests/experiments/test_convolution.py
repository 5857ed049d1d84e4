"""SRU and convolutions: the quick preset end to end, and words that follow from the numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import convolution
from experiments.lab import identity
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED


def identities(values=1e-7):
    """The identity, and a control that is far off."""
    rows = {"check": convolution.CONVOLUTION, "seed": 0, "control": [False, False, True]}
    rows |= {"what": ["values", "gradients", "own"], "deviation": [values, 1e-7, 0.3]}
    return {"identities": pd.DataFrame(rows)}


def worked(task, noise=0.0, draw=None, **steps):
    """`work` of ten seeds each: steps to solve by cell, None for not solved."""
    draw = draw or np.random.default_rng(0)
    rows = []
    for cell, at in steps.items():
        for seed in range(10):
            step = at and at + seed + noise * draw.standard_normal()
            row = {"task": task, "cell": cell, "label": cell, "seed": seed, "learning_rate": 0.01}
            row |= {"solved": at is not None, "solved_step": step, "parameters": 100, "budget_steps": 300}
            rows.append(
                row | {"test_metric": 1.0, "best_test_metric": 0.9 if at is None else 1 - step / 1000}
            )
    return {"work": pd.DataFrame(rows)}


@pytest.mark.parametrize(
    "part, work, wanted",
    [
        ("qrnn_within", worked("within", sru=100, qrnn=100), TRUE),
        ("qrnn_within", worked("within", sru=200, qrnn=100), FALSE),
        ("qrnn_within", worked("within", sru=150, qrnn=100), UNDECIDED),
        ("qrnn_within", worked("within", sru=100, qrnn=None), NOT_TESTED),
        ("qrnn_within", worked("within", sru=None, qrnn=100), FALSE),
        ("knn_beyond", worked("beyond", sru=100, knn=100), TRUE),
        ("knn_beyond", worked("within", sru=100, knn=100), NOT_TESTED),
        ("tcn_within", worked("within", tcn=100), NOT_TESTED),
        ("window", worked("beyond", window=None), TRUE),
        ("window", worked("beyond", window=100), FALSE),
        ("recurs", worked("beyond", sru=100), TRUE),
        ("recurs", worked("beyond", sru=None), FALSE),
        ("digits", worked("digits", sru=100, tcn=200), TRUE),
        ("digits", worked("digits", sru=200, tcn=100), FALSE),
        ("digits", worked("digits", sru=100, tcn=100), UNDECIDED),
    ],
)
def test_each_part_on_both_sides_of_its_edge(part, work, wanted):
    found = convolution.judge(identities() | work)
    assert set(found) == set(convolution.EXPERIMENT.parts)
    assert found[f"convolution_{part}"].verdict == wanted
    few = {"work": work["work"][work["work"]["seed"] < 9]}
    assert convolution.judge(identities() | few)[f"convolution_{part}"].verdict == NOT_TESTED
    assert convolution.tables(identities() | work)


def test_the_identity_needs_a_control_that_could_have_failed():
    assert convolution.judge(identities())["convolution_is"].verdict == TRUE
    assert convolution.judge(identities(values=1e-3))["convolution_is"].verdict == FALSE
    blind = identities()["identities"].assign(deviation=1e-7)
    assert convolution.judge({"identities": blind})["convolution_is"].verdict == NOT_TESTED


def test_noise_at_the_edge_decides_nothing():
    draw, decided = np.random.default_rng(0), 0
    for _ in range(40):
        work = worked("within", noise=20, draw=draw, sru=150, qrnn=98.5)
        found = convolution.judge(identities() | work)["convolution_qrnn_within"].verdict
        decided += found != UNDECIDED
    assert decided <= 6


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(convolution.PRESETS["quick"], cells=("sru",))
    frames = measured(convolution.EXPERIMENT, settings)
    rows, control = frames["identities"], frames["identities"]["control"]
    assert (rows[~control]["deviation"] <= identity.ROUNDING).all()
    assert (rows[control]["deviation"] >= identity.FAR_OFF).all()
    assert frames["work"].groupby(["task", "label"]).size().eq(settings.seeds).all()
    if "units" in frames:  # of seeds that solved it
        assert frames["units"]["mean"].between(0, 1).all() and frames["units"]["std"].between(0, 0.5).all()
