"""A matrix of cells by needs: scores, who is as good as the best, and the advice that follows."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from experiments.lab import ranking, statistics, style
from experiments.lab.needs import COLUMNS, NEEDS

# From nothing to the best, light to dark, so that it can be read in grey, too.
SHADES = LinearSegmentedColormap.from_list("score", ["#FFFFFF", "#D6E6F2", "#7FB2D6", "#2F78B3"])
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


def figure(found: pd.DataFrame, costs: dict[str, float], states: dict[str, int], note: str) -> Figure:
    """Cells by columns, the best on top; shade: the score; bold: not told apart from the best."""
    columns = [name for name in COLUMNS if name in set(found["column"])]
    order = found.groupby("label")["score"].sum().sort_values(ascending=False).index.tolist()
    by = {(row.label, row.column): row for row in found.itertuples()}
    width, height = 1.9 + 0.78 * (len(columns) + 2), 1.3 + 0.3 * len(order)
    made = Figure(figsize=(width, height + 0.9), layout="constrained")
    ax = made.subplots()
    grid = np.array(
        [[by[label, c].score if (label, c) in by else np.nan for c in columns] for label in order]
    )
    ax.imshow(grid, cmap=SHADES, vmin=0, vmax=1, aspect="auto", extent=(0, len(columns), len(order), 0))
    for y, label in enumerate(order):
        for x, column in enumerate(columns):
            one = by.get((label, column))
            if one is not None:
                ink = "white" if one.score > 0.75 else style.INK
                weight = "bold" if one.alike else "normal"
                ax.text(
                    x + 0.5,
                    y + 0.5,
                    one.text,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=ink,
                    weight=weight,
                )
        for x, of in enumerate((costs, states)):
            value = of.get(label)
            text = "" if value is None else f"{value:,.3g}" if isinstance(value, float) else f"{value:,}"
            ax.text(len(columns) + 0.55 + x, y + 0.5, text, ha="center", va="center", fontsize=7.5)
    titles = [COLUMNS[column].title for column in columns] + ["ms a step", "state"]
    ax.set(xlim=(0, len(columns) + 2), ylim=(len(order), 0))
    ax.set_xticks(np.arange(len(titles)) + 0.5, titles, rotation=35, ha="left", fontsize=8)
    ax.xaxis.tick_top()
    ax.set_yticks(np.arange(len(order)) + 0.5, order, fontsize=9)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    first = 0
    for need, words in NEEDS.items():
        number = sum(COLUMNS[column].need == need for column in columns)
        if number:
            ax.axvline(first, color="white", lw=4)
            name = textwrap.fill(words, 13 * number)
            where = {"ha": "center", "va": "top", "fontsize": 8.5, "weight": "bold"}
            ax.text(first + number / 2, len(order) + 0.15, name, **where)
            first += number
    ax.axvline(first, color="white", lw=4)
    style.legend(made, [], [note])
    return made
