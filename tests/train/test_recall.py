"""The recall tasks say what their papers say, read again row by row."""

import collections

import numpy as np
import pytest

from batches import KEY, eval_batch, sample, train_batch
from train import tasks


@pytest.mark.parametrize("length, pairs, longest, fillers", [(16, 3, 0, False), (11, 2, 14, True)])
def test_associative_recall_asks_once_for_the_value_of_each_key(length, pairs, longest, fillers):
    options = dict(length=length, max_length=longest, pairs=pairs, vocabulary=12, random_fillers=fillers)
    task = tasks.get("associative_recall", **options)
    xs, ys, weights, scored = sample(task, 300)
    assert xs.shape == (300, length)
    for x, y, counts in zip(xs.tolist(), ys.tolist(), weights.tolist(), strict=True):
        keys, values = x[: 2 * pairs : 2], x[1 : 2 * pairs : 2]
        assert (
            len({*keys, *values}) == 2 * pairs and {*keys} <= {*range(1, 6)} and {*values} <= {*range(6, 12)}
        )
        asked = [t for t in range(length) if counts[t]]
        assert all(t >= 2 * pairs and t % 2 == 0 for t in asked)
        assert sorted(x[t] for t in asked) == sorted(keys)
        told = dict(zip(keys, values, strict=True))
        assert [y[t] for t in asked] == [told[x[t]] for t in asked]
        assert fillers or not any(x[t] for t in range(2 * pairs, length) if t not in asked)
    rest = xs[:, 2 * pairs :][weights[:, 2 * pairs :] == 0]
    assert set(np.unique(rest)) == (set(range(12)) if fillers else {0})
    assert np.array_equal(weights, scored)


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_queries_of_associative_recall_follow_a_power_law(power):
    task = tasks.get("associative_recall", length=16, pairs=1, power=power)
    asked = np.asarray(sample(task, 5000)[2]).argmax(1)
    want = np.arange(1, 8) ** (power - 1)
    counts = np.bincount((asked - 2) // 2, minlength=7)
    np.testing.assert_allclose(counts / 5000, want / want.sum(), atol=0.03)


def test_held_out_pairs_may_be_more():
    task = tasks.get("associative_recall", length=16, pairs=2, eval_pairs=8, eval_length=32, vocabulary=32)
    batch = eval_batch(task, {}, "test", 0)
    assert batch.xs.shape[1] == 32 and (np.asarray(batch.weights).sum(1) == 8).all()
    assert (np.asarray(train_batch(task, {}, KEY, 0).weights).sum(1) == 2).all()


@pytest.mark.parametrize("length, items, longest", [(2, 2, 0), (5, 2, 13)])
def test_selective_copying_writes_the_symbols_down_in_order(length, items, longest):
    task = tasks.get("selective_copying", length=length, max_length=longest, symbols=3, items=items)
    xs, ys, weights, scored = sample(task, 400)
    places = collections.Counter()
    for x, y, counts in zip(xs.tolist(), ys.tolist(), weights.tolist(), strict=True):
        told = [(t, token) for t, token in enumerate(x[:length]) if token < 3]
        assert set(x[:length]) <= {0, 1, 2, 3} and x[length:] == [4] * items
        assert [token for _, token in told] == y[length:] and len(told) == items
        assert counts == [0] * length + [1] * items
        places.update(t for t, _ in told)
    assert min(places[t] for t in range(length)) > 200 * items / length
    assert np.array_equal(weights, scored)


@pytest.mark.parametrize("length, longest", [(3, 0), (6, 11)])
def test_induction_heads_ask_what_came_after_the_special_token(length, longest):
    xs, ys, *_ = sample(tasks.get("induction_heads", length=length, max_length=longest, symbols=4), 300)
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        assert x.count(4) == 2 and x[-1] == 4 and max(x) == 4
        assert y == x[x.index(4) + 1] < 4
    assert {x.index(4) for x in xs.tolist()} == set(range(length - 2))
