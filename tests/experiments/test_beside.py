"""Evidence of several workdirs as one."""

import dataclasses
import json

import pandas as pd
import pytest
from rich.console import Console

from experiments import atlas, claims, horizon
from experiments.lab import beside, evidence, experiment, trials, tuning

SETTINGS = dataclasses.replace(atlas.PRESETS["quick"], only_trained=True)  # rnn and gru, recall_30 and parity
RECORD = {
    "command": "python -m experiments.atlas", "started": "2026-01-01", "git_commit": "abc", "cpu": "x",
    "cores": 2, "jax": "0", "python": "3", "settings": json.loads(json.dumps(dataclasses.asdict(SETTINGS))),
}  # fmt: skip


def rows(*models, solved=1):
    return pd.DataFrame(
        [
            {
                "form": "bare",
                "column": column,
                "label": cell,
                "cell": cell,
                "seed": seed,
                "solved_step": solved,
            }
            for cell, column in models
            for seed in (0, 1)
        ]
    )


@pytest.fixture
def committed(tmp_path):
    """All of rnn, and a model and a cell that nobody asks for."""
    frame = rows(("rnn", "recall_30"), ("rnn", "parity"), ("gru", "s3"), ("lstm", "parity"), solved=9)
    frame.to_csv(tmp_path / "final.csv", index=False)
    pd.DataFrame([{"label": "rnn", "ms": 1.0}]).to_csv(tmp_path / "time.csv", index=False)
    record = RECORD | {"code": {"cells/rnn.py": "1", "train/loop.py": "1"}}
    (tmp_path / "environment.json").write_text(json.dumps(record))
    return tmp_path


def joined(committed, frames, code, settings=SETTINGS):
    evidence = beside.read(atlas.EXPERIMENT, settings, committed)
    return beside.joined(evidence, frames, RECORD | {"code": code})


def test_models_that_are_missing_are_taken_and_those_that_are_there_stay(committed):
    here = {
        "final": rows(("gru", "parity"), ("rnn", "parity")),
        "time": pd.DataFrame([{"label": "gru", "ms": 2.0}]),
    }
    found, record = joined(committed, here, {"cells/gru.py": "1", "train/loop.py": "1"})
    final = found["final"].drop_duplicates(["label", "column"]).set_index(["label", "column"])["solved_step"]
    assert final.to_dict() == {("rnn", "parity"): 1, ("rnn", "recall_30"): 9, ("gru", "parity"): 1}
    assert list(dict.fromkeys(found["final"]["label"])) == ["rnn", "gru"]  # as asked
    assert len(found["final"]) == 6 and found["time"] is here["time"]  # of no model: this machine's
    assert record["code"] == {"cells/gru.py": "1", "cells/rnn.py": "1", "train/loop.py": "1"}
    assert record["beside"][0]["git_commit"] == "abc"
    told = evidence.caption(record | {"git_dirty": False, "backend": "cpu"})
    assert "Beside it, what it has not trained itself: `python -m experiments.atlas`, 2026-01-01" in told
    nothing, _ = joined(committed, {"final": pd.DataFrame()}, {})
    assert set(nothing["final"]["column"]) == {"recall_30", "parity"}


def test_other_code_shows_and_other_training_is_refused(committed, tmp_path):
    _, record = joined(committed, {"final": rows(("gru", "parity"))}, {"train/loop.py": "2"})
    assert record["code"]["train/loop.py"] == "several"
    with pytest.raises(ValueError, match="was measured with seeds 2, this with 3"):
        joined(committed, {"final": rows()}, {}, dataclasses.replace(SETTINGS, seeds=3))
    with pytest.raises(ValueError, match="holds no evidence: no tables"):
        joined(tmp_path / "none", {"final": rows()}, {})


