"""Medians, intervals and fits, with censored values as infinity; resampling is scipy's."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000
PERMUTATIONS = 9999
LEAST = 10  # seeds; with fewer nothing is decided
BEYOND = 1e30  # in place of infinity: NumPy makes NaN out of what lies at a number, next to infinity


class Estimate(NamedTuple):
    """A value with its bootstrap interval (95 %)."""

    value: float
    low: float
    high: float

    def __format__(self, spec):
        def show(x):
            return "inf" if np.isposinf(x) else format(x, spec or ".3g")

        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}]"


def median(values) -> Estimate:
    """The lower median over seeds: always a value of some seed; infinity stands for "not reached".

    The interval is a percentile bootstrap over seeds.
    """
    ordered, ranks = np.unique(np.asarray(values, float), return_inverse=True)  # ranks: inf can be resampled
    middle = _lower_median(ranks, axis=0)
    if len(set(ranks)) == 1:
        return Estimate(*[float(ordered[middle])] * 3)
    low, high = bootstrap((ranks.astype(float),), _lower_median)
    return Estimate(*(float(ordered[int(i)]) for i in (middle, np.floor(low), np.ceil(high))))


def _lower_median(values, axis=-1):
    return reached(values, 0.5, axis=axis)


def reached(times, at, axis=None):
    """Quantiles of times, where infinity stands for "not reached": always the value of some seed."""
    return np.quantile(times, at, axis=axis, method="inverted_cdf")


def score(values) -> Estimate:
    """The median of scores, of an even number the mean of the middle two; infinity stands for no score.

    The interval is a percentile bootstrap over seeds.
    """
    values = np.clip(np.asarray(values, float), -BEYOND, BEYOND)
    ends = bootstrap((values,), np.median) if len(set(values)) > 1 else [values[0]] * 2
    return Estimate(*map(float, _unclipped([np.median(values), *ends])))


def quantiles(values, at) -> np.ndarray:
    """Quantiles of scores, as `score` has their median."""
    return _unclipped(np.quantile(np.clip(np.asarray(values, float), -BEYOND, BEYOND), at))


def _unclipped(values) -> np.ndarray:
    return np.where(np.abs(values) > 1e-6 * BEYOND, np.copysign(np.inf, values), values)


def worst_last(scores: pd.Series, higher_is_better: bool) -> pd.Series:
    """Scores, where a seed without one is the worst of all."""
    return scores.astype(float).fillna(-np.inf if higher_is_better else np.inf)


def bootstrap(data, statistic, paired=False) -> tuple[float, float]:
    done = stats.bootstrap(
        data,
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        confidence_level=LEVEL,
        paired=paired,
        vectorized=not paired,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(done.low), float(done.high)


def mean(values) -> Estimate:
    """The mean with Student's interval; a single value has none (NaN).

    At 10 seeds 93 to 95 % of the intervals cover the true mean of normal, lognormal, geometric or half
    censored values, 88 to 90 % where one seed in ten stands far off; of bootstraps 83 to 95 %.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else np.nan, np.nan, np.nan)
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * error
    return Estimate(*(float(values.mean() + side * half) for side in (0, -1, 1)))


class Effect(NamedTuple):
    """The mean of paired differences, and the p-value of Wilcoxon's signed ranks, two-sided."""

    mean: Estimate
    p: float


def paired_effect(differences) -> Effect:
    """What pairs differ by, ours - theirs, a difference for each seed or task."""
    return Effect(mean(differences), signed_ranks(differences))


def signed_ranks(differences) -> float:
    """p-value of Wilcoxon's signed-rank test, two-sided; differences of 0 are left out, 1 without any other.

    By permutation, so that it is exact with ties, too, of up to 13 differences.
    """
    differences = np.asarray(differences, float)
    if np.isnan(differences).any():
        raise ValueError("a difference is NaN")
    differences = differences[differences != 0]
    ranks = np.sign(differences) * stats.rankdata(abs(differences))
    return permuted(ranks) if len(ranks) else 1.0


