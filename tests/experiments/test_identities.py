"""Identities hold on the cells and their controls do not; words that follow from the numbers."""

import numpy as np
import pandas as pd
import pytest

from experiments import identities
from experiments.lab import identity
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED


def made_up(check, values=1e-7, gradients=1e-6, control=0.1):
    """Three seeds, of which the worst ones are these."""
    rows = [("values, scan", False, values), ("gradients, scan", False, gradients)]
    rows += [("values, scan", True, control)]
    frame = pd.DataFrame(rows, columns=["what", "control", "deviation"]).assign(check=check)
    better = np.where(frame["control"], 2.0, 0.5)
    seeds = [frame.assign(seed=seed, deviation=frame["deviation"] * better**seed) for seed in range(3)]
    return {"identities": pd.concat(seeds, ignore_index=True)}


@pytest.mark.parametrize(
    "numbers, values, gradients, control",
    [
        (dict(), TRUE, TRUE, TRUE),
        (dict(values=0.99e-5, gradients=1.01e-5), TRUE, UNDECIDED, TRUE),
        (dict(values=1.01e-2, gradients=0.99e-2), FALSE, UNDECIDED, TRUE),
        (dict(control=1.01e-2), TRUE, TRUE, TRUE),
        (dict(control=0.99e-2), NOT_TESTED, NOT_TESTED, UNDECIDED),
        (dict(control=1e-6), NOT_TESTED, NOT_TESTED, FALSE),
        (dict(control=np.nan), NOT_TESTED, NOT_TESTED, NOT_TESTED),
        (dict(gradients=np.nan), TRUE, NOT_TESTED, TRUE),
    ],
)
def test_the_verdicts_follow_the_numbers(numbers, values, gradients, control):
    found = identities.judge(made_up(identities.RNN, **numbers))
    assert [found[part].verdict for part in identities.EXPERIMENT.parts] == [values, gradients, control]


def test_nothing_is_said_of_what_was_not_measured():
    found = identities.judge(made_up(identities.STORE))
    assert {verdict.verdict for verdict in found.values()} == {NOT_TESTED}


def test_they_hold_on_the_cells_and_controls_do_not(measured):
    settings = identities.PRESETS["quick"]
    frames = measured(identities.EXPERIMENT, settings)
    rows = frames["identities"]
    assert set(rows["check"]) == {identities.RNN, identities.STORE}
    control = rows["control"]
    assert (rows[~control]["deviation"] <= identity.ROUNDING).all()
    assert (rows[control]["deviation"] >= identity.FAR_OFF).all()
    assert (rows[(rows["check"] == identities.STORE) & ~control]["deviation"] == 0).all()
