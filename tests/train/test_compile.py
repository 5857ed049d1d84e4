"""Compilation: once, side by side, never while a run trains, and with the same numbers at any effort."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

from tiny_runs import config
from train import host
from train.ahead import InGroups, Prepared, side_by_side
from train.compile import EFFORTS, executable, make_room, options
from train.loop import train


@pytest.mark.slow
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
    monkeypatch.setattr("jax.clear_caches", lambda: None)  # those of the other tests stay
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
