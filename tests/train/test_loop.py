"""The training loop as laws: learning, seeds, resuming, stopping, refusing."""

import dataclasses
import json
import shutil
import signal
import struct

import chex
import jax
import numpy as np
import pytest

import configs
from tiny_runs import TINY, Killed, config, kill_after, lines, without_times
from train.loop import train


def test_a_seed_stops_when_it_has_solved_and_is_the_same_alone_and_in_company():
    short = {"steps": 400, "eval_every": 5}
    together = train(config(train=short | {"seeds": 4}))
    steps = [seed.solved_step for seed in together.summary.seeds]
    assert None not in steps
    assert len(set(steps)) > 1
    for s in range(4):
        alone = train(config(train=short | {"seeds": 1, "seed": s}))
        assert alone.summary.seeds[0].final_step == steps[s]
        params = jax.tree.map(lambda x, s=s: x[s : s + 1], together.state.params)
        chex.assert_trees_all_close(alone.state.params, params, rtol=1e-3, atol=1e-4)
    assert any(not np.allclose(x[0], x[1]) for x in jax.tree.leaves(together.state.params))


@pytest.mark.parametrize("batching", ["vmap", pytest.param("map", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_race_ends_when_no_learning_rate_can_be_faster_any_more(batching):
    """Each lane is what it is without; slow ones have a multiple of what the fastest, or `to_beat`, took."""
    short = {"steps": 400, "eval_every": 5, "seeds": 2, "seed_batching": batching}
    rates = {"learning_rates": (1e-9, TINY["optim"]["learning_rate"])}
    race = train(config(train=short | {"race": 2.0}, optim=rates))
    slow, fast = race.summary.seeds[:2], race.summary.seeds[2:]
    alone = train(config(train=short))
    assert [seed.solved_step for seed in fast] == [seed.solved_step for seed in alone.summary.seeds]
    end = 2 * max(seed.solved_step for seed in fast)
    assert all(not seed.solved and end <= seed.final_step <= end + 5 for seed in slow)
    late = train(config(train=short | {"race": 2.0, "to_beat": 10}, optim={"learning_rate": 1e-9}))
    assert {seed.final_step for seed in late.summary.seeds} == {20}
    for options in ({"race": 0.5}, {"race": 2.0, "stop_when_solved": False}, {"to_beat": 5}):
        with pytest.raises(ValueError, match="train.race|train.to_beat|race must be"):
            config(train=options)


@pytest.mark.slow
def test_steps_past_the_budget_change_nothing_and_without_stopping_it_is_used_up(tmp_path):
    options = {"steps": 7, "stop_when_solved": "false"}
    exact = train(config(train=options | {"eval_every": 7}))
    overshot = train(config(train=options | {"eval_every": 5}), tmp_path)
    chex.assert_trees_all_equal(exact.state.params, overshot.state.params)
    assert {seed.final_step for seed in overshot.summary.seeds} == {7}
    assert sorted({row["step"] for row in lines(tmp_path)}) == [5, 7]


@pytest.mark.parametrize(
    "dropout, optimizer",
    [
        ("0.3", "adam"),
        pytest.param("0.0", "muon", marks=pytest.mark.slow),
        pytest.param("0.0", "schedule_free_adamw", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_gives_the_same_numbers_bit_for_bit(tmp_path, dropout, optimizer):
    options = {"train": {"stop_when_solved": "false"}, "model": {"dropout": dropout}}
    run = config(**options, optim={"optimizer": optimizer})
    whole = train(run, tmp_path / "whole")
    with pytest.raises(Killed):
        train(run, tmp_path / "killed", watch=kill_after(30))
    told = []
    resumed = train(run, tmp_path / "killed", watch=lambda progress: told.append(progress.step))
    assert told[0] == 20  # step 30 was evaluated, but its checkpoint was never written
    chex.assert_trees_all_equal(whole.state, resumed.state)
    assert without_times(lines(tmp_path / "whole")) == without_times(lines(tmp_path / "killed"))
    for a, b in zip(whole.summary.seeds, resumed.summary.seeds, strict=True):
        assert dataclasses.replace(a, solved_seconds=b.solved_seconds) == b


@pytest.mark.slow
def test_the_best_validation_result_is_kept_and_tested(tmp_path):
    """A rate so high that seeds get worse again: what is kept is what a shorter run ends with."""
    options = {"stop_when_solved": "false", "seeds": "3"}
    steady = {"learning_rate": "0.2", "schedule": "constant"}
    run = config(train=options, optim=steady)
    whole = train(run, tmp_path)
    rows, kept = lines(tmp_path), set()
    for seed in whole.summary.seeds:
        curve = {row["step"]: row["valid_metric"] for row in rows if row["seed"] == seed.seed}
        assert seed.best_step == max(curve, key=curve.get)  # the first of them
        assert seed.best_valid_metric == curve[seed.best_step]
        shorter = train(config(train=options | {"steps": str(seed.best_step)}, optim=steady))
        (there,) = (other for other in shorter.summary.seeds if other.seed == seed.seed)
        assert (there.test_metric, there.test_loss) == (seed.best_test_metric, seed.best_test_loss)
        kept.add(seed.best_step)
    assert min(kept) < 40  # else nothing was tested


@pytest.mark.slow
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
    chex.assert_trees_all_equal(whole.state, train(run, tmp_path / "killed").state)


def test_a_finished_run_is_not_trained_again_and_nothing_is_compiled(tmp_path, compilations):
    def written():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    first = train(config(), tmp_path)
    files, told, before = written(), [], len(compilations)
    second = train(config(), tmp_path, watch=lambda progress: told.append(progress.step))
    assert told == [first.summary.run.steps]
    assert written() == files  # its start and its commit too
    assert len(compilations) == before
    chex.assert_trees_all_equal(first.state, second.state)
    assert first.summary == second.summary


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)],
)
def test_ctrl_c_and_a_scheduler_keep_everything(tmp_path, number, code):
    def interrupt(progress):
        if progress.step == 20:
            signal.raise_signal(number)

    run = config(train={"stop_when_solved": "false", "checkpoint_seconds": "1000.0"})
    before = signal.getsignal(number)
    result = train(run, tmp_path / "stopped", watch=interrupt)
    assert signal.getsignal(number) == before
    assert result.exit_code == code
    stopped = result.summary["run"]
    assert stopped["status"] == "interrupted"
    assert stopped["steps"] == 20
    resumed = train(run, tmp_path / "stopped")
    assert resumed.summary["run"]["status"] == "finished"
    chex.assert_trees_all_equal(train(run).state, resumed.state)


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
    assert result.exit_code == 1
    assert all(seed["diverged_step"] is not None and not seed["solved"] for seed in summary["seeds"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.state.params))
    rows = lines(tmp_path)
    assert any(row["train_loss"] is None for row in rows)
    assert (tmp_path / "summary.json").exists()
    if on_nan == "stop":
        assert summary["run"]["status"] == "diverged"
        assert "not finite" in summary["run"]["message"]
        assert "\n" not in summary["run"]["message"]
    else:
        assert summary["run"]["status"] == "finished"


def test_a_run_can_be_moved(tmp_path):
    run = config(train={"stop_when_solved": "false"})
    with pytest.raises(Killed):
        train(run, tmp_path / "here", watch=kill_after(30))
    shutil.move(tmp_path / "here", tmp_path / "there")
    chex.assert_trees_all_equal(train(run).state, train(run, tmp_path / "there").state)


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


def events(folder):
    """Every (name/folder, step, value) in event files below a folder: records of length, CRC, event, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    for file in folder.glob("*/events*"):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            for value in event.summary.value:
                yield f"{value.tag}/{file.parent.name}", event.step, value.simple_value


@pytest.mark.parametrize("grid", [pytest.param(False, marks=pytest.mark.slow), True])
def test_tensorboard_has_a_curve_for_every_seed_and_learning_rate(tmp_path, grid):
    pytest.importorskip("tensorboardX")
    lanes = {"optim": {"learning_rates": (0.02, 0.01)}, "train": {"seeds": 1, "seed": 3}} if grid else {}
    lanes["train"] = lanes.get("train", {}) | {"tensorboard": "true"}
    train(config(**lanes), tmp_path)
    names = {(3, 0.02): "gru_seed_3_learning_rate_0.02", (3, 0.01): "gru_seed_3_learning_rate_0.01"}
    names |= {(0, 0.02): "gru_seed_0", (1, 0.02): "gru_seed_1"}
    want = {
        (f"{column}/{names[row['seed'], row['learning_rate']]}", row["step"]): row[column]
        for row in lines(tmp_path)
        for column in ("train_loss", "valid_loss", "valid_metric")
    }
    written = list(events(tmp_path / "tensorboard"))
    assert len(written) == len(want) > 0
    assert {(name, step): value for name, step, value in written} == pytest.approx(want)


def test_one_program_serves_every_seed_and_learning_rate():
    from train.lanes import initial_state, make_run

    texts = set()
    for seed, rate in (("0", "0.01"), ("7", "0.5")):
        run = make_run(config(train={"seed": seed}, optim={"learning_rate": rate}))
        state = initial_state(run)
        texts.add(run.programs.train.lower(state, run.data, jax.numpy.int32(0)).as_text())
    assert len(texts) == 1
