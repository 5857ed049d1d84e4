"""Rules that several experiments share: from an interval and an edge to a verdict."""

from experiments.lab import statistics
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED, Verdict, untested
from experiments.lab.statistics import Estimate

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