def test_cells_that_it_has_are_not_trained_here(committed, monkeypatch):
    """Those of which it lacks a model are, all of their models, and those that were tuned otherwise."""
    training = dataclasses.replace(SETTINGS, only_trained=False)
    assert beside.read(atlas.EXPERIMENT, training, committed).missing.cells == ("gru",)
    only = dataclasses.replace(training, cells=("rnn",))
    with pytest.raises(ValueError, match="has all that is asked for: nothing is left to train"):
        beside.read(atlas.EXPERIMENT, only, committed)
    monkeypatch.setattr(trials, "others", lambda folder, settings: ["rnn"])
    evidence = beside.read(atlas.EXPERIMENT, training, committed)
    assert evidence.missing.cells == ("rnn", "gru") and evidence.frames["final"].empty
    assert beside.read(atlas.EXPERIMENT, SETTINGS, committed).missing == SETTINGS  # it trains nothing at all


@pytest.mark.parametrize("label", ["lstm", "lstm:forget_bias=2.0", "rnn", "window"])
def test_evidence_with_other_initialisations_than_todays_says_so(tmp_path, label):
    settings = {"learning_rates": [0.01, 0.03], "initialisations": 3}
    today = tuning.Settings(learning_rates=(0.01, 0.03), initialisations=3)

    def tried(*texts):
        pd.DataFrame({"label": label, "trial": texts}).to_csv(tmp_path / "tuning.csv", index=False)
        return trials.others(tmp_path, settings)

    all_of_them = [trial.label for trial in tuning.trials(label, today)]
    assert tried(*all_of_them) == tried(*reversed(all_of_them)) == []
    assert tried(*all_of_them, f"{label}:x=1") == [label]
    if len(set(all_of_them)) > 1:
        assert tried(all_of_them[0]) == [label]
    assert tried(f"{label}:x=1") == []  # a variant of that name, whose initialisations are its own
    (tmp_path / "tuning.csv").unlink()
    assert trials.others(tmp_path, settings) == trials.others(tmp_path, {}) == []


@pytest.mark.slow
def test_only_what_is_missing_is_trained_and_stands_beside_the_rest(tmp_path):
    """As the command does it."""
    both = dataclasses.replace(horizon.PRESETS["quick"], steps=4, gaps=(2,), trained_at=0)
    first = dataclasses.replace(both, cells=("gru",))
    console = Console(quiet=True)
    evidence.run(horizon.EXPERIMENT, first, tmp_path / "first", console)
    others = beside.read(horizon.EXPERIMENT, both, tmp_path / "first")
    assert others.missing.cells == ("rnn",)
    frames = evidence.run(horizon.EXPERIMENT, others.missing, tmp_path / "both", console, others=others)
    assert list(dict.fromkeys(frames["runs"]["label"])) == ["rnn", "gru"]
    assert {path.name.split("-")[1] for path in (tmp_path / "both" / "runs").iterdir()} == {"rnn"}
    record = json.loads((tmp_path / "both" / "environment.json").read_text())
    assert record["settings"]["cells"] == ["rnn", "gru"] and {"rnn", "gru"} <= set(record["labels"])
    assert evidence.stale(horizon.EXPERIMENT, tmp_path / "both") == {}


@pytest.mark.parametrize("name", claims.EXPERIMENTS)
def test_frames_that_name_models_can_be_joined(name):
    """Of the committed evidence: the columns are there, the settings too, and every model is asked for."""
    one, folder = experiment.of(name), claims.COMMITTED / name
    settings = one.protocol["fast"]
    assert all(hasattr(settings, setting) for setting in one.models.values())
    if not one.models:
        with pytest.raises(ValueError, match="--beside has no effect"):
            beside.read(one, settings, folder)
        return
    record = json.loads((folder / "environment.json").read_text())
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in record["settings"].items()
    }
    asked = beside._asked(one, type(settings)(**given))
    frames = evidence.load(folder)
    here = [beside._named(frame, one.models) for frame in frames.values() if set(one.models) <= set(frame)]
    assert len(here) >= 2
    assert set(beside._named(frames["tuning"], one.models)) <= asked
