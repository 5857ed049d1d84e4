"""Who trained and measured what is kept: which code, and whether today's begins it alike."""

import contextlib
import json
import shutil

import pytest
from rich.console import Console

from experiments.lab import confirmed, evidence, experiment, freshness, runs
from experiments.lab.store import Lab, read_note
from train.loop import train
from train.summary import Evaluation

QUIET = Console(quiet=True)


def test_evidence_says_its_code_and_what_has_changed_since(tmp_path, monkeypatch, capsys):
    one = experiment.of("identities")
    settings = one.protocol["quick"]
    code = evidence.code_of(one, settings)
    lab = Lab(tmp_path, QUIET, code=code)
    lab.do("piece", {}, lambda: [])
    assert lab.used == code
    record = {"code": lab.used, "labels": evidence.labels_of(settings)}
    (tmp_path / "environment.json").write_text(json.dumps(record))
    assert evidence.stale(one, tmp_path) == {}
    lab.close()
    later = Lab(tmp_path, QUIET, code=code | {"cells/gru.py": "other"})
    later.do("piece", {}, lambda: [])
    assert later.used == code  # of when it was made
    later.do("another", {}, lambda: [])
    assert later.used == code | {"cells/gru.py": "several"}
    (tmp_path / "environment.json").write_text(json.dumps(record | {"code": later.used}))
    assert evidence.stale(one, tmp_path) == {"cells/gru.py": "changed"}


def test_a_kept_run_is_of_the_code_that_trained_it(tmp_path):
    """What measures is of today: only what was measured on the run is of then."""
    then = {"cells/gru.py": "a", "train/loop.py": "b", "experiments/toy.py": "c"}
    config = _short("gru")

    def probe(result):
        return runs.seeds(result)

    with contextlib.closing(Lab(tmp_path, QUIET, code=then)) as lab:
        lab.train("run", config)
        assert lab.used == then
    later = then | {"experiments/toy.py": "d", "cells/s5.py": "e"}  # which the run does not have
    with contextlib.closing(Lab(tmp_path, QUIET, code=later)) as today:
        today.train("run", config)
        assert today.used == {"experiments/toy.py": "d"} | freshness.of_runs(then)
        today.train("probed", config, probe)
    with contextlib.closing(Lab(tmp_path, QUIET, code=then)) as lab:
        lab.train("probed", config, probe)
        assert lab.used["experiments/toy.py"] == "several"


def test_a_run_that_was_trained_before_does_not_become_of_todays_code(tmp_path):
    """By processes, or by a command that was stopped before it had measured."""
    then, now = {"cells/gru.py": "a", "train/loop.py": "b"}, {"cells/gru.py": "c", "train/loop.py": "b"}
    config = _short("gru")
    with contextlib.closing(Lab(tmp_path, QUIET, code=then)) as lab:
        for name in ("told", "probed", "untold", "untold probed"):
            if "untold" not in name:
                lab.begins(name, config)
            train(config, lab.folder(name))
    for name, probe, said in (
        ("told", None, then),
        ("probed", runs.seeds, {"cells/gru.py": "several", "train/loop.py": "b"}),
        ("untold", None, dict.fromkeys(now, "several")),
        ("untold probed", runs.seeds, dict.fromkeys(now, "several")),
    ):
        with contextlib.closing(Lab(tmp_path, QUIET, code=now)) as lab:
            lab.train(name, config, probe)
            assert lab.used == said
    piece = tmp_path / "done" / "old.json"  # of before there were notes
    train(config, tmp_path / "runs" / "old")
    kept = json.loads(piece.with_stem("told").read_text())
    del kept["trained"]
    piece.write_text(json.dumps(kept | {"code": then}))
    with contextlib.closing(Lab(tmp_path, QUIET, code=now)) as lab:
        lab.train("old", config)
        assert lab.used == then


def test_a_run_that_goes_on_with_other_code_is_of_several(tmp_path):
    then, now = {"cells/gru.py": "a", "train/loop.py": "b"}, {"cells/gru.py": "c", "train/loop.py": "b"}
    config = _short("gru")
    with contextlib.closing(Lab(tmp_path, QUIET, code=then)) as lab:
        lab.begins("run", config)
        lab.folder("run").mkdir(parents=True)
        (lab.folder("run") / "config.json").write_text("{}")  # it has begun
    with contextlib.closing(Lab(tmp_path, QUIET, code=now)) as lab:
        lab.begins("run", config)
        assert read_note(tmp_path, "run")["code"] == {"cells/gru.py": "several", "train/loop.py": "b"}
        lab.begins("another", config)  # that one has not
        assert read_note(tmp_path, "another")["code"] == now


