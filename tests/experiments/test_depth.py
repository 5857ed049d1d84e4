"""Depth: the quick preset end to end, the rules on made-up numbers and on noise, SRU without its start."""

import dataclasses
import math

import jax
import numpy as np
import pandas as pd
import pytest

import cells
from compiling import jit
from experiments import depth
from experiments.lab import statistics, survival
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED

DESIGNED, PLAIN, HIGHWAY, INIT, BLOCK = depth.DESIGNED, depth.PLAIN, depth.HIGHWAY, depth.INIT, depth.BLOCK
LSTM = "lstm+highway+init"


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(depth.PRESETS["quick"], depths=(2,))
    frames = measured(depth.EXPERIMENT, settings)
    runs, layers = frames["runs"], frames["layers"]
    assert len(runs) == 2 * settings.seeds and runs["solved_step"].eq(10).all()
    assert len(frames["tuning"]) == 2 * settings.tuning_seeds * len(settings.learning_rates)
    assert set(layers["layer"]) == {0, 1, 2} and len(layers) == 2 * settings.seeds * 3
    assert (layers["variance"] > 0).all() and (layers["gradient"].dropna() > 0).all()
    assert (layers["gradient"].isna() == (layers["layer"] == 0)).all()
    # Without any help the layers lose variance.
    last = layers.query("layer == 2").groupby("label")["variance"].median()
    assert last[PLAIN] < 0.3 * last[DESIGNED]
    figures = depth.figures(frames)
    assert all(ax.get_xlabel() for figure in figures.values() for ax in figure.axes)
    assert all("2 seeds" in figure.legends[0].get_title().get_text() for figure in figures.values())


def test_a_variant_is_the_help_in_its_name():
    assert len(depth.VARIANTS) == 14
    for name, one in depth.VARIANTS.items():
        config = depth._config(depth.PRESETS["fast"], "pixels", name, 3)
        assert ("block" in name) == (config.model.block == "residual") and config.model.depth == 3
        if one.cell == "sru":
            cell = config.cell
            assert (cell.highway, cell.tailored) == ("highway" in name, "init" in name)
            assert cell.rescale == ("init" in name or not cell.highway)
        else:
            assert config.cell.forget_bias == ("init" in name)
            assert (config.model.connection == "highway") == ("highway" in name)


# --- verdicts on made-up numbers


def made(deep, shallow=None, seeds=10, noise=10.0, budget=400, tasks=("pixels",), depths=(2, 8), draw=None):
    """Runs from {variant: steps, None for never} at both depths; the test accuracy goes with them."""
    draw, rows = draw or np.random.default_rng(1), []
    for task, number in ((task, number) for task in tasks for number in range(len(depths))):
        for label, at in (deep if number else shallow or dict.fromkeys(deep, 100)).items():
            for seed in range(seeds):
                step = np.inf if at is None else max(1, at + noise * draw.standard_normal())
                row = {"task": task, "cell": label.split("+")[0], "label": label, "depth": depths[number]}
                row |= {"seed": seed, "solved_step": step if step <= budget else None, "budget_steps": budget}
                rows.append(row | {"test_metric": 0.9 - min(step, budget) / 1000})
    return {"runs": pd.DataFrame(rows)}


def verdict(part, frames):
    found = depth.judge(frames)
    assert set(found) == set(depth.EXPERIMENT.parts)
    return found[part].verdict


