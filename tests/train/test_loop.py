"""The training loop as laws: learning, seeds, resuming, stopping, refusing."""

import errno
import json
import math
import shutil

import jax
import numpy as np
import pytest

import configs
from train.checkpoint import CheckpointError, Checkpoints
from train.loop import train
from train.record import WorkdirError

pytestmark = pytest.mark.usefixtures("in_a_hurry")
TINY = {
    "cell": {"hidden_size": 8},
    "task": {"gap": 3, "symbols": 4, "distractors": 2, "eval_examples": 64},
    "optim": {"learning_rate": 0.02, "warmup_steps": 2},
    "train": {"steps": 40, "batch_size": 8, "seeds": 2, "eval_every": 10, "checkpoint_seconds": 0.0},
}


def config(cell="gru", task="delayed_recall", /, **sections):
    base = configs.make(cell, task, **(TINY if task == "delayed_recall" else {}))
    flat = {f"{s}.{f}": v for s, fields in sections.items() for f, v in fields.items()}
    return configs.freeze(configs.apply(base, flat))


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_seed_is_the_same_alone_and_in_company():
    together = train(config(train={"seeds": 3})).state
    for s in range(3):
        alone = train(config(train={"seeds": 1, "seed": s})).state
        for x, y in zip(jax.tree.leaves(alone.params), jax.tree.leaves(together.params), strict=True):
            np.testing.assert_allclose(x[0], y[s], rtol=1e-4, atol=1e-5)
    params = jax.tree.leaves(together.params)
    assert any(not np.allclose(x[0], x[1]) for x in params)


def test_a_seed_that_solved_stops_and_keeps_its_parameters():
    short = config(train={"steps": 400, "seeds": 4, "eval_every": 5})
    result = train(short)
    steps = [seed["solved_step"] for seed in result.summary["seeds"]]
    assert None not in steps
    assert len(set(steps)) > 1
    first = int(np.argmin(steps))
    alone = train(config(train={"steps": 400, "seeds": 1, "seed": first, "eval_every": 5}))
    assert alone.summary["seeds"][0]["final_step"] == steps[first]
    for x, y in zip(jax.tree.leaves(alone.state.params), jax.tree.leaves(result.state.params), strict=True):
        np.testing.assert_allclose(x[0], y[first], rtol=1e-3, atol=1e-4)


def test_without_stopping_every_seed_uses_the_whole_budget(tmp_path):
    run = config(train={"steps": 130, "eval_every": 50, "stop_when_solved": "false"})
    summary = train(run, tmp_path).summary
    assert {seed["final_step"] for seed in summary["seeds"]} == {130}
    assert sorted({row["step"] for row in lines(tmp_path)}) == [50, 100, 130]


def test_steps_past_the_budget_change_nothing():
    exact = train(config(train={"steps": 7, "eval_every": 7})).state
    overshot = train(config(train={"steps": 7, "eval_every": 5})).state
    assert_same(exact.params, overshot.params)


class Killed(Exception):
    pass


def kill_after(step):
    def watch(progress):
        if progress.step >= step:
            raise Killed

    return watch


@pytest.mark.parametrize("dropout", ["0.0", "0.3"])
def test_a_resumed_run_gives_the_same_numbers_bit_for_bit(tmp_path, dropout):
    run = config(train={"stop_when_solved": "false"}, model={"dropout": dropout})
    whole = train(run, tmp_path / "whole")
    with pytest.raises(Killed):
        train(run, tmp_path / "killed", watch=kill_after(30))
    told = []
    resumed = train(run, tmp_path / "killed", watch=lambda progress: told.append(progress.step))
    assert told[0] == 20  # step 30 was evaluated, but its checkpoint was never written
    assert_same(whole.state, resumed.state)
    assert without_times(lines(tmp_path / "whole")) == without_times(lines(tmp_path / "killed"))
    times = ("solved_seconds",)
    for a, b in zip(whole.summary["seeds"], resumed.summary["seeds"], strict=True):
        assert {k: v for k, v in a.items() if k not in times} == {
            k: v for k, v in b.items() if k not in times
        }


def test_real_data_resume_at_the_same_place_in_the_epoch(tmp_path):
    run = configs.freeze(
        configs.make(
            "rnn",
            "digits",
            cell={"hidden_size": 4},
            task={"pixels_per_step": 8},
            train={"steps": 60, "eval_every": 20, "batch_size": 64, "seeds": 1, "checkpoint_seconds": 0.0},
        )
    )
    whole = train(run, tmp_path / "whole")
    with pytest.raises(Killed):
        train(run, tmp_path / "killed", watch=kill_after(40))
    assert_same(whole.state, train(run, tmp_path / "killed").state)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(config(), tmp_path)
    told = []
    second = train(config(), tmp_path, watch=lambda progress: told.append(progress.step))
    assert told == [first.summary["run"]["steps"]]
    assert_same(first.state, second.state)
    assert first.summary["seeds"] == second.summary["seeds"]


