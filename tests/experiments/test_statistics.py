"""Intervals that cover, tests that err no more often than they say, verdicts that noise does not make."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.lab import ranking, statistics, survival

SEEDS, BUDGET = 10, 400


def spread(rng, seeds):
    """Steps to solve, at evaluations every 25, one in ten beyond the budget."""
    return np.where(rng.random(seeds) < 0.1, np.inf, 25 * rng.geometric(0.15, seeds))


def fails(rng, seeds):
    """Half of the seeds never solve it."""
    return np.where(rng.random(seeds) < 0.5, np.inf, 25.0 * rng.integers(1, 15, seeds))


# --- tests: of all ways to deal what was measured, at most so many get a p-value as small as this


def wrong(p_values):
    """How much oftener than it should a p-value is that small, at most."""
    p_values = np.sort(p_values)
    return (np.searchsorted(p_values, p_values + 1e-9) / len(p_values) - p_values).max()


@pytest.mark.parametrize("steps", [spread, fails])
def test_logrank_errs_no_more_often_than_it_says(steps):
    """All splits of 8 seeds; the asymptotic p-value is too small for some of them."""
    values, halves = steps(np.random.default_rng(0), 8), list(itertools.combinations(range(8), 4))
    splits = [(values[list(half)], np.delete(values, half)) for half in halves]
    assert wrong([survival.logrank(*split, BUDGET) for split in splits]) < 1e-9
    assert wrong([stats.logrank(*map(data, split)).pvalue for split in splits]) > 0.01


def data(steps):
    within = steps <= BUDGET
    return stats.CensoredData(steps[within], right=np.full((~within).sum(), BUDGET))


def test_logrank_orders_as_scipys_does(monkeypatch):
    """Their p-values agree where there are many seeds."""
    monkeypatch.setattr(statistics, "PERMUTATIONS", 999)
    rng = np.random.default_rng(0)
    for shift in (0, 25, 50):
        ours, theirs = spread(rng, 60), spread(rng, 60) + shift
        theirs[theirs > BUDGET] = np.nan  # never, too
        expected = stats.logrank(data(ours), data(theirs)).pvalue
        assert survival.logrank(ours, theirs, BUDGET) == pytest.approx(expected, abs=0.04)


def test_logrank_of_groups_that_do_not_differ_is_1():
    never, same = [np.inf] * 10, [50.0, 50, 75, 75]
    assert survival.logrank(never, [np.nan] * 9, BUDGET) == survival.logrank([500.0], [np.inf], BUDGET) == 1
    assert survival.logrank(same, same, BUDGET) == 1
    assert survival.logrank(np.arange(1, 11), never, BUDGET) < 0.001
    with pytest.raises(ValueError, match="above 0"):
        survival.logrank([], [1.0], BUDGET)


def test_mann_whitney_and_signed_ranks_err_no_more_often_than_they_say():
    values = np.array([0.1, 0.4, 0.4, 0.4, 0.9, 1.0, 1.0, 1.0])
    halves = itertools.combinations(range(8), 4)
    p = [ranking.mann_whitney(values[list(half)], np.delete(values, half)) for half in halves]
    assert wrong(p) < 1e-9 and min(p) < 0.06
    signs = itertools.product((-1, 1), repeat=7)
    p = [statistics.signed_ranks(values[1:] * sign) for sign in signs]
    assert wrong(p) < 1e-9 and min(p) == 2 / 2**7
    untied = np.random.default_rng(0).normal(0.4, size=(2, 9))
    assert statistics.signed_ranks(untied[0]) == pytest.approx(stats.wilcoxon(untied[0]).pvalue)
    expected = stats.mannwhitneyu(*untied, method="exact").pvalue
    assert ranking.mann_whitney(*untied) == pytest.approx(expected, abs=0.02)
    assert statistics.signed_ranks([0, 0]) == ranking.mann_whitney([1, 1], [1, 1]) == 1


def test_holm_is_that_of_r():
    """p.adjust(c(...), "holm") there."""
    found = statistics.holm([0.03, 0.01, 0.05, 0.02, 0.04])
    assert found == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert statistics.holm([0.9, 0.6]).tolist() == [1, 1] and len(statistics.holm([])) == 0
    with pytest.raises(ValueError, match="0 to 1"):
        statistics.holm([np.nan])


# --- intervals


def restricted(function, true):
    """An estimate of two groups of equal distribution, and what it should be."""
    return (lambda rng: function(spread(rng, SEEDS), spread(rng, SEEDS), BUDGET)), true


def improved(seeds, true):
    """Of normal scores."""
    shift = np.sqrt(2) * stats.norm.ppf(true)
    return (lambda rng: ranking.improvement(rng.normal(shift, 1, seeds), rng.normal(0, 1, seeds))), true


def two_ends(rng):
    """Half of our seeds are better than all of theirs, half worse."""
    return ranking.improvement(
        rng.choice([-1, 1], SEEDS) + rng.normal(0, 0.1, SEEDS), rng.normal(0, 0.1, SEEDS)
    )


def middle(rng):
    """Ten tasks, of which each has seeds below and above 0.5."""
    return ranking.interquartile_mean(rng.normal(np.linspace(0.3, 0.7, 10)[:, None], 0.1, (10, SEEDS)))


NOISE = {
    "difference": restricted(survival.restricted_difference, 0),
    "ratio": restricted(survival.restricted_ratio, 1),
    "mean": ((lambda rng: statistics.mean(rng.normal(7, 1, SEEDS))), 7),
    "improvement": improved(10, 0.5),
    "of 5": improved(5, 0.75),
    "near 1": improved(10, 0.95),
    "two ends": (two_ends, 0.5),
    "middle": (middle, 0.5),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_around_the_edge_makes_no_verdict(name):
    """At most 5 % are called true, at most 5 % false, and intervals cover what they should."""
    estimate, edge = NOISE[name]
    rng, number = np.random.default_rng(1), 60 if name == "middle" else 300
    found = [statistics.decide(estimate(rng), edge, seeds=SEEDS) for _ in range(number)]
    for verdict in ("true here", "false here"):
        assert found.count(verdict) <= 0.05 * number, verdict


def test_what_is_far_from_the_edge_is_decided():
    rng = np.random.default_rng(0)
    for sign, verdict in ((1, "true here"), (-1, "false here")):
        effect = statistics.paired_effect(rng.normal(sign, 0.5, SEEDS))
        assert statistics.decide(effect.mean, 0, seeds=SEEDS) == verdict and effect.p < 0.01
    better = ranking.improvement(np.arange(10) + 10, np.arange(10))
    assert better.value == 1 == pytest.approx(better.high) and 0.7 < better.low < 0.8
    assert statistics.decide(better, 0.5, seeds=10) == "true here"
    assert ranking.improvement(range(10), range(10, 20), higher_is_better=False) == better
    steps = (np.arange(1, 11), np.full(10, np.inf), BUDGET)
    assert survival.restricted_ratio(*steps).high < 0.1 and survival.restricted_difference(*steps).high < -350


def test_too_few_seeds_and_no_numbers_decide_nothing():
    sure = statistics.Estimate(1.0, 0.9, 1.1)
    assert statistics.decide(sure, 0, seeds=statistics.LEAST - 1) == "undecided here"
    assert statistics.decide(sure, 0, seeds=9, untested="not tested here") == "not tested here"
    assert statistics.decide(statistics.mean([3.0]), 0, seeds=10) == "undecided here"
    assert statistics.decide(sure, 1.0, seeds=10) == "undecided here"
    assert statistics.decide(statistics.Estimate(np.inf, 5, np.inf), 4, seeds=10) == "true here"


def test_restricted_means_count_the_budget_where_it_was_not_reached():
    found = survival.restricted_mean([100, np.nan, np.inf, 700], 400)
    assert found.value == 325 and found.low < 325 < found.high <= 400
    late = survival.restricted_mean([75] * 9 + [np.inf], 1000)  # Student's would begin below 0
    assert late.value == 167.5 and 0 < late.low < 75 < late.high < 1000
    assert survival.restricted_mean([50] * 10, 1000) == (50, 50, 50)
    assert survival.restricted_difference([100.0], [300.0, 500.0], 400)[:1] == (-250,)
    assert survival.restricted_ratio([np.inf] * 3, [np.nan] * 3, 400) == (1, 1, 1)


def test_a_seed_without_a_score_is_the_worst():
    for higher in (True, False):
        found = ranking.improvement([0.5, np.nan], [0.1, 0.9], higher)
        assert found.value == 0.25  # the one beats one of two, the other none
    assert ranking.auc([1, np.inf], [1, np.inf]) == 0.5


def test_separation_counts_seeds_and_not_units():
    rng = np.random.default_rng(0)
    long, short = rng.normal(1, 1, (SEEDS, 20)), rng.normal(0, 1, (SEEDS, 20))
    few, copies = ranking.separation(long, short), ranking.separation(np.tile(long, 9), np.tile(short, 9))
    assert few == pytest.approx(copies) and few.low < stats.norm.cdf(1 / np.sqrt(2)) < few.high


# --- many tasks


def test_scores_are_normalised_in_either_direction():
    assert ranking.normalised([0.5, 0.25, 0.1, 2, np.nan], 0.25, 1).tolist() == pytest.approx(
        [1 / 3, 0, 0, 1, 0]
    )
    assert ranking.normalised([0.17, 0.05, 0.0], 0.17, 0.05).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="two finite numbers"):
        ranking.normalised([1], 0.5, 0.5)


def test_the_interquartile_mean_is_that_of_the_middle_half():
    found = ranking.interquartile_mean([[0, 0.4, 0.6, 1], [0.0, 0.5, 0.5, 1.0]])
    assert found.value == pytest.approx(0.5) and found.low < 0.5 < found.high
    with pytest.raises(ValueError, match="NaN"):
        ranking.interquartile_mean([[0.1, np.nan]])


def table(tasks, **cells):
    """Scores that differ by cell, and a little by task."""
    noise = np.random.default_rng(0).normal(0, 0.01, (tasks, len(cells)))
    return pd.DataFrame(noise + list(cells.values()), [f"task {i}" for i in range(tasks)], list(cells))


def test_cells_that_are_equally_good_share_a_bar():
    scores = table(12, rnn=0.2, lstm=0.8, gru=0.8, sru=0.5)
    found = ranking.critical_difference(scores)
    assert set(found.ranks.columns[:2]) == {"lstm", "gru"} and list(found.ranks.columns[2:]) == ["sru", "rnn"]
    assert [set(clique) for clique in found.cliques] == [{"lstm", "gru"}]
    assert found.friedman < 1e-4 and found.pairs["p"].min() == found.smallest_p == 6 * 2 / 2**12
    assert ranking.critical_difference(-scores, higher_is_better=False).cliques == found.cliques
    figure = ranking.critical_difference_figure(found)
    ax, (bar, *more) = figure.axes[0], [one for one in figure.axes[0].lines if len(one.get_ydata()) == 2]
    assert ax.get_xlabel() == "average rank (1 is best)" and not more
    assert bar.get_ydata().tolist() == pytest.approx([-0.2, 1.2])


def test_too_few_tasks_tell_nothing_apart_and_the_figure_says_so():
    scores = table(6, rnn=0.2, lstm=0.8, gru=0.8, sru=0.5)
    found = ranking.critical_difference(scores)
    assert found.smallest_p > 0.05 and [len(clique) for clique in found.cliques] == [4]
    assert "cannot tell" in ranking.critical_difference_figure(found).legends[0].get_title().get_text()
    assert len(ranking.critical_difference(scores, test="nemenyi").cliques) > 1


def test_the_critical_difference_is_that_of_the_paper():
    """Demšar 2006, table 5: of 4 cells and 14 tasks 1.25 (q = 2.569)."""
    assert ranking._nemenyi(2.569 * np.sqrt(4 * 5 / (6 * 14)), 4, 14) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(
    "scores, options, words",
    [
        (table(5, rnn=1), {}, "two tasks and two cells"),
        (
            table(5, rnn=1, gru=2).replace(table(5, rnn=1, gru=2).iloc[3, 1], np.nan),
            {},
            "gru has no score on task 3",
        ),
        (table(5, rnn=1, gru=2), {"test": "t"}, "choices: wilcoxon, nemenyi"),
    ],
)
def test_scores_that_make_no_ranks_are_refused(scores, options, words):
    with pytest.raises(ValueError, match=words):
        ranking.critical_difference(scores, **options)
