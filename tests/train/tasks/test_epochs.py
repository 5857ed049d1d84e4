"""Data sets in memory: training goes through exact epochs, in an order of each epoch's own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from batches import KEY
from compiling import jit
from train.tasks import base
from train.tasks.shuffle import shuffled


class Rows(base.InMemory):
    """n rows, each of which is its own number."""

    name = "rows"

    def load(self, data_dir=None):
        return {}

    def spec(self, data):
        raise AssertionError("not asked here")

    @staticmethod
    def data(n):
        rows = np.arange(n, dtype=np.int32)
        return {split: {"xs": rows[:, None], "ys": rows} for split in ("train", *base.SPLITS)}


@pytest.mark.parametrize("n", [1, 2, 5, 17, 1257, 60000])
def test_shuffled_is_a_permutation_and_each_epoch_and_key_has_its_own(n):
    orders = [
        shuffled(jax.random.key(seed), jnp.full(n, epoch), jnp.arange(n), n)
        for seed, epoch in ((0, 0), (0, 1), (0, 2**31 - 1), (1, 0))
    ]
    assert all(np.array_equal(np.sort(order), np.arange(n)) for order in orders)
    if n >= 17:
        for a, b in itertools.combinations(map(np.asarray, orders), 2):
            assert (a == b).mean() < 0.3
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / n**0.5
        assert abs(np.corrcoef(orders[0], np.arange(n))[0, 1]) < 4 / n**0.5


def test_shuffled_does_not_depend_on_its_neighbours():
    epochs, positions = jnp.arange(50) // 20, jnp.arange(50) % 20
    together = shuffled(KEY, epochs, positions, 20)
    for i in (0, 19, 20, 49):
        assert together[i] == shuffled(KEY, epochs[i : i + 1], positions[i : i + 1], 20)[0]


def test_shuffled_puts_every_row_everywhere_alike():
    n, epochs = 12, 6000
    for position in range(n):
        rows = shuffled(KEY, jnp.arange(epochs), jnp.full(epochs, position), n)
        counts = np.bincount(rows, minlength=n)
        assert (np.square(counts - epochs / n) / (epochs / n)).sum() < 40  # chi-squared, 11 degrees: p = 4e-5


def test_shuffled_is_a_permutation_for_other_generators_too():
    key = jax.random.key(0, impl="rbg")
    order = shuffled(key, jnp.full(100, 3), jnp.arange(100), 100)
    assert np.array_equal(np.sort(order), np.arange(100))


@pytest.mark.parametrize("n, batch_size", [(10, 4), (7, 7), (3, 8), (1, 3), (5, 1)])
def test_training_goes_through_exact_epochs(n, batch_size):
    task, data = Rows(), Rows.data(n)
    answers = jit(jax.vmap(lambda step: task.train_batch(data, KEY, step, batch_size).ys))
    epochs = np.asarray(answers(jnp.arange(3 * n))).reshape(-1, n)
    assert (np.sort(epochs) == np.arange(n)).all()
    if n >= 5:
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_late_steps_do_not_overflow():
    n, batch_size, step = 60000, 128, 2**31 - 2
    batch = jit(lambda step: Rows().train_batch(Rows.data(n), KEY, step, batch_size))(step)
    positions = [step * batch_size + i for i in range(batch_size)]  # exact: Python's integers
    epochs, places = jnp.array([p // n for p in positions]), jnp.array([p % n for p in positions])
    assert np.array_equal(batch.ys, shuffled(KEY, epochs, places, n))


def test_a_batch_too_large_to_count_is_refused():
    with pytest.raises(ValueError, match="^rows: batch size 1000000 is too large for 60000 training rows"):
        jax.eval_shape(lambda: Rows().train_batch(Rows.data(60000), KEY, 0, 10**6))
