"""Newton's method: what is counted and judged, and the quick preset end to end."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import cells
from experiments import newton
from experiments.lab import convergence, convergence_figures, probes
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED


@pytest.mark.slow
def test_runs_end_to_end(measured, monkeypatch):
    for module in (convergence_figures, convergence):  # windows of one step are for the tests of the cells
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


def made_up(
    noise=0.0, seed=0, seeds=10, solved=None, ratio=0.5, rounds=12, backend="cpu", error=1e-6, **cases
):
    """Frames of "label__stage__dial" -> depth over T at the longest length, or that and the exponent."""
    rng, rows = np.random.default_rng(seed), []
    for key, told in cases.items():
        label, stage, dial = (*key.split("__"), "-")[:3]
        share, exponent = told if isinstance(told, tuple) else (told, -1.0)
        for number, time in itertools.product(range(seeds), (64, 1024)):
            row = {"label": label, "cell": label, "stage": stage, "dial": dial, "seed": number, "time": time}
            row |= {"window": 0, "jacobian": "diagonal", "exponent": exponent + noise * rng.normal()}
            row |= {
                "fallback": share > 1,
                "iterations": 3,
                "solved": number < (seeds if solved is None else solved),
            }
            rows.append(row | {"depth": time * share * (1 + noise * rng.normal())})
    errors = pd.DataFrame({"label": "gru", "bits": 32, "states": 1e-7, "gradients": [error, error / 2]})
    errors = errors.assign(fallback=False, seed=[0, 1], time=64)
    keys = itertools.product(
        ("gru", "lstm"), ("forward", "gradient"), ("sequential", "newton"), range(rounds)
    )
    times = pd.DataFrame(list(keys), columns=["label", "pass", "strategy", "round"])
    ms = np.where(times["strategy"] == "newton", 2 * ratio, 2.0) * np.exp(noise * rng.normal(size=len(times)))
    times = times.assign(ms=ms, time=512, batch=4, hidden_size=8, backend=backend, cores=2)
    return {"iterations": pd.DataFrame(rows), "errors": errors, "time": times}


def verdict(part, **numbers):
    return newton.judge(made_up(**numbers))[part].verdict


LOW, HIGH = 0.9 * newton.SHARE, 1.1 * newton.SHARE
DEPTHS = {"newton_initial": ("initial", -1.0), "newton_trained": ("trained", -1.0)}
DEPTHS |= {"newton_calm": ("dial__a", -0.5), "newton_chaos": ("dial__a", 0.5)}


@pytest.mark.parametrize("part", DEPTHS)
def test_depths_decide_on_both_sides_of_their_edge_and_not_in_noise(part):
    stage, exponent = DEPTHS[part]

    def of(gru, rnn, **more):
        return verdict(part, **{f"gru__{stage}": (gru, exponent), f"rnn__{stage}": (rnn, exponent)}, **more)

    assert of(LOW, LOW) == TRUE and of(LOW, HIGH) == FALSE and of(HIGH, HIGH) == FALSE
    assert of(LOW, LOW, seeds=9) == NOT_TESTED
    assert verdict(part, gru__other=LOW) == NOT_TESTED
    edge = newton.SHARE
    draws = [of(edge, edge, noise=0.1, seed=seed) for seed in range(12)]
    assert draws.count(UNDECIDED) >= 10  # one may be decided


def test_only_cells_with_enough_seeds_that_solved_it_count():
    assert verdict("newton_trained", gru__trained=HIGH, solved=9) == NOT_TESTED
    assert verdict("newton_trained", gru__trained=HIGH, seeds=12, solved=10) == FALSE
    found = newton.judge(made_up(gru__trained=LOW, seeds=12, solved=10))["newton_trained"]
    assert found.verdict == TRUE and found.seeds == 10 and "gru 10" in found.note


def test_a_size_counts_by_the_sign_of_its_exponent():
    cases = dict(gru__dial__a=(LOW, -0.5), gru__dial__b=(HIGH, 0.5))
    assert verdict("newton_calm", **cases) == TRUE and verdict("newton_chaos", **cases) == FALSE
    unclear = dict(gru__dial__a=(HIGH, 0.0), noise=0.01)
    assert {verdict(part, **unclear) for part in ("newton_calm", "newton_chaos")} == {NOT_TESTED}


@pytest.mark.parametrize(
    "error, wanted", [(0.9e-4, TRUE), (1.1e-4, UNDECIDED), (0.9e-2, UNDECIDED), (1.1e-2, FALSE)]
)
def test_errors_decide(error, wanted):
    assert verdict("newton_exact", gru__initial=LOW, error=error) == wanted


def test_times_decide_on_a_machine_of_their_kind():
    def of(part="newton_time", **numbers):
        return verdict(part, gru__initial=LOW, **numbers)

    assert of(ratio=0.9) == TRUE and of(ratio=1.1) == FALSE and of(ratio=0.9, rounds=5) == NOT_TESTED
    draws = [of(ratio=1.0, noise=0.2, seed=seed) for seed in range(12)]
    assert draws.count(UNDECIDED) >= 10
    assert of("newton_time_gpu") == NOT_TESTED and of("newton_time_gpu", backend="gpu") == TRUE
    assert of(backend="gpu") == NOT_TESTED


def test_nothing_is_said_without_evidence():
    assert {found.verdict for found in newton.judge({}).values()} == {NOT_TESTED}
