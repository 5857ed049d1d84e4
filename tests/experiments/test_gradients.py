"""Gradients: the quick preset end to end, and what follows from made-up numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import gradients
from experiments.lab import gains
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(gradients.PRESETS["quick"], cells=("rnn",), scales=(1.0,))
    frames = measured(gradients.EXPERIMENT, settings)
    found = frames["gains"]
    stages = found.groupby("label")["stage"].agg(set).to_dict()
    initial = {gradients.RELU: {"initial"}, gradients.SCALED: {"initial"}}
    assert stages == {"rnn": {"initial", "untrained", "trained"}} | initial
    assert set(found["seed"]) == set(range(settings.seeds)) == set(frames["training"]["seed"])
    assert (found["state"][found["k"] == 0] == 0).all()  # the identity
    assert np.isfinite(found["inputs"][found["k"] < settings.time]).any()
    same = found[(found["label"] == "rnn") & (found["stage"] != "trained")].groupby(["seed", "k"])["state"]
    np.testing.assert_allclose(same.max(), same.min(), atol=1e-3)  # nothing but the default was tried
    clipped = frames["clipping"].groupby(["scale", "clip_norm"]).size()
    assert (clipped == settings.seeds * len(settings.clip_rates)).all() and len(clipped) == 2


def test_the_exponent_and_the_reach_are_those_of_the_curve():
    k = np.arange(101)
    rows = pd.DataFrame({"k": k, "state": -0.2 * k, "inputs": np.where(k < 50, -1.0, -np.inf)})
    rows = rows.assign(label="rnn", cell="rnn", stage="initial", seed=0, trial="rnn", solved=np.nan)
    one = gains.exponents(rows, 1e-6).to_dict("records")[0]
    assert one["exponent"] == pytest.approx(-0.2 * np.log(10)) and one["state"] == 31  # 1e-6.2
    assert one["inputs"] == 50
    assert gains.exponents(rows.assign(state=0.0), 1e-6)["state"].tolist() == [np.inf]
    table = gains.exponent_table(rows, 1e-6, 0.0138)
    assert table["seeds"].tolist() == [1] and table["it"].tolist() == ["–"]  # one seed has no interval


# --- verdicts on made-up numbers

K = np.array([0, 1, 25, 50, 75, 100])


def gains_of(label, stage, exponent, noise=0.0, seeds=10, solved=None, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(seeds):
        log = K * (exponent + noise * rng.normal()) / np.log(10)
        row = {"label": label, "cell": "rnn", "stage": stage, "seed": number, "trial": "rnn"}
        row |= {"solved": number < (seeds if solved is None else solved) if stage == "trained" else np.nan}
        rows.append(pd.DataFrame({"k": K, "state": log, "inputs": log}).assign(**row))
    return pd.concat(rows, ignore_index=True)


def verdict(part, label="rnn", stage="initial", exponent=-0.1, **more):
    return gradients.judge({"gains": gains_of(label, stage, exponent, **more)})[part].verdict


SIGNS = {
    "rnn_vanishes": ("rnn", "initial", TRUE, FALSE),
    "rnn_explodes": (gradients.SCALED, "initial", FALSE, TRUE),
    "rnn_trained": ("rnn", "trained", TRUE, FALSE),
}


@pytest.mark.parametrize("part", SIGNS)
def test_the_sign_of_the_exponent_decides_and_noise_does_not(part):
    label, stage, low, high = SIGNS[part]
    assert verdict(part, label, stage, -0.001, noise=1e-4) == low
    assert verdict(part, label, stage, 0.001, noise=1e-4) == high
    assert verdict(part, label, stage, -0.001, seeds=9) == NOT_TESTED
    draws = [verdict(part, label, stage, 0.0, noise=0.1, seed=seed) for seed in range(12)]
    assert draws.count(UNDECIDED) >= 10  # one may be decided
    assert verdict(part, "gru", stage) == NOT_TESTED


def test_only_seeds_that_solved_the_task_count():
    rows = gains_of("rnn", "trained", -0.1, seeds=20, solved=10)
    rows.loc[~rows["solved"].astype(bool), "state"] = K.repeat(10).reshape(6, 10).T.ravel()  # exploding
    found = gradients.judge({"gains": rows})["rnn_trained"]
    assert found.verdict == TRUE and found.seeds == 10
    assert verdict("rnn_trained", stage="trained", seeds=20, solved=9) == NOT_TESTED
    assert verdict("rnn_trained", stage="trained", solved=0) == NOT_TESTED


@pytest.mark.parametrize(
    "exponent, noise, wanted",
    [
        (0.9, 0.0, TRUE), (-0.9, 0.0, TRUE), (1.1, 0.0, FALSE), (-1.1, 0.0, FALSE), (1.0, 0.5, UNDECIDED),
        (0.0, 5.0, UNDECIDED),
    ],
)  # fmt: skip
def test_what_neither_vanishes_nor_explodes_is_near_0(exponent, noise, wanted):
    exponent, noise = exponent * gradients.KEPT, noise * gradients.KEPT
    assert verdict("rnn_keeps", gradients.RELU, exponent=exponent, noise=noise) == wanted


def reach_of(by_bias, noise=0.0, seeds=10, seed=0):
    """LSTMs whose gain falls by so much a step."""
    rng, rows, k = np.random.default_rng(seed), [], np.arange(0, 200, 5)
    for bias, fall in by_bias.items():
        for number in range(seeds):
            curve = pd.DataFrame({"k": k, "state": -k * fall * np.exp(noise * rng.normal())})
            rows.append(curve.assign(bias=bias, seed=number))
    return pd.concat(rows, ignore_index=True)


def test_the_reach_grows_with_the_bias_or_does_not():
    def judged(by_bias, **more):
        frames = {"gains": gains_of("rnn", "initial", -0.1), "reach": reach_of(by_bias, **more)}
        return gradients.judge(frames)["lstm_reach"].verdict

    assert judged({0: 0.5, 1: 0.3, 3: 0.1, 5: 0.01}, noise=0.1) == TRUE  # the last beyond what was measured
    assert judged({0: 0.1, 1: 0.3, 3: 0.5}, noise=0.1) == FALSE
    assert judged({0: 0.1}) == NOT_TESTED and judged({0: 0.5, 1: 0.3}, seeds=5) == NOT_TESTED
    draws = [judged({0: 0.1, 1: 0.1}, noise=0.3, seed=seed) for seed in range(10)]
    assert draws.count(UNDECIDED) >= 8  # one may be decided
