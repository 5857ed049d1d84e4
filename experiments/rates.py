"""Of a grid of learning rates: what each label does with each of them, and with its own, and who wins."""

import numpy as np
import pandas as pd

from experiments import varied
from experiments.lab import statistics

NOTE = "In brackets: how many seeds solved it, and in how many steps half of all did. * chosen on validation."


def by_rate(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per task, label and learning rate, and one with the rate "tuned": each seed with the rate that
    was best for the other seeds (`lab.statistics.chosen`).

    Columns: task, cell, label (which does not say the learning rate), learning_rate, solved, seeds,
    solved_step (median, infinite where fewer than half solved it), valid_metric and test_metric (medians),
    metric, winner. Of one task, rate and other options the winner is who solved it with the largest share of
    seeds, then in the fewest steps, then has the best validation metric; the test is not looked at.

    Args:
      seeds: `results.load_seeds`. Only tasks on which some label has several rates have rows.
    """
    rows = []
    for (task, cell, label), group in lines(seeds).groupby(["task", "cell", "label"], sort=False):
        if group["learning_rate"].nunique() < 2:
            continue
        parts = {varied.text(rate): part for rate, part in group.groupby("learning_rate")}
        for rate, part in (parts | {"tuned": tuned(group)}).items():
            first = {"task": task, "cell": cell, "label": label, "learning_rate": rate}
            rows.append(first | _outcome(part))
    if not rows:
        return pd.DataFrame()
    found = pd.DataFrame(rows)
    others = found["label"].str.partition(" (")[2]  # the options that are not a cell's
    for _, group in found.groupby(["task", others, "learning_rate"]):
        best = max(group.index, key=lambda i: _rank(found.loc[i]))
        found.loc[group.index, "winner"] = (group.index == best) & (len(group) > 1)
    return found.drop(columns="higher_is_better").astype({"winner": bool})


def lines(seeds: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The seeds under labels that do not say the learning rate, nor these other options."""
    return seeds.assign(label=[varied.without(label, "learning_rate", *names) for label in seeds["label"]])


def tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per seed of one label: with the learning rate that was best for the other seeds, of those that
    all seeds have; with all rows where there is none."""
    counts = rows.groupby("learning_rate")["seed"].nunique()
    full = rows[rows["learning_rate"].isin(counts.index[counts == rows["seed"].nunique()])]
    return statistics.tuned(full) if len(full) else rows


def _outcome(rows: pd.DataFrame) -> dict:
    solved, higher = rows["solved"].astype(bool), bool(rows["higher_is_better"].iloc[0])
    scores = {
        name: float(statistics.quantiles(statistics.worst_last(rows[name], higher), 0.5))
        for name in ("valid_metric", "test_metric")
    }
    return {
        "solved": int(solved.sum()),
        "seeds": len(rows),
        "solved_step": float(
            statistics.reached(rows["solved_step"].astype(float).where(solved, np.inf), 0.5)
        ),
        **scores,
        "metric": rows["metric"].iloc[0],
        "higher_is_better": higher,
    }


def _rank(row: pd.Series) -> tuple:
    metric = row["valid_metric"] if row["higher_is_better"] else -row["valid_metric"]
    return row["solved"] / row["seeds"], -row["solved_step"], metric


def text(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`by_rate` for people, a table of strings per task: a row per label, a column per learning rate, the
    winner of each with a star.

    A value is the median test metric, and behind it how many seeds solved the task and in how many
    steps (`NOTE`).
    """
    tables = {}
    for task, group in found.groupby("task") if len(found) else ():
        told = pd.Series([_told(row) for row in group.to_dict("records")], index=group.index)
        wide = group.assign(told=told).pivot(index="label", columns="learning_rate", values="told")
        order = [*sorted((rate for rate in wide if rate != "tuned"), key=float), "tuned"]
        wide = wide.loc[varied.in_order(wide.index), order].fillna("")
        tables[f"{task}: test {group['metric'].iloc[0]} by learning rate"] = wide.reset_index(
            names="cell"
        ).rename_axis(columns=None)
    return tables


def _told(row: dict) -> str:
    value = f"{row['test_metric']:#.3g}".rstrip(".") if np.isfinite(row["test_metric"]) else "–"
    steps = f" in {row['solved_step']:,.0f}" if np.isfinite(row["solved_step"]) else ""
    solved = f" ({row['solved']}/{row['seeds']}{steps})" if row["solved"] else ""
    return f"{value}{solved}{' *' if row['winner'] else ''}"