def test_ctrl_c_keeps_everything(tmp_path):
    import os
    import signal

    def interrupt(progress):
        if progress.step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    run = config(train={"stop_when_solved": "false", "checkpoint_seconds": "1000.0"})
    stopped = train(run, tmp_path / "stopped", watch=interrupt).summary["run"]
    assert stopped["status"] == "interrupted"
    assert stopped["steps"] == 20
    resumed = train(run, tmp_path / "stopped")
    assert resumed.summary["run"]["status"] == "finished"
    assert_same(train(run).state, resumed.state)


@pytest.mark.parametrize("on_nan", ["stop", "drop"])
def test_a_loss_that_is_not_finite(tmp_path, on_nan):
    run = config(
        "rnn",
        optim={"optimizer": "sgd", "learning_rate": "1e30", "clip_norm": "0.0", "warmup_steps": "0"},
        cell={"activation": "relu"},
        train={"on_nan": on_nan},
    )
    result = train(run, tmp_path)
    summary = result.summary
    assert all(seed["diverged_step"] is not None and not seed["solved"] for seed in summary["seeds"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.state.params))
    rows = lines(tmp_path)
    assert any(math.isnan(row["train_loss"]) for row in rows)
    assert (tmp_path / "summary.json").exists()
    if on_nan == "stop":
        assert summary["run"]["status"] == "diverged"
        assert "not finite" in summary["run"]["message"]
        assert "\n" not in summary["run"]["message"]
    else:
        assert summary["run"]["status"] == "finished"


def test_another_run_is_not_mixed_into_a_directory(tmp_path):
    train(config(train={"steps": 10}), tmp_path)
    with pytest.raises(WorkdirError, match=r"task.gap 3 there, 4 now"):
        train(config(task={"gap": 4}, train={"steps": 10}), tmp_path)
    summary = train(config(task={"gap": 4}, train={"steps": 10}), tmp_path, overwrite=True).summary
    assert summary["run"]["status"] == "finished"
    assert json.loads((tmp_path / "config.json").read_text())["task"]["gap"] == 4


def damage(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    run = config(train={"stop_when_solved": "false"})
    whole = train(run, tmp_path / "whole")
    with pytest.raises(Killed):
        train(run, tmp_path / "killed", watch=kill_after(40))
    steps = sorted((tmp_path / "killed" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    damage(steps[-1])
    resumed = train(run, tmp_path / "killed")
    assert_same(whole.state, resumed.state)
    for checkpoint in (tmp_path / "killed" / "checkpoints").iterdir():
        damage(checkpoint)
    with pytest.raises(CheckpointError, match="can be read") as refusal:
        train(run, tmp_path / "killed")
    assert "\n" not in str(refusal.value)


def test_checkpoints_return_what_was_saved(tmp_path):
    state = {"a": jax.numpy.arange(3), "b": (jax.numpy.float32(2.5),)}
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore(state) is None
    checkpoints.save(3, state, {"seconds": 1.5})
    checkpoints.close()
    step, restored, progress = Checkpoints(tmp_path / "c").restore(state)
    assert (step, progress) == (3, {"seconds": 1.5})
    assert_same(state, restored)


def test_a_run_can_be_moved(tmp_path):
    run = config(train={"stop_when_solved": "false"})
    with pytest.raises(Killed):
        train(run, tmp_path / "here", watch=kill_after(30))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert_same(train(run).state, train(run, tmp_path / "there").state)


def test_what_a_run_records(tmp_path):
    train(config("sru", model={"strategy": "chunked"}), tmp_path)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert {"python", "jax", "flax", "backend", "devices", "cpu", "started", "command"} <= set(environment)
    asked, resolved = (json.loads((tmp_path / f"{x}.json").read_text()) for x in ("config", "resolved"))
    assert asked["cell"]["name"] == resolved["cell"]["name"] == "sru"
    assert (asked["cell"]["chrono"], resolved["cell"]["chrono"]) == (None, 5)  # the length of the task
    assert json.loads((tmp_path / "summary.json").read_text())["run"]["strategy"] == "chunked"
    for row in lines(tmp_path):
        assert row["examples"] == row["step"] * 8
        assert row["tokens"] == row["examples"] * 5


def test_the_parameter_budget_is_met():
    base = configs.make("lstm", **TINY)
    asked = configs.apply(base, {"train.steps": "2", "parameters": "1000"})
    summary = train(configs.freeze(asked)).summary["run"]
    assert abs(summary["parameters"] - 1000) < 60


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    train(config(train={"tensorboard": "true", "steps": 10}), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_one_program_serves_every_seed_and_learning_rate():
    from train.lanes import initial_state, make_run

    texts = set()
    for seed, rate in (("0", "0.01"), ("7", "0.5")):
        run = make_run(config(train={"seed": seed}, optim={"learning_rate": rate}))
        state = initial_state(run)
        texts.add(run.programs.train.lower(state, run.data, jax.numpy.int32(0)).as_text())
    assert len(texts) == 1


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nmore lines")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match="No space left") as refusal:
        checkpoints.save(1, {"a": jax.numpy.arange(3)}, {})
    assert refusal.value.errno == errno.ENOSPC
    monkeypatch.setattr(
        checkpoints._manager, "save", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a\nb"))
    )
    with pytest.raises(CheckpointError, match="cannot write a checkpoint .*: a$"):
        checkpoints.save(1, {"a": jax.numpy.arange(3)}, {})