def test_kept_runs_that_begin_as_they_did_are_of_todays_code(tmp_path, monkeypatch):
    """One that does not stays of the old code; what other code has measured is measured again."""
    configs = {"same": _short("gru"), "other": _short("gru"), "rounded": _short("lstm")}
    then = {path: "old" for path in freshness.code_of("gates")}
    with contextlib.closing(Lab(tmp_path, QUIET, code=then)) as lab:
        for name, config in configs.items():
            lab.train(name, config)
        lab.train("probed", configs["same"], runs.seeds)
        lab.do("timed", {}, lambda: [])
        lab.code = freshness.code_of("gates")
        lab.do("fresh", {}, lambda: [])
        lab.train("today", configs["same"])
        lab.train("measured", configs["same"], runs.seeds)
    (tmp_path / "done" / "rounded.json").write_text(json.dumps(_of_before_notes(tmp_path, "rounded")))
    for name, factor in {"other": 1.1, "rounded": 1 + 1e-6}.items():
        path = tmp_path / "runs" / name / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | {"train_loss": row["train_loss"] * factor} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = tmp_path / "runs" / "elsewhere"
    shutil.copytree(tmp_path / "runs" / "same", here)  # on other devices sums are rounded in other ways
    environment = json.loads((here / "environment.json").read_text())
    (here / "environment.json").write_text(json.dumps(environment | {"devices": ["cpu"] * 5}))
    found = {one.name: one for one in confirmed.confirm(tmp_path, "gates")}
    assert found.pop("elsewhere") == ("elsewhere", "elsewhere", 0, 0.0, 5)
    shutil.rmtree(here)
    assert {name: one.word for name, one in found.items()} == {
        "same": "the same", "probed": "the same", "other": "different", "rounded": "but for rounding",
        "today": "fresh", "measured": "fresh",
    }  # fmt: skip
    assert (
        found["same"].step == 1 and 0 < found["rounded"].difference < 2e-6 < 0.05 < found["other"].difference
    )
    assert {path.stem for path in tmp_path.glob("done/*.json")} == {*configs, "fresh", "today", "measured"}
    again = {one.name: one.word for one in confirmed.confirm(tmp_path, "gates")}
    assert again == dict.fromkeys(found, "fresh") | {"other": "different"}  # for good
    shutil.rmtree(tmp_path / "runs" / "same")  # whose rows stay
    list(confirmed.confirm(tmp_path, "gates"))
    assert (tmp_path / "done" / "same.json").exists()
    with contextlib.closing(Lab(tmp_path, QUIET, code=freshness.code_of("gates"))) as lab:
        monkeypatch.setattr("experiments.lab.store.train", None)
        for name in ("same", "rounded"):
            lab.train(name, configs[name])
        assert lab.used.items() <= lab.code.items() and {"cells/gru.py", "cells/lstm.py"} <= lab.used.keys()
        told = confirmed.summary(lab.confirmed)
        assert (
            told["runs"] == 2
            and told["steps"] == [1, 1]
            and told["difference"] == found["rounded"].difference
        )
        lab.train("other", configs["other"])
        assert (
            lab.used["cells/gru.py"] == "several" and lab.used["cells/lstm.py"] == lab.code["cells/lstm.py"]
        )


def test_seeds_that_diverge_alike_are_alike():
    def row(**losses):
        given = {"seed": 0, "learning_rate": 0.1, "step": 5, "train_loss": 1.0, "valid_loss": 2.0} | losses
        return Evaluation.from_dict(given)

    lost = (row(train_loss=None), row(train_loss=float("nan"), valid_loss=float("inf")))
    assert confirmed.apart([row(), lost[0]], [row(), lost[0]]) == 0 == confirmed.apart([lost[1]], [lost[1]])
    assert confirmed.apart([row()], [row(valid_loss=2.5)]) == pytest.approx(0.2)
    for other in (row(train_loss=None), row(seed=1), row(step=6), row(learning_rate=0.2)):
        assert confirmed.apart([row()], [other]) == float("inf")
    assert confirmed.apart([row()], [row(), row()]) == float("inf")


def _of_before_notes(folder, name):
    """The piece of a run, as it was kept when there were no notes; the note is gone."""
    (folder / "trained" / f"{name}.json").unlink()
    kept = json.loads((folder / "done" / f"{name}.json").read_text())
    return kept | {"code": kept.pop("trained")}


def _short(cell):
    return runs.config(
        cell, "delayed_recall", cell={"hidden_size": 3}, task={"gap": 2, "eval_examples": 8},
        train={"steps": 2, "seeds": 2, "batch_size": 2, "eval_every": 1},
    )  # fmt: skip