@pytest.mark.parametrize(
    "part, deep, wanted",
    [
        ("depth_sru", {DESIGNED: 200}, TRUE),
        ("depth_sru", {DESIGNED: None}, FALSE),
        ("depth_sru", {DESIGNED: 400}, UNDECIDED),
        ("depth_highway_needed", {DESIGNED: 200, INIT: None}, TRUE),
        ("depth_highway_needed", {DESIGNED: 200, INIT: 300}, TRUE),
        ("depth_highway_needed", {DESIGNED: 200, INIT: 210}, FALSE),
        ("depth_highway_needed", {DESIGNED: 200, INIT: 250}, UNDECIDED),
        ("depth_highway_needed", {DESIGNED: None, INIT: None}, NOT_TESTED),
        ("depth_highway_needed", {DESIGNED: 350, INIT: None}, NOT_TESTED),  # too short a budget
        ("depth_highway_needed", {DESIGNED: 200}, NOT_TESTED),
        ("depth_init_needed", {DESIGNED: 200, HIGHWAY: 300}, TRUE),
        ("depth_init_needed", {DESIGNED: 200, HIGHWAY: 190}, FALSE),
        ("depth_highway_enough", {HIGHWAY: 200}, TRUE),
        ("depth_highway_enough", {HIGHWAY: None}, FALSE),
        ("depth_init_enough", {INIT: 200}, TRUE),
        ("depth_init_enough", {INIT: None}, FALSE),
        ("depth_highway_deep", {DESIGNED: 150, INIT: 300}, TRUE),
        ("depth_highway_deep", {DESIGNED: 300, INIT: 200}, FALSE),
        ("depth_highway_deep", {DESIGNED: 200, INIT: 200}, UNDECIDED),
        ("depth_init_deep", {DESIGNED: 150, HIGHWAY: 300}, TRUE),
        ("depth_init_deep", {DESIGNED: 300, HIGHWAY: 200}, FALSE),
        ("depth_either", {DESIGNED: 150, HIGHWAY: 150, INIT: 150, PLAIN: 350}, TRUE),
        ("depth_either", {DESIGNED: 150, HIGHWAY: 150, INIT: 150, PLAIN: None}, TRUE),
        ("depth_either", {DESIGNED: 100, HIGHWAY: 250, INIT: 300, PLAIN: 300}, FALSE),
        ("depth_either", {DESIGNED: 100, HIGHWAY: 250, INIT: 300, PLAIN: None}, UNDECIDED),
        ("depth_either", {DESIGNED: 100, HIGHWAY: None, INIT: 300, PLAIN: None}, NOT_TESTED),
        ("depth_either", {DESIGNED: 150, HIGHWAY: 200, INIT: 225, PLAIN: 300}, UNDECIDED),
        ("depth_either", {DESIGNED: 100, HIGHWAY: 150, INIT: 200}, NOT_TESTED),
        ("depth_block", {DESIGNED: 200, BLOCK: 200}, TRUE),
        ("depth_block", {DESIGNED: 200, BLOCK: None}, FALSE),
        ("depth_block", {DESIGNED: 200, BLOCK: 250}, UNDECIDED),
        ("depth_lstm", {LSTM: 200}, TRUE),
        ("depth_lstm", {LSTM: None}, FALSE),
        ("depth_lstm", {DESIGNED: 200}, NOT_TESTED),
    ],
)
def test_each_part_on_both_sides_of_its_edge(part, deep, wanted):
    assert verdict(part, made(deep)) == wanted
    assert verdict(part, made(deep, seeds=9)) == NOT_TESTED
    assert verdict(part, made(deep, depths=(8,), shallow=deep)) == NOT_TESTED


def test_what_the_budget_cuts_off_is_not_called_smaller():
    deep = {DESIGNED: 100, INIT: None}
    assert verdict("depth_highway_deep", made(deep, {DESIGNED: 200, INIT: 210})) == TRUE
    assert verdict("depth_highway_deep", made(deep, {DESIGNED: 200, INIT: None})) == UNDECIDED
    assert verdict("depth_highway_deep", made(deep, {DESIGNED: 390, INIT: None})) == NOT_TESTED


def test_tasks_that_disagree_decide_nothing_and_one_that_tells_nothing_does_not_count():
    deep = {DESIGNED: 200, INIT: None}
    other = made({DESIGNED: 200, INIT: 200}, tasks=("questions",))
    both = {"runs": pd.concat([made(deep)["runs"], other["runs"]])}
    assert verdict("depth_highway_needed", both) == UNDECIDED and verdict("depth_sru", both) == TRUE
    other = made({DESIGNED: None, INIT: None}, tasks=("questions",))
    both = {"runs": pd.concat([made(deep)["runs"], other["runs"]])}
    assert verdict("depth_highway_needed", both) == TRUE
    assert "questions: most seeds" in depth.judge(both)["depth_highway_needed"].note


def test_noise_at_the_edge_decides_nothing():
    """Seeds whose true values are the edges, spread by as much as half of what they need."""
    draw, wrong, rounds = np.random.default_rng(1), 0, 15
    deep = {DESIGNED: 200, HIGHWAY: 250, INIT: 250, PLAIN: 312.5, BLOCK: 250, LSTM: 800}
    shallow = {DESIGNED: 200, HIGHWAY: 250, INIT: 250}
    parts = set(depth.EXPERIMENT.parts) - {part for part in depth.EXPERIMENT.parts if "enough" in part}
    parts -= {"depth_sru", "depth_lstm"}
    for _ in range(rounds):
        found = depth.judge(made(deep, shallow, noise=60, budget=800, draw=draw))
        wrong += sum(found[part].verdict != UNDECIDED for part in parts)
    assert wrong <= 0.07 * rounds * len(parts)


def test_an_interaction_is_that_of_logarithms_and_its_interval_covers_it():
    one = survival.interaction(([400.0], [200.0]), ([100.0], [100.0]), 1000)
    assert one.value == pytest.approx(2) and math.isnan(one.low)
    same = survival.interaction(([300.0] * 4, [100.0] * 4), ([np.inf] * 4, [200.0] * 4), 600)
    assert same == statistics.Estimate(1, 1, 1)
    draw, covered = np.random.default_rng(0), 0
    for _ in range(200):
        groups = [draw.lognormal(np.log(middle), 0.4, 10) for middle in (300, 100, 150, 100)]
        found = survival.interaction(groups[:2], groups[2:], 1e9)
        covered += found.low <= 2 <= found.high
    assert covered >= 184


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
