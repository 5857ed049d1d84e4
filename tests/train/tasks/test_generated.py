"""Generated tasks say what their papers say."""

import dataclasses

import numpy as np
import pytest

from batches import KEY, eval_batch, same, sample, train_batch
from train import tasks


@pytest.mark.parametrize("length, longest", [(2, 0), (3, 0), (51, 0), (2, 9)])
def test_adding_sums_one_marked_value_of_each_half(length, longest):
    task = tasks.get("adding", length=length, max_length=longest)
    xs, ys, *_ = map(np.asarray, sample(task, 400))
    values, markers = xs[..., 0], xs[..., 1]
    assert xs.shape[1] == length
    assert (values >= 0).all() and (values < 1).all() and set(np.unique(markers)) <= {0.0, 1.0}
    half = length // 2
    assert (markers[:, :half].sum(1) == 1).all() and (markers[:, half:].sum(1) == 1).all()
    assert markers.any(axis=0).all(), "some place is never marked"
    answers = [sum(v for v, m in zip(*row, strict=True) if m) for row in zip(values, markers, strict=True)]
    np.testing.assert_allclose(ys[:, 0], answers, rtol=1e-6)


def test_adding_baseline_is_the_error_of_always_answering_one():
    task = tasks.get("adding", length=2)
    ys = np.asarray(sample(task, 20000)[1])
    assert np.square(ys - 1).mean() == pytest.approx(task.spec({}).baseline, rel=0.03)


@pytest.mark.parametrize("length, symbols, items, longest", [(1, 2, 1, 0), (20, 3, 2, 0), (5, 8, 10, 23)])
def test_copy_memory_repeats_the_symbols_after_the_delimiter(length, symbols, items, longest):
    task = tasks.get("copy_memory", length=length, max_length=longest, symbols=symbols, items=items)
    xs, ys, weights, scored = map(np.asarray, sample(task, 100))
    blank, delimiter = symbols, symbols + 1
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        told = x[:items]
        assert max(told) < symbols
        assert x[items:] == [blank] * (length - 1) + [delimiter] + [blank] * items
        assert y == [blank] * (length + items) + told
        assert x.index(delimiter) - items + 1 == length
    assert set(np.unique(xs[:, :items])) == set(range(symbols))
    assert (weights == 1).all()
    assert (scored[:, -items:] == 1).all() and not scored[:, :-items].any()


@pytest.mark.parametrize("gap, symbols, distractors, longest", [(1, 2, 1, 0), (30, 3, 1, 0), (5, 8, 8, 31)])
def test_delayed_recall_answers_the_first_token_and_nothing_else_tells(gap, symbols, distractors, longest):
    task = tasks.get("delayed_recall", gap=gap, max_gap=longest, symbols=symbols, distractors=distractors)
    xs, ys, *_ = map(np.asarray, sample(task, 500))
    assert np.array_equal(xs[:, 0], ys) and set(ys) == set(range(symbols))
    fillers = xs[:, 1:-1]
    assert fillers.shape[1] == gap and set(np.unique(fillers)) == set(range(symbols, symbols + distractors))
    assert (xs[:, -1] == symbols + distractors).all()
    for y in range(symbols):  # fillers look alike whatever the answer
        counts = np.bincount(fillers[ys == y].ravel() - symbols, minlength=distractors)
        np.testing.assert_allclose(counts / counts.sum(), 1 / distractors, atol=0.12)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "delayed_recall" else [pytest.mark.slow])
        for name in tasks.STRETCHABLE
    ],
)
def test_held_out_examples_may_be_of_another_length(name):
    stretch = tasks.TASKS.cls(name).stretch
    plain = tasks.get(name, eval_examples=3)
    length = getattr(plain, stretch)
    task = dataclasses.replace(plain, **{f"eval_{stretch}": length + 8, f"max_{stretch}": length + 4})
    longer = dataclasses.replace(plain, **{stretch: length + 8})
    assert same(eval_batch(task, task.load(), "test", 0), eval_batch(longer, {}, "test", 0))
    assert task.spec({}).eval_time == longer.spec({}).time > task.spec({}).time
    padded = dataclasses.replace(plain, **{f"max_{stretch}": length + 4})
    assert same(train_batch(task, task.load(), KEY, 0), train_batch(padded, padded.load(), KEY, 0))
