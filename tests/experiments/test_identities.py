"""Identities hold on the cells and their controls do not; words that follow from the numbers."""

import pandas as pd
import pytest

from experiments import convolution, identities
from experiments.lab import identity


def made_up(check, values=1e-7, gradients=1e-6, control=0.1):
    rows, told = [], {"check": check, "seed": 0}
    rows.append(told | {"what": "values, scan", "control": False, "deviation": values})
    rows.append(told | {"what": "gradients, scan", "control": False, "deviation": gradients})
    rows.append(told | {"what": "values, scan", "control": True, "deviation": control})
    return {"identities": pd.DataFrame(rows)}


@pytest.mark.parametrize(
    "numbers, rnn, structure",
    [
        (dict(), "holds", "holds in part"),
        (dict(gradients=1e-3), "holds in part", "does not hold here"),
        (dict(values=1e-3), "does not hold here", "does not hold here"),
        (dict(control=1e-6), "not tested here", "not tested here"),
    ],
)
def test_the_verdict_follows_the_numbers(numbers, rnn, structure):
    assert identities.judge(made_up(identities.RNN, **numbers))["gru_is_rnn"].verdict == rnn
    verdict = convolution.judge(made_up(convolution.CONVOLUTION, **numbers))["sru_convolution"]
    assert verdict.verdict == structure and "were not trained" in verdict.evidence


def test_they_hold_on_the_cells_and_controls_do_not(measured):
    settings = identities.PRESETS["quick"]
    frames = measured(identities.EXPERIMENT, settings)
    rows = frames["identities"]
    assert set(rows["check"]) == {identities.RNN, identities.STORE}
    control = rows["control"]
    assert (rows[~control]["deviation"] <= identity.ROUNDING).all()
    assert (rows[control]["deviation"] >= identity.FAR_OFF).all()
    assert (rows[(rows["check"] == identities.STORE) & ~control]["deviation"] == 0).all()
