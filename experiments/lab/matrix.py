"""A matrix of cells by needs: scores, who is as good as the best, and the advice that follows."""

import numpy as np
import pandas as pd

from experiments.lab import ranking, statistics
from experiments.lab.needs import COLUMNS, NEEDS

HARDLY = 0.1  # a score below it: the cell does not do it


def scores(final: pd.DataFrame, together: bool = False) -> pd.DataFrame:
    """One row per form, cell and column.

    Columns: form, label, column, `score` (mean over seeds, 0 to 1), its values by `seeds`, `text` (what a
    table shows), `solved`, `alike`: the best of the column and form is not told apart from it, that is the
    interval of the probability that a seed of the best beats one of it takes in a half.

    A made-up task's score is the share of the budget of steps that is left when it is solved, that of real
    data is 0 at the baseline and 1 at the best mean of all cells.
    """
    rows = []
    for (*_, column), here in final.groupby(["column"] if together else ["form", "column"], sort=False):
        stops, higher = bool(here["stops"].iloc[0]), bool(here["higher_is_better"].iloc[0])
        by = dict(list(here.groupby(["form", "label"], sort=False)))
        if stops:
            kept, values = {}, {key: _in_order(seeds, higher) for key, seeds in by.items()}
            for key, seeds in by.items():
                steps = seeds["solved_step"].astype(float).fillna(np.inf)
                kept[key] = 1 - np.minimum(steps, seeds["budget_steps"]) / seeds["budget_steps"]
        else:
            sign = 1 if higher else -1
            values = {key: sign * seeds["best_test_metric"].astype(float) for key, seeds in by.items()}
            base, top = sign * float(here["baseline"].iloc[0]), max(of.mean() for of in values.values())
            top = max(top, base + 1e-9)  # where no cell is better than the baseline
            kept = {key: pd.Series(ranking.normalised(of, base, top)) for key, of in values.items()}
        best = max(kept, key=lambda key: (kept[key].mean(), values[key].mean()))
        for key, seeds in by.items():
            lead = ranking.improvement(values[best], values[key])
            row = dict(zip(("form", "label"), key, strict=True)) | {"cell": seeds["cell"].iloc[0]}
            row |= {"column": column, "score": float(kept[key].mean()), "seeds": list(map(float, kept[key]))}
            row |= {"solved": int(seeds["solved"].sum()) if stops else None}
            rows.append(row | {"text": _text(seeds, stops), "alike": key == best or lead.low <= 0.5})
    return pd.DataFrame(rows)


def _in_order(seeds: pd.DataFrame, higher: bool) -> pd.Series:
    """Seeds in order: by steps to solve, those that did not by what they score at the end."""
    metric = seeds["test_metric"].astype(float) * (1 if higher else -1)
    metric = metric.fillna(metric.min() if metric.notna().any() else 0.0)
    steps = seeds["solved_step"].astype(float)
    return steps.rsub(1e9).where(steps.notna(), metric)


def _text(seeds: pd.DataFrame, stops: bool) -> str:
    test = statistics.median(seeds["test_metric" if stops else "best_test_metric"].fillna(np.inf)).value
    number = f"{test:.3g}" if np.isfinite(test) else "–"
    if not stops:
        return number
    solved, of = int(seeds["solved"].sum()), len(seeds)
    if 2 * solved >= of:
        steps = statistics.median_steps(seeds["solved_step"]).value
        return f"{steps:,.0f}" + (f" {solved}/{of}" if solved < of else "")
    return f"({number})" + (f" {solved}/{of}" if solved else "")


def overall(found: pd.DataFrame) -> pd.DataFrame:
    """One row per form and cell that has every column: the interquartile mean of its seeds' scores."""
    columns, rows = found["column"].nunique(), []
    for (form, label), here in found.groupby(["form", "label"], sort=False):
        if len(here) == columns:
            middle = ranking.interquartile_mean(here["seeds"].tolist())
            rows.append({"form": form, "label": label, "middle": middle.value, "interval": middle})
    return pd.DataFrame(rows)


def by_need(found: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and need.

    Columns: label, need, `score`, the mean of those of the need's columns, with its interval, of resampled
    seeds of these columns; `columns`, those that at least half of the cells have: a cell that lacks one has
    no row; `good`: on more than half of them not told apart from the best.
    """
    rows, cells = [], found["label"].nunique()
    for need in NEEDS:
        here = found[[COLUMNS[column].need == need for column in found["column"]]]
        often = here.groupby("column", sort=False)["label"].nunique() >= cells / 2
        here = here[here["column"].isin(often[often].index)]
        for label, its in here.groupby("label", sort=False):
            if len(its) < often.sum():
                continue
            seeds = [np.asarray(seeds, float) for seeds in its["seeds"]]
            row = {"label": label, "need": need, "columns": its["column"].tolist(), "score": _mean(seeds)}
            rows.append(row | {"good": its["alike"].mean() > 0.5})
    return pd.DataFrame(rows)


def _mean(rows: list[np.ndarray]) -> statistics.Estimate:
    """Of the means of rows, each of seeds of its own."""

    def mean(*rows, axis=-1):
        return np.mean([np.mean(row, axis) for row in rows], 0)

    ends = statistics.bootstrap(rows, mean) if min(map(len, rows)) > 1 else (np.nan, np.nan)
    return statistics.Estimate(float(mean(*rows)), *ends)


def seconds(final: pd.DataFrame, costs: dict[str, float]) -> pd.DataFrame:
    """Cells by made-up tasks: seconds in which half of the seeds solve one, each alone, at `costs` ms of an
    optimiser step, which are those of the task that was timed."""
    here = final[(final["form"] == "bare") & final["stops"].astype(bool) & final["label"].isin(costs)]
    by = here.groupby(["label", "column"], sort=False)
    steps = by["solved_step"].agg(lambda steps: statistics.median_steps(steps).value)
    if steps.empty:
        return pd.DataFrame()
    wide = steps.unstack()
    wide = wide.mul([costs[label] / 1e3 for label in wide.index], axis=0)
    wide = wide[[name for name in COLUMNS if name in wide]].rename(columns=lambda name: COLUMNS[name].title)
    text = wide.map(lambda value: f"{value:.1f}" if np.isfinite(value) else "")
    return text.rename_axis(columns=None).reset_index(names="cell")


def advice(found: pd.DataFrame, costs: dict[str, float]) -> pd.DataFrame:
    """A line for each need: what to try first, what is as good, what does not do it.

    "As good": on most columns of the need (all where there are two) not told apart from the best; of those
    the first is the one with the least `costs`, ms of an optimiser step.
    """
    rows = []
    for need, words in NEEDS.items():
        here = found[[COLUMNS[column].need == need for column in found["column"]]]
        if here.empty:
            continue
        by = here.groupby("label", sort=False)
        share, score = by["alike"].mean(), by["score"].mean()
        most = by["score"].max()
        not_so = [label for label in score.index if most[label] < HARDLY]
        good = [label for label in share.index if share[label] > 0.5] or [score.idxmax()]
        good = sorted(set(good) - set(not_so), key=lambda label: (costs.get(label, np.inf), label))
        row = {"need": words, "try first": (good or ["none of these"])[0]}
        row["as good"] = ", ".join(good[1:]) or "none"
        rows.append(row | {"do not do it here": ", ".join(not_so) or "none"})
    return pd.DataFrame(rows)
