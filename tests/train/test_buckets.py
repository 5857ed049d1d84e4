"""Buckets: the least padding, every row as often as before, and the loss and gradient of the same rows."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
from compiling import jit
from train import metrics
from train.lanes import initial_state, make_run
from train.loop import _seen
from train.resolve import in_buckets
from train.step import make_step
from train.tasks import buckets, music

SIZE = 4


def rolls(rng, count):
    frames = [rng.random((2 + int(n), music.KEYS)) < 0.1 for n in rng.integers(0, 12, count)]
    return music.padded([roll.astype(np.uint8) for roll in frames], 14)


@pytest.fixture
def loaded(monkeypatch):
    """Music of made-up rolls, 31 of them for training."""
    rng = np.random.default_rng(0)
    data = {"train": rolls(rng, 31), "valid": rolls(rng, 5), "test": rolls(rng, 5)}
    monkeypatch.setattr(music.Music, "load", lambda self, data_dir=None: data)
    return data


def config(**train):
    train = {"batch_size": SIZE, "seeds": 1, "buckets": 3} | train
    return configs.freeze(
        configs.make("gru", "music", cell={"hidden_size": 3}, model={"dropout": 0.0}, train=train)
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_cuts_leave_less_padding(seed):
    rng = np.random.default_rng(seed)
    lengths = np.sort(rng.integers(1, 50, 23))

    def steps(ends):
        return sum((end - first) * lengths[end - 1] for first, end in itertools.pairwise((0, *ends)))

    places = range(SIZE, 20, SIZE)
    for count in (1, 2, 3, 9):
        made = buckets.plan(lengths, count, SIZE)
        least = min(
            steps((*cuts, 23)) for k in range(count) for cuts in itertools.combinations(places, min(k, 4))
        )
        assert sum(bucket.rows * bucket.time for bucket in made) == least
        assert len(made) <= count and sum(bucket.rows for bucket in made) == 23
        assert all(bucket.time == lengths[bucket.first + bucket.rows - 1] for bucket in made)


def test_a_round_trains_on_every_row_once_and_each_seed_on_its_own_order(loaded):
    data, made = in_buckets(config(), loaded)
    task, (of, number) = config().task, buckets.schedule(made)
    whole = sum(bucket.batches for bucket in made)
    assert len(of) == whole and np.ptp(data["train"]["lengths"][[0, -1]]) > 0

    @functools.partial(jit, static_argnums=2)
    def batch(key, index, bucket):
        return task.bucket_batch(data, key, index, SIZE, bucket)

    def a_round(key, index):
        batches = [
            batch(key, index * made[b].batches + n, made[b])
            for b, n in zip(of, number, strict=True)
            if made[b].rows % SIZE == 0
        ]
        return [row.tobytes() for batch in batches for row in np.sum(np.asarray(batch.xs), (1, 2))]

    full = sum(bucket.rows for bucket in made if bucket.rows % SIZE == 0)
    first, second, other = (a_round(jax.random.key(k), i) for k, i in ((0, 0), (0, 1), (1, 0)))
    rows = np.sum(data["train"]["xs"], axis=(1, 2))
    assert sorted(first) == sorted(second) == sorted(other) and len(first) == full <= len(rows)
    assert first != second and first != other


def test_a_step_has_the_loss_of_the_rows_padded_to_the_longest(loaded):
    run = make_run(config())
    _, made = in_buckets(config(), loaded)
    of, number = buckets.schedule(made)
    step = jit(make_step(run.config, run.spec, run.model, buckets=made))
    state = jax.tree.map(lambda x: x[0], initial_state(run))
    key = jax.random.fold_in(jax.random.key(0), 1)

    @jit
    def loss_of(params, batch):
        outputs = run.model.apply(params, batch.xs, **batch.steps)
        return metrics.loss(run.spec, outputs, batch)

    @functools.partial(jit, static_argnums=1)
    def rows_of(index, bucket):
        return run.config.task.bucket_batch(run.data, key, index, SIZE, bucket)

    for i in range(2 * len(of)):
        bucket, index = made[of[i % len(of)]], i // len(of) * made[of[i % len(of)]].batches
        batch = rows_of(index + int(number[i % len(of)]), bucket)
        assert batch.xs.shape[1] == bucket.time >= int(batch.lengths.max())
        padded = run.spec.time - bucket.time
        wide = batch._replace(
            **{
                name: np.pad(x, ((0, 0), (0, padded)) + ((0, 0),) * (x.ndim - 2))
                for name in ("xs", "ys", "weights", "scored")
                if (x := getattr(batch, name)) is not None
            }
        )
        want = loss_of(state.params, wide)
        state, loss = step(state, run.data, jnp.int32(i))
        np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_tokens_are_those_of_the_padded_batches(loaded):
    _, made = in_buckets(config(), loaded)
    of, _ = buckets.schedule(made)
    run = make_run(config())
    for steps in (1, len(of) - 1, 2 * len(of) + 3):
        want = sum(SIZE * made[of[i % len(of)]].time for i in range(steps))
        assert _seen(run, steps) == (SIZE * steps, want)


def test_rows_of_one_length_have_no_buckets():
    asked = configs.freeze(configs.make("gru", "adding", train={"buckets": 2}))
    with pytest.raises(ValueError, match="buckets=2 has no effect: sequences are as long as each other"):
        make_run(asked)
