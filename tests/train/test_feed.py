"""Rows that the host gathers: the examples, their order, and so the numbers, of those of the device."""

import sys
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
from tiny_runs import Killed, kill_after, lines, without_times
from train import feed, memory
from train.checkpoint import digest_of
from train.compile import executable
from train.lanes import dispatched_data, initial_state, make_run, source
from train.loop import train
from train.step import pieces, step_keys
from train.tasks import buckets, music

TEXT = {part: np.zeros(5000, np.uint8) for part in ("train", "valid", "test")} | {
    "alphabet": np.zeros(1, np.uint8)
}
TINY = {"seeds": 2, "batch_size": 8, "steps": 12, "eval_every": 5, "eval_batch_size": 32}


def config(data, task="digits", optim=None, **options):
    """Images in two steps, or music; 12 optimiser steps in dispatches of 5."""
    options = (
        TINY | {"checkpoint_seconds": 0.0, "stop_when_solved": False, "buckets": 1, "data": data} | options
    )
    more = {"task": {"pixels_per_step": 32}} if task == "digits" else {"model": {"dropout": 0.0}}
    return configs.freeze(
        configs.make("rnn", task, cell={"hidden_size": 3}, optim=optim or {}, train=options, **more)
    )


@pytest.fixture
def loaded(monkeypatch):
    """Music of made-up rolls that differ in length."""
    rng = np.random.default_rng(0)

    def rolls(count):
        frames = [rng.random((2 + int(n), music.KEYS)) < 0.1 for n in rng.integers(0, 12, count)]
        return music.padded([roll.astype(np.uint8) for roll in frames], 14)

    data = {"train": rolls(31), "valid": rolls(5), "test": rolls(5)}
    monkeypatch.setattr(music.Music, "load", lambda self, data_dir=None: data)


def gathering():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


def ended():
    for thread in gathering():
        thread.join(timeout=10)
    return not gathering()


@pytest.mark.slow
def test_both_ways_have_the_same_numbers_bit_for_bit_also_of_a_run_that_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("grain")
    monkeypatch.setattr(feed, "PIECE", 1)  # evaluations in as many pieces as can be
    rates = {"learning_rates": (0.01, 0.02)}
    device = train(config("device", optim=rates), tmp_path / "device")
    with pytest.raises(Killed):
        train(config("host", optim=rates), tmp_path / "host", watch=kill_after(10))
    assert ended()
    told = []
    host = train(config("host", optim=rates), tmp_path / "host", watch=lambda at: told.append(at.step))
    assert told[0] == 5 and ended()
    assert (device.run.data_at, host.run.data_at) == ("device", "host")
    assert digest_of(device.run.data) == digest_of(host.run.data)
    chex.assert_trees_all_equal(device.state, host.state)
    assert without_times(lines(tmp_path / "device")) == without_times(lines(tmp_path / "host"))
    for a, b in zip(device.summary.seeds, host.summary.seeds, strict=True):
        assert (a.test_loss, a.best_test_loss) == (b.test_loss, b.best_test_loss)


