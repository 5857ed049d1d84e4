"""Steps to a threshold of two groups of seeds. What was not reached within the budget, infinity or NaN, is
right-censored there."""

import numpy as np
from scipy import stats

from experiments.lab.statistics import LEVEL, RESAMPLES, Estimate, permuted


def logrank(ours, theirs, budget: float) -> float:
    """p-value, two-sided, of the log-rank test (Mantel 1966): whether two groups reach the threshold equally
    fast; 1 where none does.

    By permutation of the seeds: of 10 and 10 that do not differ the asymptotic one (`scipy.stats.logrank`)
    finds up to 6.5 % different at the level of 5 %, 1.6 % at 1 %, ours at most as many as it should, with any
    ties.

    Args:
      ours, theirs: steps, (seeds,) each.
      budget: steps that every seed had.
    """
    ours, theirs = _within(ours, budget), _within(theirs, budget)
    steps = np.concatenate([ours, theirs])
    reached = np.isfinite(steps)
    if not reached.any():
        return 1.0
    data = stats.CensoredData(steps[reached], right=np.full((~reached).sum(), budget))
    alive = stats.ecdf(data).sf
    hazard = np.cumsum(1 - alive.probabilities / np.append(1, alive.probabilities[:-1]))  # Nelson-Aalen
    scores = reached - hazard[np.searchsorted(alive.quantiles, np.minimum(steps, budget))]
    return permuted(*np.split(scores, [len(ours)]))  # of ours: reached it - expected to


def restricted_mean(steps, budget: float) -> Estimate:
    """Mean of min(steps, budget), the area below the curve of those that have not reached it (Royston &
    Parmar 2013); Student's interval of its logarithm (delta method), so that it holds no steps below 0, nor
    more than the budget."""
    steps = np.minimum(_within(steps, budget), budget)
    value, half = float(steps.mean()), _half(steps / steps.mean())
    found = _by_factor(value, half)
    return found._replace(high=min(found.high, float(budget)))


def restricted_difference(ours, theirs, budget: float) -> Estimate:
    """`restricted_mean` of ours minus theirs, below 0 where ours are faster; Welch's interval.

    At 10 and 10 seeds 94 to 96 % of the intervals cover the true difference; of bootstraps 85 to 96 %.
    """
    ours, theirs = (np.minimum(_within(steps, budget), budget) for steps in (ours, theirs))
    difference = float(ours.mean() - theirs.mean())
    half = _half(ours, theirs)
    return Estimate(difference, difference - half, difference + half)


def restricted_ratio(ours, theirs, budget: float) -> Estimate:
    """`restricted_mean` of ours over theirs, below 1 where ours are faster; Welch's interval of its logarithm
    (delta method), which covers the true ratio in 92 to 96 % at 10 and 10 seeds."""
    ours, theirs = (np.minimum(_within(steps, budget), budget) for steps in (ours, theirs))
    ratio = float(ours.mean() / theirs.mean())
    return _by_factor(ratio, _half(ours / ours.mean(), theirs / theirs.mean()))


def interaction(one, other, budget: float) -> Estimate:
    """The `restricted_ratio` of the first pair of groups over that of the second, interval as there: what a
    difference in differences is of logarithms. 1 where the first of a pair is as much slower in both."""
    groups = [np.minimum(_within(steps, budget), budget) for steps in (*one, *other)]
    a, b, c, d = (group.mean() for group in groups)
    return _by_factor(float(a / b / (c / d)), _half(*(group / group.mean() for group in groups)))


def _by_factor(value: float, half: float) -> Estimate:
    """With an interval that is even in logarithms, `half` to each side."""
    return Estimate(value, float(value * np.exp(-half)), float(value * np.exp(half)))


def _half(*groups) -> float:
    """Half of Welch's interval of a sum of means with signs; NaN where a group has one value."""
    if min(map(len, groups)) < 2:
        return np.nan
    errors = np.array([group.var(ddof=1) / len(group) for group in groups])
    if not errors.any():
        return 0.0
    freedom = errors.sum() ** 2 / sum(e**2 / (len(g) - 1) for e, g in zip(errors, groups, strict=True))
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(errors.sum()))


def _within(steps, budget) -> np.ndarray:
    """Steps, infinite where they are not within the budget."""
    steps = np.asarray(steps, float)
    if not len(steps) or not budget > 0 or (steps <= 0).any():
        raise ValueError(f"steps of some seeds, and a budget, above 0 each; got {steps} and {budget}")
    return np.where(steps <= budget, steps, np.inf)


def pooled_ratio(ratios: list[Estimate]) -> Estimate:
    """The geometric mean of independent ratios, whose intervals are even in logarithms."""
    logs = [np.log(ratio.value) for ratio in ratios]
    half = np.sqrt(sum(np.log(ratio.high / ratio.value) ** 2 for ratio in ratios)) / len(ratios)
    return Estimate(*(float(np.exp(np.mean(logs) + side * half)) for side in (0, -1, 1)))


def growth(steps: dict[float, np.ndarray], budget: float) -> Estimate:
    """p of restricted mean ~ size^p by least squares, its interval by resampling the seeds of each size.

    Args:
      steps: by size, at least two.
    """
    draw, x = np.random.default_rng(0), np.log(list(steps))
    x = (x - x.mean()) / np.square(x - x.mean()).sum()  # what a least-squares slope weighs logarithms with
    groups = [np.minimum(_within(of, budget), budget) for of in steps.values()]
    drawn = [of[draw.integers(len(of), size=(RESAMPLES, len(of)))].mean(1) for of in groups]
    value, drawn = x @ np.log([of.mean() for of in groups]), x @ np.log(drawn)
    return Estimate(float(value), *map(float, np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
