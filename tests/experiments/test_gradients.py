"""Gradients: the quick preset end to end, and what follows from made-up numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import gradients


def test_runs_end_to_end(measured):
    settings = dataclasses.replace(
        gradients.PRESETS["quick"], cells=("rnn",), clip_scales=(4.0,), scales=(1.0,), lyapunov=True
    )
    frames = measured(gradients.EXPERIMENT, settings)
    gains = frames["gains"]
    assert set(gains["stage"]) == {"initial", "trained"}
    assert set(gains["seed"]) == set(range(settings.seeds))
    assert (gains["state"][gains["k"] == 0] == 0).all()  # the identity
    assert np.isfinite(gains["inputs"][gains["k"] < settings.time]).any()
    assert len(frames["lyapunov"]) == 2 * settings.seeds * settings.hidden_size
    clipped = frames["clipping"].groupby(["scale", "clip_norm"]).size()
    assert (clipped == settings.seeds * len(settings.clip_rates)).all() and len(clipped) == 2


def test_the_rate_and_the_reach_are_those_of_the_curve():
    k = np.arange(101)
    rows = pd.DataFrame({"k": k, "state": -0.2 * k, "inputs": np.where(k < 50, -1.0, -np.inf)})
    rows = rows.assign(label="rnn", cell="rnn", stage="initial", seed=0)
    state, inputs = gradients.decays(rows).to_dict("records")
    assert state["rate"] == pytest.approx(-0.2) and state["reach"] == 31  # 1e-6.2
    assert inputs["rate"] == pytest.approx(0.0, abs=1e-9) and inputs["reach"] == 50
    kept = gradients.decays(rows.assign(state=0.0)).to_dict("records")[0]
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
    assert gradients.judge({"scaled": scaled, "gains": curve})["rnn_gradient"].verdict == verdict
