"""Truncated backpropagation: pieces of a batch, the state kept, the gradient ending where a piece begins."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
from batches import same
from compiling import jit
from models import assert_close
from tiny_runs import Killed, config, kill_after, lines, without_times
from train import loop, metrics
from train.lanes import initial_state, make_run
from train.resolve import resolve
from train.step import make_step, piece
from train.tasks.base import Batch

TIME, SEGMENT = 11, 4


def copying(optim=None, **train):
    """A run on sequences of TIME steps, in three pieces, of which the last one is one short."""
    train = {"segment": SEGMENT, "batch_size": 8, "seeds": 2, "eval_every": 4} | train
    sizes = {"task": {"length": 5, "items": 3, "eval_examples": 8}, "cell": {"hidden_size": 8}}
    return config("lstm", "copy_memory", **sizes, optim=optim or {}, train=train)


def test_pieces_are_the_batch():
    rng = np.random.default_rng(0)
    steps = {
        name: rng.normal(size=(3, TIME)).astype(np.float32) for name in ("xs", "ys", "weights", "scored")
    }
    flags = {name: rng.random((3, TIME)) < 0.5 for name in ("mask", "resets")}
    for lengths in (None, np.array([TIME, 0, 6])):
        batch = Batch(**steps, **flags, lengths=lengths)
        parts = [piece(batch, number, SEGMENT) for number in range(3)]
        assert [part.starts.tolist() for part in parts] == [[True] * 3, [False] * 3, [False] * 3]
        for name, want in (steps | flags).items():
            got = np.concatenate([getattr(part, name) for part in parts], axis=1)
            np.testing.assert_array_equal(got[:, :TIME], want)
            assert not got[:, TIME:].any()
        want = np.full(3, TIME) if lengths is None else lengths
        np.testing.assert_array_equal(sum(part.lengths for part in parts), want)


def test_a_step_is_that_of_a_piece_from_the_state_before(x64):
    """Losses by hand: the model over the pieces of each batch, from the state of the last one."""
    run = make_run(copying())
    step, task = jit(make_step(run.config, run.spec, run.model)), run.config.task
    apply = jit(functools.partial(run.model.apply, return_carry=True))
    state = jax.tree.map(lambda x: x[0], initial_state(run))
    key = jax.random.fold_in(jax.random.key(0), 1)
    for i in range(7):
        number, part = divmod(i, 3)
        if part == 0:
            batch, carry = task.train_batch({}, key, number, 8), None
        first, last = part * SEGMENT, min(part * SEGMENT + SEGMENT, TIME)
        cut = Batch(*(x[:, first:last] for x in batch[:2]), None, *(x[:, first:last] for x in batch[3:5]))
        carry, outputs = apply(state.params, cut.xs, carry=carry)
        state, loss = step(state, {}, jnp.int32(i))
        assert_close(loss, metrics.loss(run.spec, outputs, cut), 1e-6)


@pytest.mark.slow
def test_a_run_that_was_killed_amid_a_sequence_goes_on_with_the_same_numbers(tmp_path):
    asked = copying(steps=16, checkpoint_seconds=0.0)
    loop.train(asked, tmp_path / "whole")
    with pytest.raises(Killed):
        loop.train(asked, tmp_path / "half", watch=kill_after(12))
    assert len(lines(tmp_path / "half")) < len(lines(tmp_path / "whole"))
    loop.train(asked, tmp_path / "half")
    rows = lines(tmp_path / "whole")
    assert without_times(lines(tmp_path / "half")) == without_times(rows)
    # Three steps a sequence: of the fourth one, a step was taken.
    assert [(row["examples"], row["tokens"]) for row in rows[::2]][-1] == (6 * 8, 8 * (5 * TIME + SEGMENT))


def test_a_batch_in_which_nothing_counts_teaches_nothing():
    """Not even by the momentum of the steps before."""
    run = make_run(copying(segment=0))
    task = run.config.task

    class Idle(type(task)):
        def train_batch(self, data, key, step, batch_size):
            batch = super().train_batch(data, key, step, batch_size)
            return batch._replace(weights=batch.weights * (step != 1))

    config = dataclasses.replace(run.config, task=Idle(**vars(task)))
    step, state = (
        jit(make_step(config, run.spec, run.model)),
        jax.tree.map(lambda x: x[0], initial_state(run)),
    )
    states = [state]
    for i in range(3):
        states.append(step(states[-1], {}, jnp.int32(i))[0])
    stays = [same((a.params, a.opt_state), (b.params, b.opt_state)) for a, b in itertools.pairwise(states)]
    assert stays == [False, True, False] and states[-1].diverged_step == -1


@pytest.mark.parametrize(
    "task, fields, wanted",
    [
        (
            "copy_memory",
            {"train.segment": "500"},
            "train.segment=500 has no effect: sequences have 120 steps",
        ),
        ("adding", {"train.segment": "5"}, "train.segment=5 needs a task with a target at every step"),
        ("copy_memory", {"train.segment": "5", "model.bidirectional": "true"}, "bidirectional exclude"),
        ("copy_memory", {"train.segment": "5", "train.time_devices": "2"}, "time_devices exclude"),
    ],
)
def test_what_has_no_pieces_is_refused_with_one_line(task, fields, wanted):
    asked = configs.freeze(configs.apply(configs.make("sru", task), fields))
    with pytest.raises(ValueError, match=wanted) as refusal:
        resolve(asked, asked.task.load())
    assert "\n" not in str(refusal.value)
