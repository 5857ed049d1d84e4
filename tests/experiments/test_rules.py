"""What an interval says, on both sides of its edge and in noise."""

import numpy as np
import pytest

from experiments.lab import rules, statistics
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED
from experiments.lab.statistics import Estimate


def every(groups, edge=0.0):
    return rules.every_below(groups, edge, lambda estimate: f"{estimate:.2f}", "0", "none was there")


@pytest.mark.parametrize(
    "ends, is_above, is_within",
    [
        ((0.1, 0.3), TRUE, TRUE), ((-0.3, -0.1), FALSE, TRUE), ((-0.1, 0.1), UNDECIDED, TRUE),
        ((0.9, 1.1), TRUE, UNDECIDED), ((1.1, 1.3), TRUE, FALSE), ((-1.3, -1.1), FALSE, FALSE),
        ((-2.0, 2.0), UNDECIDED, UNDECIDED), ((np.nan, np.nan), NOT_TESTED, NOT_TESTED),
    ],
)  # fmt: skip
def test_an_interval_decides_where_it_lies_on_one_side(ends, is_above, is_within):
    estimate = Estimate(sum(ends) / 2, *ends)
    assert rules.above(estimate, 0, 10, "").verdict == is_above
    opposite = {TRUE: FALSE, FALSE: TRUE}.get(is_above, is_above)
    assert rules.below(estimate, 0, 10, "").verdict == opposite
    assert rules.within(estimate, 1, 10, "").verdict == is_within
    few = rules.within(estimate, 1, 9, "")
    assert few.verdict == NOT_TESTED and "fewer than 10" in few.note


def test_every_one_has_to_be_below():
    low, high, wide = (np.linspace(*ends, 10) for ends in ((-2, -1), (1, 2), (-2, 2)))
    assert every({"a": low, "b": low}).verdict == TRUE
    found = every({"a": low, "b": high})
    assert found.verdict == FALSE and found.number.startswith("b 1.50 [") and "of 2" in found.number
    assert every({"a": low, "b": wide}).verdict == UNDECIDED
    assert every({"a": low, "b": low[:9]}).verdict == NOT_TESTED
    assert every({"a": np.full(10, -1.0)}).verdict == TRUE and every({}).verdict == NOT_TESTED


def test_of_many_at_the_edge_noise_makes_none_false():
    rng, draws = np.random.default_rng(0), 60
    found = [every({name: rng.normal(size=10) for name in range(10)}).verdict for _ in range(draws)]
    assert found.count(FALSE) <= 5 and found.count(TRUE) == 0  # 1.5 are to be expected; of each alone 13


def test_a_ratio_is_the_same_either_way():
    ours, theirs = np.random.default_rng(0).lognormal(size=(2, 10))
    one, other = rules.ratio(ours, theirs), rules.ratio(theirs, ours)
    np.testing.assert_allclose(one, [1 / other.value, 1 / other.high, 1 / other.low])
    assert rules.ratio([2.0] * 10, [1.0] * 10) == statistics.Estimate(2.0, 2.0, 2.0)
