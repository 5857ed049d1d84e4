"""Depth: the quick preset end to end, what follows from made-up numbers, the initialisation turned off."""

import dataclasses
import math

import jax
import numpy as np
import pandas as pd
import pytest

import cells
from compiling import jit
from experiments import depth


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(depth.PRESETS["quick"], depths=(2,))
    frames = measured(depth.EXPERIMENT, settings)
    runs, layers = frames["runs"], frames["layers"]
    assert len(runs) == 2 * settings.seeds * len(settings.learning_rates)
    assert (runs.groupby(["label", "depth"])["chosen"].sum() == settings.seeds).all()
    assert set(layers["layer"]) == {0, 1, 2} and len(layers) == 2 * settings.seeds * 3
    assert (layers["variance"] > 0).all() and (layers["gradient"].dropna() > 0).all()
    assert (layers["gradient"].isna() == (layers["layer"] == 0)).all()
    # Without highway the layers lose variance.
    last = layers.query("layer == 2").groupby("label")["variance"].median()
    assert last["sru:highway=false"] < 0.3 * last["sru"]
    figures = depth.figures(frames)
    for figure in figures.values():
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)
        assert "2 seeds" in figure.legends[0].get_title().get_text()
    note = figures["depth"].legends[0].get_title().get_text()
    assert "20 steps" in note and "0.01, 0.03" in note


def made_up(deep, shallow=None, depths=(1, 12)):
    """Runs from {label: (step or None of each seed, test accuracy)} at both depths."""
    shallow = shallow or {label: ([100] * 5, 0.95) for label in deep}
    rows = [
        {"label": label, "cell": "sru", "depth": layers, "seed": seed, "chosen": True, "solved_step": step}
        | {"test_metric": accuracy + 0.001 * seed, "budget_steps": 300}
        for layers, of in zip(depths, (shallow, deep), strict=False)
        for label, (steps, accuracy) in of.items()
        for seed, step in enumerate(steps)
    ]
    return {"runs": pd.DataFrame(rows)}


WHOLE, (HIGHWAY, INIT) = depth.WHOLE, depth.PARTS.values()
WELL, NEVER, SLOW = ([100, 125, 100, 150, 100], 0.95), ([None] * 5, 0.5), ([275, 250, 275, None, 300], 0.93)


@pytest.mark.parametrize(
    "deep, verdict",
    [
        ({WHOLE: WELL, HIGHWAY: NEVER, INIT: SLOW}, "holds"),
        ({WHOLE: WELL, HIGHWAY: NEVER, INIT: WELL}, "holds in part"),
        ({WHOLE: WELL, HIGHWAY: WELL, INIT: WELL}, "does not hold here"),
        ({WHOLE: NEVER, HIGHWAY: NEVER, INIT: NEVER}, "does not hold here"),
        ({WHOLE: ([100, 100, 100, None, None], 0.9), HIGHWAY: NEVER, INIT: NEVER}, "does not hold here"),
        ({WHOLE: WELL, HIGHWAY: NEVER}, "not tested here"),
    ],
)
def test_the_verdict_follows_the_numbers(deep, verdict):
    assert depth.judge(made_up(deep))["sru_deep"].verdict == verdict


def test_what_costs_as_much_in_shallow_stacks_is_not_for_depth():
    deep = {WHOLE: WELL, HIGHWAY: NEVER, INIT: NEVER}
    assert depth.judge(made_up(deep, shallow=deep))["sru_deep"].verdict == "holds in part"


def test_one_depth_tells_nothing_of_depth():
    frames = made_up({}, shallow={WHOLE: WELL, HIGHWAY: NEVER, INIT: NEVER}, depths=(12,))
    assert depth.judge(frames)["sru_deep"].verdict == "not tested here"


@pytest.mark.parametrize("name", ["sru", "sru_feedback"])
def test_weights_that_are_not_tailored_are_those_of_torch(name):
    """All in +-1 / sqrt(hidden_size), a third of the tailored variance where sizes are equal."""

    def init(features, **options):
        cell = cells.get(name, hidden_size=200, **options)
        return jit(lambda: cell.init(jax.random.key(0), features))()

    made = init(200, tailored=False)
    assert set(made) == set(init(200))
    for key, p in made.items():
        if key.startswith(("W", "v")):
            assert np.abs(p).max() <= 1 / math.sqrt(200)
            np.testing.assert_allclose(np.var(p), 1 / 600, rtol=0.2 if key[0] == "v" else 0.03)
    wide = init(100, tailored=False)
    np.testing.assert_allclose(np.std(wide["W_x"]), math.sqrt(3) / math.sqrt(600), rtol=0.03)  # alpha * ...
