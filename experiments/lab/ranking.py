"""Scores of two groups of seeds, of many tasks together, and of many cells: how often ours is the better one,
one number for all tasks, who is told apart from whom."""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from experiments.lab import panels, style
from experiments.lab.statistics import (
    LEVEL,
    PERMUTATIONS,
    Estimate,
    bootstrap,
    holm,
    mean,
    permuted,
    signed_ranks,
    worst_last,
)

# --- two groups


def auc(ours, theirs) -> float:
    """P(X > Y) + P(X = Y) / 2 of values of two groups."""
    ours, theirs = np.asarray(ours, float)[:, None], np.asarray(theirs, float)
    return float((ours > theirs).mean() + (ours == theirs).mean() / 2)


def improvement(ours, theirs, higher_is_better: bool = True) -> Estimate:
    """The probability of improvement (Agarwal et al. 2021, section 4.3): `auc`, of values of which the
    higher, or the lower, is better. A seed without a score (NaN) is the worst of all.

    The interval is Wilson's for as many pairs as the smaller group has seeds, since the variance is at most
    that of so many disjoint pairs, whatever the distributions (Hoeffding 1963, section 5b). Of 5 or 10 seeds
    92 to 99 % cover the true value; where all of ours are better it is [0.72, 1] of 10 and 10.
    """
    sign = 1 if higher_is_better else -1
    ours, theirs = (sign * worst_last(pd.Series(x), higher_is_better).to_numpy() for x in (ours, theirs))
    if not min(len(ours), len(theirs)):
        raise ValueError("a group has no seeds")
    value, pairs = auc(ours, theirs), min(len(ours), len(theirs))
    z = stats.norm.ppf((1 + LEVEL) / 2)
    middle, shrink = value + z**2 / (2 * pairs), 1 + z**2 / pairs
    half = z * np.sqrt(value * (1 - value) / pairs + z**2 / (4 * pairs**2))
    return Estimate(
        value, max(0.0, float((middle - half) / shrink)), min(1.0, float((middle + half) / shrink))
    )


