"""What an interval says of a part of a claim: of one number, or of every one of several."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from experiments.lab.experiment import FALSE, TRUE, UNDECIDED, Verdict, untested
from experiments.lab.statistics import LEAST, LEVEL, Estimate, decide, mean

OPPOSITE = {TRUE: FALSE, FALSE: TRUE, UNDECIDED: UNDECIDED}


def above(estimate: Estimate, edge: float, seeds: int, number: str, against: str, note: str = "") -> Verdict:
    """True where the whole interval is above an edge, false where it is below; undecided with fewer than
    LEAST seeds or rounds."""
    few = f"fewer than {LEAST}" if seeds < LEAST else ""
    note = ". ".join(text for text in (few, note) if text)
    return Verdict(decide(estimate, edge, seeds=seeds), number, against, seeds, note)


def below(estimate: Estimate, edge: float, *rest, **named) -> Verdict:
    """The opposite of `above`."""
    found = above(estimate, edge, *rest, **named)
    return found._replace(verdict=OPPOSITE[found.verdict])


def within(estimate: Estimate, edge: float, seeds: int, number: str, against: str, note: str = "") -> Verdict:
    """True where the whole interval is from -edge to edge, false where it is outside."""
    side, other = (above(Estimate(*values), edge, seeds, number, against, note) for values in (
        estimate, [-x for x in (estimate.value, estimate.high, estimate.low)],
    ))  # fmt: skip
    sides = {side.verdict, other.verdict}
    return side._replace(verdict=FALSE if TRUE in sides else TRUE if sides == {FALSE} else UNDECIDED)


def agrees(deviation: float, same: float, other: float, seeds: int) -> Verdict:
    """True where the largest deviation is at most that of the same thing, false where it is at least that of
    another; not tested where it is NaN."""
    if np.isnan(deviation):
        return untested("it was not measured")
    verdict = TRUE if deviation <= same else FALSE if deviation >= other else UNDECIDED
    return Verdict(verdict, f"{deviation:.1e}", f"rounding {same:g}, far off {other:g}", seeds)


def every_below(
    groups: dict[str, Sequence[float]],
    edge: float,
    show: Callable[[Estimate], str],
    against: str,
    missing: str,
    note: str = "",
) -> Verdict:
    """Whether the mean of every group is below an edge: true where all intervals are, false where one is
    above, widened for how many groups there are (Bonferroni), so that noise makes none of many false.

    Args:
      groups: by name, values of seeds each; LEAST of each, else nothing is decided of it.
      show: an estimate as text.
      missing: what is said where there is no group.
    """
    if not groups:
        return untested(missing)
    means = {name: mean(values) for name, values in groups.items()}
    worst = max(means, key=lambda name: means[name].value)
    sides = [decide(means[name], edge, seeds=len(groups[name])) for name in groups]
    wide = [decide(_widened(values, len(groups)), edge, seeds=len(values)) for values in groups.values()]
    verdict = FALSE if TRUE in wide else TRUE if set(sides) == {FALSE} else UNDECIDED
    number = f"{worst} {show(means[worst])}" + f", the most of {len(groups)}" * (len(groups) > 1)
    return Verdict(verdict, number, against, min(map(len, groups.values())), note)


def _widened(values, tests: int) -> Estimate:
    """The interval of a mean for so many tests at once."""
    middle, low, high = mean(values)
    if np.isnan(low):
        return Estimate(middle, low, high)
    one, all_ = (stats.t.ppf(1 - (1 - LEVEL) / 2 / k, len(values) - 1) for k in (1, tests))
    return Estimate(middle, middle - (middle - low) * all_ / one, middle + (high - middle) * all_ / one)


def ratio(ours, theirs) -> Estimate:
    """The geometric mean of paired ratios, with the interval of the mean of their logarithms."""
    return Estimate(*np.exp(mean(np.log(np.asarray(ours, float) / np.asarray(theirs, float)))).tolist())
