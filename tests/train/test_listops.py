"""ListOps: every expression is read again, by a parser of its own."""

import functools
import random
import statistics

import numpy as np
import pytest

from train import tasks
from train.tasks import base, listops

SMALL = dict(train_examples=300, eval_examples=50)
SPLITS = ("train", *base.SPLITS)
MEANING = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda args: int(statistics.median(args)),
    "[SM": lambda args: sum(args) % 10,
}
WORDS = ["", *"0123456789", *MEANING, "]"]


@functools.cache
def load(**options):
    return tasks.get("listops", **SMALL | options).load()


def read(words, depth=1):
    """The value of the expression that begins here, the words after it, its depth and its most arguments."""
    first, *rest = words
    if first.isdigit():
        return int(first), rest, depth, 0
    values, deepest, most = [], depth, 0
    while rest[0] != "]":
        value, rest, depth_below, most_below = read(rest, depth + 1)
        values.append(value)
        deepest, most = max(deepest, depth_below), max(most, most_below)
    assert len(values) >= 2
    return MEANING[first](values), rest[1:], deepest, max(most, len(values))


@pytest.mark.parametrize("options", [{}, dict(max_depth=3, max_args=4, min_length=5, max_length=20)], ids=str)
def test_the_answer_is_the_value_of_the_expression(options):
    task, data = tasks.get("listops", **options), load(**options)
    seen, depths, most = set(), [], []
    for split in SPLITS:
        for x, y, length in zip(*(data[split][name] for name in ("xs", "ys", "lengths")), strict=True):
            words = [WORDS[token] for token in x[:length]]
            value, rest, depth, arguments = read(words)
            assert value == y and not rest and not x[length:].any()
            assert task.min_length <= length <= task.max_length
            seen.add(" ".join(words))
            depths.append(depth)
            most.append(arguments)
    assert len(seen) == sum(len(data[split]["ys"]) for split in SPLITS) == 400
    assert max(depths) <= task.max_depth and max(most) == task.max_args
    assert set(WORDS[1:]) <= set(" ".join(seen).split())
    task.check(data)


def tree(rng, depth, most):
    """Tokens of a tree, grown as the definition says."""
    if depth == most or rng.random() >= listops.IS_OPERATOR:
        return 1
    return 2 + sum(tree(rng, depth + 1, most) for _ in range(rng.randint(2, 10)))


def test_lengths_are_those_of_the_grammar():
    rng = random.Random(0)
    wanted = [n for n in (tree(rng, 1, 10) for _ in range(20_000)) if 10 <= n <= 100]
    rows = listops.grown(np.random.RandomState(1), 10, 10, 10, 100)[2]
    assert len(rows) / listops.ROUND == pytest.approx(len(wanted) / 20_000, abs=0.015)
    assert rows.mean() == pytest.approx(np.mean(wanted), rel=0.05)


def test_expressions_follow_from_their_seed():
    again = listops.expressions.__wrapped__(400, 10, 10, 10, 100, 0)
    assert np.array_equal(again["xs"][:300], load()["train"]["xs"])
    assert not np.array_equal(load(data_seed=1)["train"]["xs"], load()["train"]["xs"])


def test_too_few_different_expressions_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(listops, "PATIENCE", 2)
    for lengths in (dict(min_length=1, max_length=4), dict(max_depth=2, max_args=2, min_length=50)):
        with pytest.raises(
            ValueError, match=r"^listops: \d+ different expressions of .* are asked for"
        ) as refusal:
            tasks.get("listops", **lengths).load()
        assert "\n" not in str(refusal.value)
