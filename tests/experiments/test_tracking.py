"""State tracking: the quick preset end to end, and the rules on made-up numbers."""

import numpy as np
import pandas as pd
import pytest

from experiments import tracking
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = tracking.PRESETS["quick"]
    frames = measured(tracking.EXPERIMENT, settings)
    runs, positions = frames["runs"], frames["positions"]
    assert (runs.groupby("label").size() == settings.seeds).all()
    assert runs["budget_steps"].eq(settings.steps).all()
    places = positions.groupby(["label", "seed"])["position"]
    assert (places.max() == tracking.BEYOND * settings.longest).all() and (places.count() == 24).all()
    assert positions["accuracy"].between(0, 1).all()
    figure = tracking.figures(frames)["tracking"]
    assert all(ax.get_title(loc="left") for ax in figure.axes)
    assert figure.axes[0].get_ylabel() and figure.axes[0].get_xlabel() == "place in the word, tokens"
    note = figure.legends[0].get_title().get_text()
    assert "2 seeds" in note and "40 steps" in note


def made(label, group, holds, fits=10, seeds=10):
    rows = [
        {"group": group, "label": label, "seed": seed, "near": 1.0 if seed < fits else 0.5}
        | {"far": 0.95 if seed < holds else 0.6}
        for seed in range(seeds)
    ]
    return {"runs": pd.DataFrame(rows)}


@pytest.mark.parametrize("part", tracking.SAID)
def test_a_part_follows_the_share_of_seeds_that_hold_the_state(part):
    _, (label, *_), group, held = tracking.SAID[part]

    def verdict(*args, **options):
        return tracking.judge(made(label, group, *args, **options))[part].verdict

    assert verdict(10) == (TRUE if held else FALSE)
    assert verdict(0) == (FALSE if held else TRUE)
    assert verdict(5) == UNDECIDED
    assert verdict(4, seeds=9) == NOT_TESTED
    assert verdict(0, fits=2) == (FALSE if held else NOT_TESTED)  # it may only be untrained
    others = tracking.judge(made(label, group, 10))
    tested = {name for name, found in others.items() if found.verdict != NOT_TESTED}
    assert tested - set(tracking.FITS) == {part} and set(others) == set(tracking.EXPERIMENT.parts)


@pytest.mark.parametrize("part", tracking.FITS)
def test_what_does_not_fit_the_trained_length_is_said(part):
    _, label, group = tracking.FITS[part]
    verdicts = [tracking.judge(made(label, group, 0, fits=fits))[part].verdict for fits in (10, 0, 5)]
    assert verdicts == [TRUE, FALSE, UNDECIDED]


def test_a_coin_for_each_seed_decides_nothing():
    draw, decided = np.random.default_rng(0), 0
    for holds in draw.binomial(10, 0.5, 100):
        decided += tracking.judge(made("gru", "z2", holds))["gru_z2"].verdict != UNDECIDED
    assert decided <= 8  # Wilson's interval of 10: the two ends together 2 %, as much as they can be wrong
