"""Gradients: the quick preset end to end, and what follows from made-up numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import gradients
from experiments.lab import study


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("gradients")
    settings = dataclasses.replace(gradients.PRESETS["quick"], cells=("rnn",), lyapunov=True)
    console = Console(quiet=True)
    return study.run(gradients, settings, workdir, console), settings, workdir


def test_runs_end_to_end(measured):
    frames, settings, workdir = measured
    gains = frames["gains"]
    assert set(gains["stage"]) == {"initial", "trained"}
    assert set(gains["seed"]) == set(range(settings.seeds))
    near = gains[gains["k"] == 0]
    assert (near["state"] == 0).all()  # the identity
    assert len(frames["lyapunov"]) == 2 * settings.seeds * settings.hidden_size
    for name in ("gradients.png", "scaled.png", "report.md", "environment.json", "gains.csv"):
        assert (workdir / name).stat().st_size > 0
    assert "Settings: " in (workdir / "report.md").read_text()


@pytest.mark.slow
def test_kept_tables_give_the_same_verdict(measured):
    frames, _, workdir = measured
    assert gradients.verdicts(study.load(workdir)) == gradients.verdicts(frames)


def test_the_rate_and_the_reach_are_those_of_the_curve():
    k = np.arange(101)
    rows = pd.DataFrame({"k": k, "state": -0.2 * k, "inputs": np.where(k < 50, -1.0, -np.inf)})
    rows = rows.assign(label="rnn", cell="rnn", stage="initial", seed=0)
    state, inputs = gradients.decay(rows).to_dict("records")
    assert state["rate"] == pytest.approx(-0.2) and state["reach"] == 31  # 1e-6.2
    assert inputs["rate"] == pytest.approx(0.0, abs=1e-9) and inputs["reach"] == 50
    kept = gradients.decay(rows.assign(state=0.0)).to_dict("records")[0]
    assert kept["reach"] == np.inf


@pytest.mark.parametrize(
    "gains, verdict",
    [
        ({1.0: -20, 2.0: 15}, "holds"),
        ({1.0: -20, 2.0: 0}, "holds in part"),
        ({1.0: 1, 2.0: 0, 4.0: -20}, "does not hold here"),
    ],
)
def test_the_verdict_follows_the_numbers(gains, verdict):
    scaled = pd.DataFrame(
        {"scale": scale, "input_scale": 1.0, "seed": seed, "k": 100, "state": gain + 0.1 * seed}
        for scale, gain in gains.items()
        for seed in range(5)
    )
    curve = pd.DataFrame({"k": range(101), "state": 0.0, "inputs": 0.0})
    curve = curve.assign(label="rnn", cell="rnn", stage="initial", seed=0)
    assert gradients.verdicts({"scaled": scaled, "gains": curve})["rnn_gradient"].verdict == verdict
