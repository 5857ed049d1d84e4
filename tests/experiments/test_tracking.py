"""State tracking: the quick preset end to end, and what follows from made-up numbers."""

import numpy as np
import pandas as pd
import pytest

from experiments import tracking


def test_runs_end_to_end(measured):
    settings = tracking.PRESETS["quick"]
    frames = measured(tracking.EXPERIMENT, settings)
    runs, positions = frames["runs"], frames["positions"]
    assert len(runs) == 2 * settings.seeds * len(settings.learning_rates)
    assert (runs.groupby("label")["chosen"].sum() == settings.seeds).all()
    places = positions.groupby(["label", "seed"])["position"]
    assert (places.max() == 16 * settings.length).all() and (places.count() == 64).all()
    assert positions["accuracy"].between(0, 1).all()
    figure = tracking.figures(frames)["tracking"]
    assert all(ax.get_title(loc="left") for ax in figure.axes)
    assert figure.axes[0].get_ylabel() and figure.axes[0].get_xlabel() == "place in the word, tokens"
    note = figure.legends[0].get_title().get_text()
    assert "2 seeds" in note and "40 steps" in note and "0.01, 0.03" in note


def made_up(tracked, groups=("z2",), seeds=5):
    """Positions of cells that track as far as {cell: factor, or one for each seed}."""
    rows = [
        {"group": group, "depth": 1, "cell": cell, "label": cell, "seed": seed, "trained_at": 4}
        | {"position": position, "accuracy": 1.0 if position <= 4 * far else 0.5, "baseline": 0.5}
        for group in groups
        for cell, reach in tracked.items()
        for seed, far in enumerate([reach] * seeds if np.isscalar(reach) else reach)
        for position in range(1, 65)
    ]
    return {"positions": pd.DataFrame(rows)}


def test_the_reach_is_the_last_length_before_the_first_loss():
    frames = made_up({"sru": [0, 1, 2, 3, 15, 16]}, seeds=6)
    assert list(tracking.reaches(frames["positions"])["reach"]) == [0, 1, 2, 2, 8, np.inf]


@pytest.mark.parametrize(
    "tracked, verdict",
    [
        ({"sru": 1, "lstm": 16, "rnn": 16}, "holds"),
        ({"sru": [1, 1, 1, 2, 0], "lstm": 16}, "holds"),
        ({"sru": 1, "sru_feedback": 1, "lstm": 16}, "holds in part"),  # one nonlinear cell loses it
        (
            {"sru": 1, "lstm": [16, 16, 16, 1, 1]},
            "holds in part",
        ),  # the median is at the end, not its interval
        ({"sru": 0, "lstm": 16}, "holds in part"),  # it may be untrained
        ({"sru": 1, "lstm": 1}, "does not hold here"),  # no cell shows that it can be done
        ({"sru": 16, "lstm": 16}, "does not hold here"),
        ({"sru": [1, 1, 1, 16, 16], "lstm": 16}, "does not hold here"),  # some seeds do it: not "cannot"
        ({"lstm": 16, "rnn": 16}, "not tested here"),
        ({"sru": 1}, "not tested here"),
    ],
)
def test_the_verdict_follows_the_numbers(tracked, verdict):
    assert tracking.judge(made_up(tracked))["state_tracking"].verdict == verdict


def test_every_group_counts():
    good, bad = made_up({"sru": 1, "gru": 16}), made_up({"sru": 16, "gru": 16}, groups=("s3",))
    both = {"positions": pd.concat([good["positions"], bad["positions"]])}
    found = tracking.judge(both)["state_tracking"]
    assert found.verdict == "holds in part" and "z2: " in found.evidence and "s3: " in found.evidence


def test_one_depth_at_which_a_linear_cell_tracks_is_enough_against_the_claim():
    shallow, deep = made_up({"sru": 1, "gru": 16})["positions"], made_up({"sru": 16, "gru": 16})["positions"]
    both = {"positions": pd.concat([shallow, deep.assign(depth=4)])}
    assert tracking.judge(both)["state_tracking"].verdict == "does not hold here"