def permuted(scores, *others) -> float:
    """p-value, two-sided, of a sum of scores, by permutation: were they dealt at random to this group and the
    other; of one group alone, were their signs random. Exact where there are few permutations."""
    found = stats.permutation_test(
        (scores, *others),
        lambda one, *others, axis: one.sum(axis),
        permutation_type="independent" if others else "samples",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values) -> np.ndarray:
    """p-values adjusted for how many there are (Holm 1979): below 0.05 the chance is at most 5 % that any one
    of those is wrong.

    Raises:
      ValueError: one is no number from 0 to 1.
    """
    p_values = np.asarray(p_values, float)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError("p-values must be 0 to 1")
    order = np.argsort(p_values)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    return np.minimum(adjusted, 1)


def decide(estimate: Estimate, edge: float, *, seeds: int, untested: str = "undecided here") -> str:
    """Whether a value is above an edge: "true here" or "false here" where its whole interval is above or
    below it, else "undecided here".

    Noise whose true value is the edge is called true in 2.5 % of all experiments, and false in as many.

    Args:
      seeds: that the estimate comes from, of the smaller group.
      untested: what is said with fewer than `LEAST`, or where the estimate is not a number.
    """
    if seeds < LEAST or np.isnan(estimate).any():
        return untested
    if estimate.low > edge:
        return "true here"
    return "false here" if estimate.high < edge else "undecided here"


def share(count: int, of: int) -> Estimate:
    """A proportion with Wilson's interval."""
    low, high = stats.binomtest(int(count), int(of)).proportion_ci(LEVEL, "wilson")
    return Estimate(count / of, float(low), float(high))


def rank_correlation(frame: pd.DataFrame, x: str, y: str, cluster: str = "seed") -> Estimate:
    """Spearman's rho of two columns; whole clusters are resampled, since the units of a seed are not
    independent. A column without spread has correlation 0."""
    return _estimate(*_rank_draws(frame, x, y, cluster))


def rank_difference(
    one: pd.DataFrame, other: pd.DataFrame, x: str, y: str, cluster: str = "seed"
) -> Estimate:
    """`rank_correlation` of one frame minus that of another, which has the same clusters: they are
    resampled together."""
    if set(one[cluster]) != set(other[cluster]):
        raise ValueError(f"the frames differ in {cluster}")
    (a, drawn_a), (b, drawn_b) = _rank_draws(one, x, y, cluster), _rank_draws(other, x, y, cluster)
    return _estimate(a - b, drawn_a - drawn_b)


