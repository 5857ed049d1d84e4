"""Word problems: the groups are groups, and every answer is the product so far."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from compiling import jit
from train import tasks
from train.tasks import word_problem

ORDERS = {"z2": 2, "s3": 6, "z60": 60, "a5": 60, "s5": 120}
KEY = jax.random.key(0)
sample = jit(lambda task, count: task.sample(KEY, count), static_argnums=(0, 1))
every_group = pytest.mark.parametrize("group", ORDERS)


def is_even(p):
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0


def test_the_elements_are_the_groups():
    assert list(ORDERS) == list(word_problem.GENERATORS)
    found = {group: word_problem.elements(group) for group in ORDERS}
    assert {group: len(ps) for group, ps in found.items()} == ORDERS
    everything = sorted(itertools.permutations(range(5)))
    assert found["s5"] == everything and found["a5"] == [p for p in everything if is_even(p)]
    assert found["z60"] == [tuple((i + k) % 60 for i in range(60)) for k in range(60)]


@every_group
def test_the_table_is_a_group_with_identity_0(group):
    table, order = word_problem.multiplication(group), ORDERS[group]
    everyone = np.arange(order)
    np.testing.assert_array_equal(table[0], everyone)
    np.testing.assert_array_equal(table[:, 0], everyone)
    for axis in (0, 1):  # a Latin square: every element can be undone
        np.testing.assert_array_equal(np.sort(table, axis=axis), np.moveaxis([everyone] * order, 0, 1 - axis))
    a, b, c = np.random.default_rng(0).integers(0, order, (3, 2000))
    np.testing.assert_array_equal(table[table[a, b], c], table[a, table[b, c]])
    assert (table == table.T).all() == group.startswith("z")


@every_group
@pytest.mark.parametrize("tokens", word_problem.TOKENS)
def test_answers_are_products_of_permutations(group, tokens):
    if (group, tokens) == ("z2", "generators"):  # which are all its elements: refused, as the same task
        with pytest.raises(ValueError, match="tokens"):
            tasks.get("word_problem", group=group, tokens=tokens)
        return
    task = tasks.get("word_problem", group=group, tokens=tokens, length=9)
    xs, ys, weights, scored = map(np.asarray, sample(task, 50))
    known = word_problem.elements(group)
    stands_for = known if tokens == "elements" else [known[0], *word_problem.GENERATORS[group]]
    assert set(np.unique(xs)) <= set(range(len(stands_for))) and task.spec({}).input_size == len(stands_for)
    for word, answers in zip(xs, ys, strict=True):
        places = np.arange(len(known[0]))  # where everyone is
        for token, answer in zip(word, answers, strict=True):
            places = np.asarray(stands_for[token])[places]
            assert tuple(places) == known[answer]
    assert (weights == 1).all() and (scored == 1).all()


def test_z2_is_parity():
    xs, ys, *_ = map(np.asarray, sample(tasks.get("word_problem", length=30), 20))
    np.testing.assert_array_equal(ys, np.cumsum(xs, axis=1) % 2)


@pytest.mark.parametrize("group", ["z2", "s3", "a5"])
def test_answers_are_uniform_at_every_step_and_given_the_last_token(group):
    task, order = tasks.get("word_problem", group=group, length=4), ORDERS[group]
    xs, ys, *_ = map(np.asarray, sample(task, 400 * order))
    expected = len(ys) / order
    for step in range(4):
        counts = np.bincount(ys[:, step], minlength=order)
        assert (np.square(counts - expected) / expected).sum() < order + 6 * (2 * order) ** 0.5
    last = ys[:, -1][xs[:, -1] == 1]
    counts, expected = np.bincount(last, minlength=order), len(last) / order
    assert (np.square(counts - expected) / expected).sum() < order + 6 * (2 * order) ** 0.5
    assert task.spec({}).baseline == 1 / order


def test_one_program_serves_shorter_words():
    long = tasks.get("word_problem", group="s3", length=3, max_length=10)
    assert long.static() == dataclasses.replace(long, length=10) and long.spec({}).time == 10
    batch = long.train_batch(long.load(), KEY, 0, 8)
    assert batch.xs.shape == batch.ys.shape == (8, 10) and (batch.lengths == 3).all()
    assert not batch.xs[:, 3:].any()
    real = np.arange(10) < 3
    np.testing.assert_array_equal(batch.weights, np.broadcast_to(real, (8, 10)))
    np.testing.assert_array_equal(batch.scored, batch.weights)
    full = dataclasses.replace(long, length=10, max_length=0).train_batch({}, KEY, 0, 8)
    np.testing.assert_array_equal(batch.xs[:, :3], full.xs[:, :3])
    np.testing.assert_array_equal(batch.ys[:, :3], full.ys[:, :3])


@pytest.mark.parametrize("answers", word_problem.ANSWERS)
def test_words_of_different_lengths(answers):
    options = dict(group="s3", length=6, min_length=3, eval_length=12, eval_min_length=7, answers=answers)
    task = tasks.get("word_problem", **options)
    table = word_problem.multiplication("s3")
    for shortest, longest, of in ((3, 6, task), (7, 12, task.held_out({})[0])):
        xs, ys, weights, scored, lengths = map(np.asarray, sample(of, 300))
        assert xs.shape == (300, longest) and set(lengths) == set(range(shortest, longest + 1))
        assert np.bincount(lengths)[shortest:].min() > 150 / (longest + 1 - shortest)
        for x, y, n, counts in zip(xs, ys, lengths, weights, strict=True):
            assert not x[n:].any()
            assert y[:n].tolist() == list(itertools.accumulate(x[:n], lambda a, b: table[a, b]))
            assert np.flatnonzero(counts).tolist() == (list(range(n)) if answers == "all" else [n - 1])
        np.testing.assert_array_equal(weights, scored)


def test_lengths_of_words_are_drawn_below_a_length_that_is_a_value():
    task = tasks.get("word_problem", length=4, max_length=9, min_length=2)
    batch = jax.jit(task.train_batch, static_argnums=3)(task.load(), KEY, 0, 200)
    assert batch.xs.shape == (200, 9) and set(np.asarray(batch.lengths)) == {2, 3, 4}
    assert (np.asarray(batch.weights).sum(1) == batch.lengths).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(group="s6"), "word_problem: group must be known"),
        (dict(tokens="letters"), "word_problem: tokens must be known"),
        (dict(length=1), "word_problem: length must be at least 2, got 1"),
        (dict(length=5, min_length=6), "word_problem: min_length must be at most length = 5, got 6"),
        (dict(length=5, eval_min_length=6), "word_problem: eval_min_length must be at most eval_length = 5"),
        (dict(answers="first"), "word_problem: answers must be known; choices: all, last"),
        (dict(length=5, max_length=4), "word_problem: max_length must be 0 (off) or at least length = 5"),
    ],
)
def test_a_bad_option_is_refused_with_one_line(options, message):
    with pytest.raises(ValueError) as error:
        tasks.get("word_problem", **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{}, {"answers": "last"}, {"min_length": 3}, {"eval_length": 9}])
def test_the_baseline_of_generators_is_the_best_constant_answer(options):
    task = tasks.get(
        "word_problem", group="z60", tokens="generators", length=6, eval_examples=4000, **options
    )
    batch = jit(lambda: task.eval_batch({}, "test", 0, 4000))()
    right = np.bincount(np.asarray(batch.ys)[np.asarray(batch.scored) > 0])
    assert abs(right.max() / right.sum() - task.spec({}).baseline) < 0.02