@pytest.mark.parametrize("options", [{"buckets": 3}, {"segment": 4}, {"segment": 4, "eval_every": 2}])
def test_a_dispatch_is_fed_with_the_rows_of_its_steps(loaded, options):
    pytest.importorskip("grain")
    run = make_run(config("host", "music", **options), devices=jax.devices()[:1])
    reads, task, size = source(run), run.config.task, TINY["batch_size"]
    count, steps = pieces(run.config, run.spec)[0], run.config.dispatch_steps
    assert len(reads) == -(-12 // steps)
    for dispatch, seed in ((0, 0), (1, 1), (len(reads) - 1, 0)):
        fed = reads[dispatch]
        for i in range(dispatch * steps, (dispatch + 1) * steps):
            key, number = step_keys(seed, i)[0], i // count
            got = fed.of(seed, number)
            if run.buckets:
                of, numbers = buckets.schedule(run.buckets)
                bucket = run.buckets[of[i % len(of)]]
                number = i // len(of) * bucket.batches + int(numbers[i % len(of)])
                want = task.bucket_batch(run.data, key, number, size, bucket)
                chex.assert_trees_all_equal(task.batch_of(got, bucket), want)
            else:
                want = task.train_batch(run.data, key, number, size)
                chex.assert_trees_all_equal(task.batch_of(got), want)


def test_what_does_not_fit_the_device_is_fed_from_the_host(monkeypatch, tmp_path):
    pytest.importorskip("grain")
    assert make_run(config("auto")).data_at == "device"
    there = memory.available(jax.devices())
    data = memory.stored(make_run(config("device")).data)
    monkeypatch.setattr(memory, "ON_DEVICE", 0.9 * data / there)
    assert make_run(config("auto")).data_at == "host"
    assert make_run(config("device")).data_at == "device"


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(
        ValueError, match=r"^train.data=host: install the extra 'grain', pip install '.\[grain\]'"
    ):
        make_run(config("host"))
    monkeypatch.setattr(memory, "ON_DEVICE", 0.0)
    with pytest.raises(ValueError, match="^the data take .* a device has .*; train.data=host: install"):
        make_run(config("auto"))


@pytest.mark.parametrize("task", ["adding", "text"])
def test_tasks_without_rows_refuse_the_host(task, monkeypatch):
    asked = configs.freeze(configs.make("gru", task, train={"data": "host"}))
    monkeypatch.setattr(type(asked.task), "load", lambda self, data_dir=None: TEXT if task == "text" else {})
    with pytest.raises(ValueError, match=f"data='host' has no effect: {task} has no rows to gather"):
        make_run(asked)


def test_nothing_goes_on_gathering_when_a_run_ends_early():
    pytest.importorskip("grain")
    feeding = dispatched_data(make_run(config("host", steps=1000)), 0)
    next(feeding)
    assert gathering()
    feeding.close()
    assert ended()


def test_a_run_whose_dispatches_do_not_fit_says_what_would_need_less(monkeypatch):
    pytest.importorskip("grain")
    run = make_run(config("host", steps=10**6, eval_every=10**6))
    needed = memory.needs(run.config, run.spec, run.model, run.data, "host", {"valid": 180, "test": 360}, 1)
    batches = 2 * 10**6 * 2 * 8 * (64 + 4)  # 2 seeds, batches of 8 images of 64 bytes and a label
    assert needed["batches of two times 1000000 steps"] == batches
    monkeypatch.setattr(memory, "available", lambda devices: batches)
    with pytest.raises(ValueError, match="take a smaller train.eval_every or train.batch_size"):
        make_run(config("host", steps=10**6, eval_every=10**6))


@pytest.mark.two_devices
@pytest.mark.parametrize("split, rates", [(1, (0.01, 0.02)), (2, ())])
def test_each_device_is_fed_with_its_lanes_and_its_rows(split, rates):
    """Three seeds, and two rates of them, on two devices: some lanes of a device share their rows."""
    states = {}
    for data in ("device", "host"):
        asked = config(data, optim={"learning_rates": rates}, seeds=3, batch_devices=split)
        run = make_run(asked)
        assert dict(run.mesh.shape) == {"lanes": 2 // split, "batch": split, "time": 1}
        state, fed = initial_state(run), next(dispatched_data(run, 5))
        args = state, fed, jnp.int32(5)
        states[data] = executable(run.programs.train, *args)(*args)
    chex.assert_trees_all_equal(states["device"], states["host"])


@pytest.mark.slow
def test_on_two_devices(on_two_devices):
    pytest.importorskip("grain")
    on_two_devices(__file__)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"segment": 5}], ids=["whole", "segments"])
def test_more_steps_that_begin_amid_a_dispatch_are_those_of_the_device(tmp_path, loaded, more):
    pytest.importorskip("grain")
    constant = {"schedule": "constant", "warmup_steps": 0}

    def asked(data, steps):
        return config(data, "music", optim=constant, steps=steps, **more)

    whole = train(asked("device", 22))
    train(asked("host", 12), tmp_path / "run")
    longer = train(asked("host", 22), tmp_path / "run", continues=tmp_path / "run", say=lambda line: None)
    chex.assert_trees_all_equal(jax.device_get(longer.state), jax.device_get(whole.state))
