"""The training loop as laws: learning, seeds, resuming, stopping, refusing."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

import configs
from train import host
from train.ahead import InGroups, Prepared, side_by_side
from train.checkpoint import CheckpointError, Checkpoints
from train.compile import EFFORTS, executable, make_room, options
from train.files import WorkdirError
from train.loop import train

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


def test_steps_past_the_budget_change_nothing_and_without_stopping_it_is_used_up(tmp_path):
    options = {"steps": 7, "stop_when_solved": "false"}
    exact = train(config(train=options | {"eval_every": 7}))
    overshot = train(config(train=options | {"eval_every": 5}), tmp_path)
    chex.assert_trees_all_equal(exact.state.params, overshot.state.params)
    assert {seed.final_step for seed in overshot.summary.seeds} == {7}
    assert sorted({row["step"] for row in lines(tmp_path)}) == [5, 7]


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
    chex.assert_trees_all_equal(whole.state, resumed.state)
    assert without_times(lines(tmp_path / "whole")) == without_times(lines(tmp_path / "killed"))
    for a, b in zip(whole.summary.seeds, resumed.summary.seeds, strict=True):
        assert dataclasses.replace(a, solved_seconds=b.solved_seconds) == b


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
            os.kill(os.getpid(), number)

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


def test_another_run_is_not_mixed_into_a_directory(tmp_path):
    train(config(), tmp_path)
    with pytest.raises(WorkdirError, match=r"train.seed 0 there, 3 now"):
        train(config(train={"seed": 3}), tmp_path)
    summary = train(config(train={"seed": 3}), tmp_path, overwrite=True).summary
    assert summary.run.status == "finished"
    assert json.loads((tmp_path / "config.json").read_text())["train"]["seed"] == 3


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_text("mine too")
    train(config(), tmp_path, overwrite=True)
    (tmp_path / "checkpoints" / "99").mkdir()
    (tmp_path / "config.json").write_text("{")
    train(config(train={"seed": 3}), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert (tmp_path / "figures" / "a.png").read_text() == "mine too"
    assert not (tmp_path / "checkpoints" / "99").exists()
    assert json.loads((tmp_path / "config.json").read_text())["train"]["seed"] == 3


@pytest.mark.parametrize("content", ['{"compilerOptions": {}}', "[1]", "not json"])
def test_another_programs_config_is_not_overwritten(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match="holds config.json, but no run: nothing is overwritten"):
        train(config(), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == content


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
    chex.assert_trees_all_equal(whole.state, resumed.state)
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
    chex.assert_trees_all_equal(state, restored)


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
    """Every (name, step, value) in the event files of a folder: records of length, CRC, event, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    for file in folder.glob("events*"):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value


@pytest.mark.parametrize("grid", [False, True])
def test_tensorboard_has_a_curve_for_every_seed_and_learning_rate(tmp_path, grid):
    pytest.importorskip("tensorboardX")
    lanes = {"optim": {"learning_rates": (0.02, 0.01)}, "train": {"seeds": 1, "seed": 3}} if grid else {}
    lanes["train"] = lanes.get("train", {}) | {"tensorboard": "true"}
    train(config(**lanes), tmp_path)
    names = {(3, 0.02): "seed_3_learning_rate_0.02", (3, 0.01): "seed_3_learning_rate_0.01"}
    names |= {(0, 0.02): "seed_0", (1, 0.02): "seed_1"}
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


# --- runs made ready by threads


def test_runs_made_ready_in_groups_give_their_own_numbers(compilations):
    """Whatever one of them raises is raised in its turn; programs are compiled once."""
    run_configs = {
        "a": config(),
        "bad": config(model={"strategy": "associative"}),
        "b": config(train={"seed": 5}),
    }
    wanted = {name: train(run_configs[name]) for name in ("a", "b")}
    before = len(compilations)
    groups = InGroups({name: Prepared(c) for name, c in run_configs.items()})
    for name, run_config in run_configs.items():
        prepared = groups.begin(name)
        if name == "bad":
            with pytest.raises(ValueError, match="GRU cannot use strategy"):
                train(run_config, prepared=prepared)
            continue
        result = train(run_config, prepared=prepared)
        chex.assert_trees_all_equal(result.state, wanted[name].state)
        assert [seed.test_loss for seed in result.summary.seeds] == [
            seed.test_loss for seed in wanted[name].summary.seeds
        ]
    assert len(compilations) == before


def test_the_first_group_is_one_run_and_nothing_is_compiled_while_one_trains():
    ready = []

    class Told:
        def __init__(self, name):
            self.stages = [lambda stage=stage: ready.append((stage, name)) for stage in range(2)]

    groups = InGroups({name: Told(name) for name in "abcdef"}, size=3)
    for name, group in zip("abcdef", ["a", *["bcd"] * 3, *["ef"] * 2], strict=True):
        groups.begin(name)
        assert set(ready[-2 * len(group) :]) == {(stage, name) for stage in range(2) for name in group}
        assert len(ready) == 2 * ("abcdef".index(group[-1]) + 1)


def test_a_ctrl_c_while_runs_are_made_ready_leaves_no_thread_behind(monkeypatch):
    before = threading.active_count()

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([SimpleNamespace(stages=[stop, lambda: None])])
    assert threading.active_count() == before


def test_two_threads_compile_a_program_once_and_room_is_made_when_they_have(monkeypatch):
    monkeypatch.setattr(host, "crowded", lambda: True)
    inside, go = threading.Event(), threading.Event()

    def slow(x):
        inside.set()
        assert go.wait(20)
        return x + 1

    program, x = jax.jit(chex.assert_max_traces(slow, n=1)), np.float32(1)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(lambda: executable(program, x)(x)) for _ in range(2)]
        assert inside.wait(20)
        room = pool.submit(make_room)
        time.sleep(0.1)
        assert not room.done()
        go.set()
        assert [float(done.result(20)) for done in asked] == [2, 2]
        room.result(20)


def test_whatever_the_effort_of_compiling_the_numbers_are_the_same_to_rounding(monkeypatch):
    """And what the user says in XLA_FLAGS stays, as does what this compiler does not know."""
    x = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    program = jax.jit(lambda x: jax.grad(lambda x: jax.numpy.tanh(x @ x).sum())(x))
    monkeypatch.setenv("XLA_FLAGS", "")
    first, *others = [executable(program, x, effort=effort)(x) for effort in EFFORTS]
    for other in others:
        chex.assert_trees_all_close(first, other, rtol=1e-5, atol=1e-5)
    known = [options(effort) for effort in EFFORTS]
    assert len({str(options) for options in known}) >= 2
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    assert all("xla_backend_optimization_level" not in options(effort) for effort in EFFORTS)
    monkeypatch.setitem(EFFORTS, "once", {"xla_no_such_option": 1})
    assert options("once") == {}
