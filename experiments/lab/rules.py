"""Rules that several experiments share: from an interval and an edge to a verdict."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from experiments.lab import statistics
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED, Verdict, untested
from experiments.lab.statistics import LEAST, LEVEL, Estimate, decide, mean

TURNED = {TRUE: FALSE, FALSE: TRUE}


def above(
    estimate: Estimate, edge: float, seeds: int, against: str, note: str = "", form: str = ".2f"
) -> Verdict:
    """True where the whole interval is above the edge, false where it is below."""
    verdict = statistics.decide(estimate, edge, seeds=seeds, untested=NOT_TESTED)
    if verdict == NOT_TESTED:
        few = f"fewer than {statistics.LEAST} seeds" if seeds < statistics.LEAST else "no number"
        note = f"{note}; {few}" if note else few
    return Verdict(verdict, format(estimate, form), against, seeds, note)


def below(
    estimate: Estimate, edge: float, seeds: int, against: str, note: str = "", form: str = ".2f"
) -> Verdict:
    """The other way round."""
    found = above(estimate, edge, seeds, against, note, form)
    return found._replace(verdict=TURNED.get(found.verdict, found.verdict))


def most(count: int, of: int, note: str = "") -> Verdict:
    """True where the interval of a share of seeds is above a half."""
    return above(statistics.share(count, of), 0.5, of, "half of the seeds", note)


def few(count: int, of: int, note: str = "") -> Verdict:
    """True where it is below."""
    return below(statistics.share(count, of), 0.5, of, "half of the seeds", note)


def everywhere(verdicts: dict[str, Verdict]) -> Verdict:
    """One verdict of those by task or the like: theirs, where all agree that could be tested."""
    notes = [f"{name}: {verdict.note}" for name, verdict in verdicts.items() if verdict.note]
    tested = {name: verdict for name, verdict in verdicts.items() if verdict.verdict != NOT_TESTED}
    if not tested:
        return untested("; ".join(notes) or "nothing was measured")
    found = {verdict.verdict for verdict in tested.values()}
    number = ", ".join(f"{verdict.number} ({name})" for name, verdict in tested.items())
    against = " / ".join(dict.fromkeys(verdict.against for verdict in tested.values()))
    seeds = min(verdict.seeds for verdict in tested.values())
    return Verdict(found.pop() if len(found) == 1 else UNDECIDED, number, against, seeds, "; ".join(notes))


def within(
    estimate: Estimate, edge: float, seeds: int, against: str, note: str = "", form: str = ".2f"
) -> Verdict:
    """True where the whole interval is from -edge to edge, false where it is outside."""
    value, low, high = estimate
    found = above(estimate, edge, seeds, against, note, form)
    if found.verdict == NOT_TESTED:
        return found
    sides = {found.verdict, above(Estimate(-value, -high, -low), edge, seeds, against).verdict}
    return found._replace(verdict=FALSE if TRUE in sides else TRUE if sides == {FALSE} else UNDECIDED)


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
      groups: by name, values of seeds each, at least LEAST.
      show: an estimate as text.
      missing: what is said where there is no group.
    """
    if not groups:
        return untested(missing)
    fewest = min(groups, key=lambda name: len(groups[name]))
    if len(groups[fewest]) < LEAST:
        return untested(f"fewer than {LEAST} seeds of {fewest}")
    means = {name: mean(values) for name, values in groups.items()}
    worst = max(means, key=lambda name: means[name].value)
    sides = [decide(means[name], edge, seeds=len(groups[name])) for name in groups]
    wide = [decide(_widened(values, len(groups)), edge, seeds=len(values)) for values in groups.values()]
    verdict = FALSE if TRUE in wide else TRUE if set(sides) == {FALSE} else UNDECIDED
    number = f"{worst} {show(means[worst])}" + f", the most of {len(groups)}" * (len(groups) > 1)
    return Verdict(verdict, number, against, len(groups[fewest]), note)


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
