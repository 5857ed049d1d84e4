"""Mixed recall asks what it says, weighs both parts alike, and is solved only where both are."""

import jax
import numpy as np
import pytest

from train import metrics, tasks
from train.tasks.base import Batch

OPTIONS = [dict(gap=2), dict(gap=6, lag=3, symbols=3, distractors=4), dict(gap=30), dict(gap=5, lag=4)]
each = pytest.mark.parametrize("options", OPTIONS, ids=str)


def sample(task, count=200, seed=0):
    return [np.asarray(x) for x in task.sample(jax.random.key(seed), count)]


@each
def test_the_answer_is_the_filler_before_and_at_the_query_the_symbol(options):
    task = tasks.get("mixed_recall", **options)
    m, d, lag = task.symbols, task.distractors, task.lag
    xs, ys, weights, scored = sample(task)
    assert set(np.unique(xs[:, 0])) == set(range(m)) and (xs[:, -1] == m + d).all()
    assert set(np.unique(xs[:, 1:-1])) == set(range(m, m + d))
    for x, y, w in zip(xs.tolist(), ys.tolist(), weights.tolist(), strict=True):
        asked = [t for t in range(len(x)) if w[t]]
        assert asked == [*range(lag + 1, task.gap + 1), task.gap + 1]
        assert [y[t] for t in asked] == [x[t - lag] for t in asked[:-1]] + [x[0]]
    assert np.array_equal(weights, scored)


@each
def test_both_parts_weigh_the_same_in_every_row(options):
    weights = sample(tasks.get("mixed_recall", **options))[2]
    np.testing.assert_allclose(weights[:, -1], 1)
    np.testing.assert_allclose(weights[:, :-1].sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("part", ["short", "long"])
@pytest.mark.slow
def test_one_part_alone_does_not_solve_it(part):
    task = tasks.get("mixed_recall", gap=8)
    spec = task.spec({})
    xs, ys, weights, scored = task.sample(jax.random.key(1), 500)
    right = jax.nn.one_hot(ys, spec.output_size)
    batch = Batch(xs, ys, None, weights, scored)
    total, weight = metrics.score(spec, right, batch)
    assert total / weight == pytest.approx(1) and metrics.solved(spec, total / weight)
    ignorant = right.at[:, -1].set(0) if part == "short" else right.at[:, :-1].set(0)
    total, weight = metrics.score(spec, ignorant, batch)
    assert 0.45 < total / weight < 0.7 and not metrics.solved(spec, total / weight)
    # At the threshold neither part can be worse than 0.98.
    assert 2 * spec.threshold - 1 == pytest.approx(0.98)


def test_guessing_scores_the_baseline():
    task = tasks.get("mixed_recall", gap=10, symbols=2, distractors=5)
    spec = task.spec({})
    xs, ys, weights, scored = sample(task, 4000)
    guess = np.where(np.arange(12) == 11, 0, task.symbols)
    assert (scored * (ys == guess)).sum() / scored.sum() == pytest.approx(spec.baseline, abs=0.02)


def test_examples_are_a_function_of_the_key():
    task = tasks.get("mixed_recall")
    assert all(np.array_equal(a, b) for a, b in zip(sample(task), sample(task), strict=True))
    assert not np.array_equal(sample(task)[0], sample(task, seed=1)[0])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(gap=1), "gap must be at least 2, got 1"),
        (dict(lag=0), "lag must be at least 1, got 0"),
        (dict(gap=4, lag=4), "lag must be below gap = 4, got 4"),
        (dict(symbols=1), "symbols must be at least 2, got 1"),
        (dict(distractors=1), "distractors must be at least 2, got 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^mixed_recall: {message}$"):
        tasks.get("mixed_recall", **options)
