"""Evidence of several workdirs as one."""

import dataclasses
import json

import pandas as pd
import pytest

from experiments import atlas
from experiments.lab import beside, experiment

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
    return beside.joined(atlas.EXPERIMENT, settings, frames, RECORD | {"code": code}, committed)


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
    told = experiment.caption(record | {"git_dirty": False, "backend": "cpu"})
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


def test_what_is_one_whole_takes_nothing_beside_it():
    """Only frames whose columns name models can be joined."""
    joins = {name: experiment.of(name).models for name in ("atlas", "optimisers", "gates")}
    assert joins["atlas"] and not joins["gates"]