def _rank_draws(frame, x, y, cluster):
    """rho, and that of each resample; the draws depend on the number of clusters alone."""
    number = frame[cluster].factorize(sort=True)[0]
    clusters = number.max() + 1
    draws = np.random.default_rng(0).integers(
        clusters, size=(RESAMPLES // 2 if clusters > 1 else 0, clusters)
    )
    times = (draws[:, :, None] == np.arange(clusters)).sum(1)  # each cluster is drawn, (draws, clusters)
    times = np.concatenate([np.ones((1, clusters)), times])
    rho = _weighted_spearman(frame[x].to_numpy(float), frame[y].to_numpy(float), times[:, number])
    return float(rho[0]), rho[1:] if clusters > 1 else np.array([np.nan])


def _weighted_spearman(x, y, weights):
    """rho of x and y (n,) where value i is there weights[:, i] times: (draws, n) -> (draws,)."""

    def ranks(values):
        place = np.unique(values, return_inverse=True)[1]
        order = np.argsort(place, kind="stable")
        first = np.flatnonzero(np.diff(place[order], prepend=-1))
        ties = np.add.reduceat(weights[:, order], first, axis=1)
        middle = (np.cumsum(ties, axis=1) - ties / 2)[:, place]
        return middle - (weights * middle).sum(1, keepdims=True) / weights.sum(1, keepdims=True)

    a, b = ranks(x), ranks(y)
    spread = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
    return np.divide((weights * a * b).sum(1), spread, out=np.zeros_like(spread), where=spread > 0)


def _estimate(value, drawn) -> Estimate:
    edge = (1 - LEVEL) / 2
    return Estimate(value, *(float(q) for q in np.quantile(drawn, [edge, 1 - edge])))


def slope(x, y) -> float:
    """The slope of the least-squares line through the points where y is finite; NaN for fewer than 3."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(x) & np.isfinite(y)
    return float(np.polyfit(x[there], y[there], 1)[0]) if there.sum() >= 3 else float("nan")


def exponent(times, values) -> float:
    """p of values ~ times^p, fitted over the larger half of the times, three at least; NaN for fewer."""
    by = pd.Series(np.asarray(values, float), np.asarray(times, float)).sort_index()
    late = by.iloc[-max(3, (len(by) + 1) // 2) :]
    return slope(np.log(late.index), np.log(late))


def decay(lags, logs, floor: float) -> tuple[float, float]:
    """How a logarithm falls with distance: its slope, fitted over the farther three quarters of the lags at
    which it is finite, and the first lag from which on it stays below `floor`, infinite where it does not."""
    one = (
        pd.DataFrame({"k": np.asarray(lags, float), "log": np.asarray(logs, float)}).dropna().sort_values("k")
    )
    finite = one[np.isfinite(one["log"])]  # below 1e-38 float32 has nothing
    far = finite[finite["k"] >= finite["k"].max() / 4]
    alive = one["k"][one["log"] >= floor]
    gone = one["k"][one["k"] > (alive.max() if len(alive) else -1)]
    return slope(far["k"], far["log"]), float(gone.min()) if len(gone) else np.inf


def growth(times, counts) -> str:
    """How a count grows with time: "constant", or what fits better by least squares, a + b log2 T
    ("logarithmic") or a + b T ("linear")."""
    times, counts = np.asarray(times, float), np.asarray(counts, float)
    if len(set(counts)) == 1:
        return "constant"
    left = {}
    for name, x in (("logarithmic", np.log2(times)), ("linear", times)):
        left[name] = np.square(counts - np.polyval(np.polyfit(x, counts, 1), x)).sum()
    return min(left, key=left.get)


def censored(estimate: Estimate, beyond: str, form: str = "{:.0f}") -> str:
    """An estimate as text, where infinity is what was not reached: "175 [150, >400]".

    Args:
      beyond: how that is written, such as ">400".
      form: how the other values are.
    """
    value, low, high = (beyond if np.isinf(x) else form.format(x) for x in estimate)
    return f"{value} [{low}, {high}]"


def median_steps(values) -> Estimate:
    """The median of steps to solve, where NaN means never."""
    return median(pd.Series(values).astype(float).fillna(np.inf))


def tuned(rows: pd.DataFrame, better: str = "solved_step") -> pd.DataFrame:
    """The rows that are `chosen`: one per seed out of a grid of learning rates."""
    return rows[chosen(rows, better)].reset_index(drop=True)


def chosen(rows: pd.DataFrame, better: str = "solved_step") -> pd.Series:
    """Whether a row's learning rate is the one that was best for the *other* seeds, so that no seed chooses
    its own.

    The best rate solves for most seeds, then in the fewest steps (`better`, median), then has the best
    validation metric.

    Args:
      rows: one per seed and learning rate; columns seed, learning_rate, solved, `better`, valid_metric,
        higher_is_better.
    """
    rates = sorted(rows["learning_rate"].unique())
    seeds = rows["seed"].unique()

    def rank(rate, seed):
        others = rows[(rows["learning_rate"] == rate) & ((rows["seed"] != seed) | (len(seeds) == 1))]
        metric = others["valid_metric"].astype(float).fillna(-np.inf)
        metric = metric if others["higher_is_better"].iloc[0] else -others["valid_metric"].fillna(np.inf)
        steps = others[better].astype(float).fillna(np.inf)
        return others["solved"].sum(), -float(_lower_median(steps.to_numpy())), metric.median()

    best = {seed: max(rates, key=lambda rate, seed=seed: rank(rate, seed)) for seed in seeds}
    return rows["learning_rate"] == rows["seed"].map(best)


def horizons(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per task, cell and seed: `horizon`, the largest gap that the seed solved with all shorter ones
    that were tried (0: none), infinite where it solved all that were tried; `longest` gap tried."""
    found = []
    for (task, label, seed), group in rows[rows["chosen"]].groupby(["task", "label", "seed"]):
        group, horizon = group.sort_values("gap"), 0.0
        for gap, solved in zip(group["gap"], group["solved"], strict=True):
            if not solved:
                break
            horizon = float(gap)
        else:
            horizon = np.inf
        row = {"task": task, "label": label, "seed": seed, "horizon": horizon}
        found.append(row | {"longest": group["gap"].max()})
    return pd.DataFrame(found)