def mann_whitney(ours, theirs) -> float:
    """p-value of the Mann-Whitney test, two-sided, by permutation, so that ties are no matter. A seed without
    a score (NaN) has to be made the worst before (`statistics.worst_last`)."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    ranks = stats.rankdata(np.concatenate([ours, theirs]))
    if not np.isfinite(ranks).all():
        raise ValueError("a score is NaN")
    return permuted(*np.split(ranks, [len(ours)]))


def separation(long, short) -> Estimate:
    """How well a value tells units of two kinds apart: `auc` within each seed, the mean over seeds with its
    interval, since units of one seed are not independent.

    Args:
      long, short: values of the units, an array for each seed.
    """
    return mean([auc(one, other) for one, other in zip(long, short, strict=True)])


# --- one number for all tasks


def normalised(scores, baseline: float, best: float) -> np.ndarray:
    """Scores with 0 for the baseline and less, 1 for the best, or the threshold, and more; 0 for a seed
    without one (NaN). Whether higher is better follows from the two."""
    if not np.isfinite([baseline, best]).all() or baseline == best:
        raise ValueError(f"the baseline ({baseline}) and the best ({best}) must be two finite numbers")
    share = (np.asarray(scores, float) - baseline) / (best - baseline)
    return np.clip(np.nan_to_num(share, nan=0.0), 0, 1)


def interquartile_mean(scores) -> Estimate:
    """The mean of the middle half of all scores of all tasks (Agarwal et al. 2021, section 4.2).

    The interval is a percentile bootstrap over seeds within tasks: of these tasks, then, and no others. Of 10
    seeds 91 to 94 % cover the true value.

    Args:
      scores: `normalised`, (tasks, seeds), or an array of seeds for each task.
    """
    rows = [np.asarray(row, float) for row in scores]
    if not rows or any(not len(row) or np.isnan(row).any() for row in rows):
        raise ValueError("every task needs scores, and none may be NaN")

    def middle(*rows, axis=-1):
        return stats.trim_mean(np.concatenate(rows, axis), 0.25, axis)

    ends = bootstrap(rows, middle) if min(map(len, rows)) > 1 else (np.nan, np.nan)
    return Estimate(float(middle(*rows)), *ends)


# --- many cells


class Ranking(NamedTuple):
    """Cells over tasks.

    Args:
      ranks: of every task (rows) and cell (columns, the best first), 1 is best, ties share theirs.
      friedman: p-value of the Friedman test, that all cells are equally good; NaN of two cells.
      pairs: columns cell, other, p: adjusted for how many pairs there are.
      cliques: runs of cells, in the order of their average ranks, that are not told apart.
      smallest_p: what p can be at least with so many tasks and cells; above 0.05 no two can be told apart.
    """

    ranks: pd.DataFrame
    friedman: float
    pairs: pd.DataFrame
    cliques: list[list[str]]
    smallest_p: float


def critical_difference(
    scores: pd.DataFrame, higher_is_better: bool = True, test: str = "wilcoxon"
) -> Ranking:
    """Average ranks of cells over tasks, and who is told apart (Demšar 2006).

    A clique reaches from a cell to the last one in the order that is not told apart from it, at 5 % over all
    pairs; those between count as not told apart.

    Args:
      scores: tasks (rows) x cells (columns), of one scale (`normalised`), since Wilcoxon's test compares what
        tasks differ by.
      test: "wilcoxon", signed ranks of each pair with Holm's correction (Benavoli et al. 2016): of k cells
        it needs 1 + log2(10 k (k - 1)) tasks at least, 12 of 12 cells; or "nemenyi", by average ranks alone,
        which tells something apart with fewer.

    Raises:
      ValueError: fewer than two cells or tasks, a score that is missing, an unknown test.
    """
    tasks, cells = scores.shape
    if min(tasks, cells) < 2:
        raise ValueError(f"ranks need two tasks and two cells; got {tasks} and {cells}")
    missing = scores.isna().stack()
    if missing.any():
        raise ValueError("{1} has no score on {0}".format(*missing.idxmax()))
    if test not in ("wilcoxon", "nemenyi"):
        raise ValueError(f"unknown test {test!r}; choices: wilcoxon, nemenyi")
    ranks = scores.rank(axis=1, ascending=not higher_is_better)
    ranks = ranks[ranks.mean().sort_values(kind="stable").index]
    first, second = map(list, zip(*itertools.combinations(ranks, 2), strict=True))
    if test == "nemenyi":
        average = ranks.mean()
        p = _nemenyi(average[second].to_numpy() - average[first].to_numpy(), cells, tasks)
        smallest = float(_nemenyi(cells - 1, cells, tasks))
    else:
        p = holm([signed_ranks(scores[i] - scores[j]) for i, j in zip(first, second, strict=True)])
        smallest = min(1.0, max(2.0 ** (1 - tasks), 2 / (PERMUTATIONS + 1)) * len(p))
    pairs = pd.DataFrame({"cell": first, "other": second, "p": p})
    friedman = stats.friedmanchisquare(*ranks.to_numpy().T).pvalue if cells > 2 else np.nan
    return Ranking(ranks, float(friedman), pairs, _cliques(pairs, list(ranks)), smallest)


def _nemenyi(differences, cells: int, tasks: int):
    """p-values of differences of average ranks (Demšar 2006, section 3.2.2)."""
    spread = np.sqrt(cells * (cells + 1) / (12 * tasks))
    return stats.studentized_range.sf(differences / spread, cells, np.inf)


def _cliques(pairs: pd.DataFrame, order: list[str]) -> list[list[str]]:
    """Runs of cells in this order, from each to the last one that is not told apart from it; none within
    another."""
    runs, reach = [], 0
    for i, cell in enumerate(order):
        alike = pairs["other"][(pairs["cell"] == cell) & (pairs["p"] > 1 - LEVEL)]
        last = max(map(order.index, alike), default=i)
        if last > max(i, reach):
            runs.append(order[i : last + 1])
            reach = last
    return runs


def critical_difference_figure(ranking: Ranking) -> Figure:
    """A line for each cell, the best on top: its average rank, in grey the rank on every task; bars at the
    right connect those that are not told apart."""
    order, average = list(ranking.ranks), ranking.ranks.mean()
    looks = style.styles(pd.DataFrame({"cell": [label.split(":")[0] for label in order], "label": order}))
    figure, axes = style.panels(1, 1, (5.5, 0.9 + 0.24 * len(order)))
    ax = axes[0, 0]
    for place, label in enumerate(order):
        own = ranking.ranks[label]
        ax.scatter(own, [place] * len(own), s=9, color=panels.GREY, zorder=1)
        ax.plot(average[label], place, ms=7, **looks[label])
    free = []  # the first free place of each lane of bars
    for clique in ranking.cliques:
        first, last = order.index(clique[0]), order.index(clique[-1])
        lane = next((i for i, place in enumerate(free) if place <= first), len(free))
        free[lane : lane + 1] = [last + 1]
        x = len(order) * (1.05 + 0.03 * lane)
        ax.plot([x, x], [first - 0.2, last + 0.2], color=style.INK, lw=3)
    right = len(order) * (1.05 + 0.03 * len(free))
    ax.set(xlabel="average rank (1 is best)", xlim=(0.7, right), ylim=(len(order) - 0.5, -0.5))
    ax.spines["bottom"].set_bounds(0.7, len(order))
    ax.set_yticks(range(len(order)), [f"{label}  {average[label]:.1f}" for label in order])
    ax.grid(axis="x", visible=False)
    style.ticks_at(ax, range(1, len(order) + 1))
    style.legend(figure, [], [_note(ranking)])
    return figure


def _note(ranking: Ranking) -> str:
    tasks, cells = ranking.ranks.shape
    note = f"Grey: rank on each of {tasks} tasks. "
    if ranking.smallest_p > 1 - LEVEL:
        return note + f"So few tasks cannot tell any two of {cells} cells apart by this test."
    return note + "Bars connect cells that are not told apart (5 % over all pairs)."
