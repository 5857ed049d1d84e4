"""More steps of a run, and another run with its weights."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import train
from tiny_runs import Killed, config, kill_after, lines, without_times
from train.files import WorkdirError
from train.loop import train as run_training

CONSTANT = {"optim": {"schedule": "constant"}}
SOLVES_ON = {"stop_when_solved": False}


def asked(steps, **sections):
    return config("gru", **CONSTANT | {"train": {"steps": steps} | SOLVES_ON} | sections)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "run"
    run_training(asked(20), folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run_training(asked(40), folder)


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def quiet(line):
    return None


@pytest.mark.parametrize("where", ["there", pytest.param("copied", marks=pytest.mark.slow)])
def test_more_steps_are_those_of_a_run_that_had_them_from_the_start(short, whole, tmp_path, where):
    source = shutil.copytree(short, tmp_path / "run")
    target = source if where == "there" else tmp_path / "longer"
    before, told = (short / "environment.json").read_bytes(), []
    with pytest.raises(Killed):
        run_training(asked(40), target, continues=source, watch=kill_after(30), say=told.append)
    result = run_training(asked(40), target, continues=source, say=quiet)
    assert same(result.state, whole[1].state)
    assert without_times(lines(target)) == without_times(lines(whole[0]))
    assert (
        len(told) == 1
        and "from step 20, with 40 steps in place of 20" in told[0]
        and "was 0.02, is 0.02" in told[0]
    )
    record = json.loads((target / "environment.json").read_text())
    assert record["started"] == json.loads(before)["started"]
    assert record["resumed"][0]["step"] == 20 and record["resumed"][0]["continues"] == str(source)
    if where == "copied":
        assert (source / "environment.json").read_bytes() == before
        assert lines(source) == lines(short)
    again = run_training(asked(40), target)  # it is a run of 40 steps now
    assert again.summary == result.summary
    with pytest.raises(ValueError, match="has 40 steps, config.train.steps=30 are fewer"):
        run_training(asked(30), target, continues=short, say=quiet)


def test_a_copy_that_was_cut_short_is_made_again(short, whole, tmp_path, monkeypatch):
    from train import going_on

    target, write = tmp_path / "longer", going_on.files.write

    def full(path, content):
        if path.name == "config.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(going_on.files, "write", full)
    with pytest.raises(OSError):
        run_training(asked(40), target, continues=short, say=quiet)
    monkeypatch.undo()
    result = run_training(asked(40), target, continues=short, say=quiet)
    assert same(result.state, whole[1].state)
    assert not list(target.glob("*.part"))


def test_what_is_no_continuation_is_refused(short, tmp_path):
    def refused(*parts, **sections):
        with pytest.raises((ValueError, WorkdirError)) as error:
            run_training(asked(40, **sections), tmp_path / "other", continues=short, say=quiet)
        assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)
        assert not (tmp_path / "other").exists()

    refused("cell.hidden_size 8 there, 9 now", cell={"hidden_size": 9})
    refused("model.depth 1 there, 2 now", "--init begins another one", model={"depth": 2})
    refused("optim.learning_rate", optim={"learning_rate": 0.5})
    refused("has 20 steps, config.train.steps=10 are fewer", train={"steps": 10})
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "metrics.jsonl").write_text("mine")
    with pytest.raises(WorkdirError, match="holds metrics.jsonl, but no run"):
        run_training(asked(40), tmp_path / "there", continues=short, say=quiet)


def beginning(source, **sections):
    """A run of one step, too small a one to move anything, that begins with another's weights."""
    small = {"learning_rate": 1e-12} | sections.pop("optim", {})
    return dataclasses.replace(asked(1, optim=small, **sections), init=str(source))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["adam", "schedule_free_adamw"])
def test_another_run_begins_with_the_weights_of_the_best_evaluation(short, tmp_path, rule):
    run, told = train.load(short), []
    asked = beginning(short, optim={"optimizer": rule})
    result = run_training(asked, tmp_path / "fine", say=told.append)
    arrays = len(jax.tree.leaves(run.params()))
    assert len(told) == 1 and f"{arrays} of {arrays} arrays begin as in {short}" in told[0]
    for lane in range(2):
        own = jax.tree.map(lambda x, lane=lane: x[lane], result.state.params)
        close = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-9), own, run.params())
        assert jax.tree.all(close)
    assert json.loads((tmp_path / "fine" / "config.json").read_text())["init"] == str(short)
    run_training(asked, tmp_path / "fine", say=told.append)
    assert len(told) == 1  # it had begun


@pytest.mark.slow
def test_a_head_that_does_not_fit_begins_anew_and_layers_that_do_not_are_refused(short):
    told, more = [], {"task": {"symbols": 3, "distractors": 3}}
    result = run_training(beginning(short, **more), say=told.append)
    assert "these begin anew: head.bias (4,) there, (3,) here; head.kernel (8, 4) there, (8, 3) here" in told
    kept = jax.tree.map(lambda x: x[0], result.state.params["layers"])
    wanted = train.load(short).params()["layers"]
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-9), kept, wanted))
    for sections, parts in (
        ({"cell": {"hidden_size": 9}}, ["layers do not fit", "(8, 8) there, (9, 9) here"]),
        ({"model": {"depth": 2}}, ["layers.1.forward", "nothing there"]),
        ({"cell": {"name": "lstm"}}, ["is a run of gru, and not of lstm"]),
    ):
        with pytest.raises(ValueError) as error:
            run_training(beginning(short, **sections), say=quiet)
        assert all(part in str(error.value) for part in ["config.init=", *parts]), str(error.value)
    with pytest.raises(ValueError, match="config.init=nowhere: nowhere does not exist"):
        run_training(beginning("nowhere"), say=quiet)


def test_what_means_something_else_begins_anew_or_is_refused(tmp_path, monkeypatch):
    """Of as many tokens, classes and features: weights would fit, and say something else."""
    from train.initial import of_run
    from train.tasks.meaning import Meaning

    there = beginning("run", model={"depth": 1})
    run_training(asked(1), tmp_path / "run")
    asked_for = dataclasses.replace(there, init=str(tmp_path / "run"))
    model = train.load(tmp_path / "run").model
    params, lines_ = of_run(asked_for, model, Meaning())
    assert (
        all(x is not None for x in jax.tree.leaves(params, is_leaf=lambda x: x is None)) and len(lines_) == 1
    )
    params, lines_ = of_run(asked_for, model, Meaning(tokens=tuple("abcdefg"), classes=tuple("wxyz")))
    assert params["embed"] == {"embedding": None} and params["head"] == {"bias": None, "kernel": None}
    assert any("mean something else here; embed, head begins anew" in line for line in lines_)
    with pytest.raises(ValueError, match="its features are without names, here speed, load"):
        of_run(asked_for, model, Meaning(features=("speed", "load")))
