"""Newton's method: what is counted and judged, and the quick preset end to end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import cells
from experiments import newton
from experiments.lab import convergence, probes


@pytest.mark.slow
def test_runs_end_to_end(measured, monkeypatch):
    for module in (newton, convergence):  # windows of one step are for the tests of the cells
        monkeypatch.setattr(module, "WINDOWS", {0: "sqrt(T)"})
    settings = dataclasses.replace(newton.PRESETS["quick"], times=(8, 20), scales=())
    frames = measured(newton.EXPERIMENT, settings)
    rows = frames["iterations"]
    assert set(rows["stage"]) == {"initial", "dial", "untrained", "trained"}
    assert rows["iterations"].between(1, rows["time"]).all() and not rows["fallback"].any()
    assert (rows["error"] < 1e-4).all() and (rows["depth"] > 0).all()
    one = rows[rows["stage"] == "initial"]
    assert len(one) == settings.seeds * len(settings.times) * len(convergence.WINDOWS)
    without_dial = frames | {"iterations": rows[rows["stage"] != "dial"]}  # as of a single length
    assert set(newton.figures(frames)) == {"newton", "chaos"} and set(newton.figures(without_dial)) == {
        "newton"
    }
    errors = frames["errors"]
    assert (errors[["states", "gradients"]].max(axis=1) < np.where(errors["bits"] == 64, 1e-10, 1e-4)).all()
    assert (frames["time"]["ms"] > 0).all()


def test_only_cells_that_have_the_strategy_are_eligible():
    assert {"rnn", "lstm", "gru", "sru_feedback", "slstm"} <= set(newton.eligible())
    assert not {"sru", "lru", "tcn"} & set(newton.eligible())


def test_dense_jacobians_are_for_small_cells_whose_own_are_not_diagonal():
    assert convergence.methods(cells.get("sru_feedback", hidden_size=8), 64) == [
        (0, "diagonal"),
        (1, "diagonal"),
    ]
    every = [(0, "dense"), (0, "diagonal"), (1, "dense"), (1, "diagonal")]
    assert convergence.methods(cells.get("gru", hidden_size=8), 64) == every
    assert (0, "dense") not in convergence.methods(cells.get("gru", hidden_size=64), 64)
    assert (1, "dense") not in convergence.methods(cells.get("gru", hidden_size=8), 10**6)


@pytest.mark.parametrize(
    "args, steps",
    [
        ((100, 0, 0, False), 10),  # a window
        ((100, 0, 3, False), 3 * (10 + 2 * 4) + 10),  # 10 windows are joined in 4 rounds, up and down
        ((99, 0, 3, True), 3 * (10 + 2 * 4) + 10 + 99),
        ((64, 1, 5, False), 5 * (1 + 2 * 6) + 1),
    ],
)
def test_the_depth_counts_steps_one_after_the_other(args, steps):
    assert convergence.depth(*args) == steps


@pytest.mark.parametrize("name", ["rnn", "sru_feedback"])
def test_the_exponent_is_the_largest_of_the_spectrum(name):
    cell = cells.get(name, hidden_size=4)
    params, xs = convergence.initial(cell, 2, 300)
    got = convergence._follow(cell)(params, xs)
    for seed in range(2):
        one = jax.tree.map(lambda p, i=seed: p[i], params)
        want = probes.lyapunov_spectrum(cell, one, xs[seed])[0]
        np.testing.assert_allclose(got[seed], want, atol=0.02)


def test_the_exponent_of_a_plain_decay_is_its_logarithm():
    cell = cells.get("sru_feedback", hidden_size=4)
    params, xs = convergence.initial(cell, 2, 300)
    zero = {name: jnp.zeros_like(p) for name, p in params.items()}  # f = 1/2
    np.testing.assert_allclose(convergence._follow(cell)(zero, xs), np.log(0.5), rtol=1e-5)


# --- verdicts on made-up numbers


def made_up(**cases):
    """Frames of "label, stage, dial" -> iterations at three lengths (the last may be None: it fell back)."""
    rows = []
    for key, (exponent, *counts) in cases.items():
        label, stage, dial = (*key.split("__"), "-")[:3]
        for time, count in zip((64, 1024, 16384), counts, strict=True):
            for seed in range(3):
                did = {"iterations": count or 100, "fallback": count is None}
                row = {
                    "label": label,
                    "cell": label,
                    "stage": stage,
                    "dial": dial,
                    "seed": seed,
                    "time": time,
                }
                row |= {"window": 0, "jacobian": "diagonal", "exponent": exponent}
                rows.append(row | did | {"depth": convergence.depth(time, 0, *did.values())})
    errors = pd.DataFrame({"label": ["gru"] * 2, "bits": [32, 64], "states": 1e-7, "gradients": 1e-6})
    ms = {"label": "gru", "pass": "forward", "time": 512, "batch": 4, "hidden_size": 8, "backend": "cpu"}
    times = [
        ms | {"cores": 2, "strategy": strategy, "round": number, "ms": value}
        for number in range(3)
        for strategy, value in (("sequential", 2.0), ("newton", 3.0))
    ]
    return {"iterations": pd.DataFrame(rows), "errors": errors, "time": pd.DataFrame(times)}


GOOD, GROWS, FELL = (-0.5, 4, 3, 2), (-0.1, 4, 6, 9), (0.2, 8, 20, None)


@pytest.mark.parametrize(
    "cases, verdict",
    [
        (dict(gru__initial=GOOD, rnn__initial=GOOD), "holds"),
        (dict(gru__initial=GOOD, rnn__initial=GROWS), "holds in part"),
        (dict(gru__initial=GOOD, gru__trained=FELL), "holds in part"),
        (dict(gru__initial=GOOD, rnn__dial__big=FELL), "holds in part"),
        (dict(gru__initial=(-0.5, 40, 40, 40)), "does not hold here"),  # too deep
        (dict(gru__initial=GROWS, rnn__initial=FELL, lstm__initial=GOOD), "does not hold here"),
    ],
)
def test_the_verdict_follows_the_numbers(cases, verdict):
    assert newton.judge(made_up(**cases))["newton"].verdict == verdict


def test_the_evidence_says_what_was_found():
    told = newton.judge(made_up(gru__initial=GOOD, rnn__dial__big=FELL))["newton"].evidence
    assert "1 of 1 cells" in told and "gru 4" in told and "rnn big" in told and "3 fell back" in told
    assert "gru forward 1.5" in told and "exponent +0.20" in told
