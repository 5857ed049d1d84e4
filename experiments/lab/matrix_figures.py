"""Pictures of the matrix of cells by needs, and by the tasks that stand for them."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from experiments.lab import style
from experiments.lab.needs import COLUMNS, NEEDS

# From nothing to the best, light to dark, so that it can be read in grey, too.
SHADES = LinearSegmentedColormap.from_list("score", ["#FFFFFF", "#D6E6F2", "#7FB2D6", "#2F78B3"])


def by_need(rows: pd.DataFrame, costs: dict[str, float], note: str) -> Figure:
    """Cells by needs, `matrix.by_need`, the best on top; shade: the score; bold: as good as the best."""
    needs = [need for need in NEEDS if need in set(rows["need"])]
    scores = rows.assign(score=[one.value for one in rows["score"]])
    order = scores.groupby("label")["score"].sum().sort_values(ascending=False).index.tolist()
    by = {(row.label, row.need): row for row in rows.itertuples()}
    cheapest = min(costs.values(), default=1.0)
    made = Figure(figsize=(1.6 + 1.25 * (len(needs) + 1), 1.6 + 0.42 * len(order)), layout="constrained")
    ax = made.subplots()
    grid = [
        [by[label, need].score.value if (label, need) in by else np.nan for need in needs] for label in order
    ]
    grid = [[*row, cheapest / costs.get(label, np.nan)] for label, row in zip(order, grid, strict=True)]
    extent = (0, len(needs) + 1, len(order), 0)
    ax.imshow(np.array(grid), cmap=SHADES, vmin=0, vmax=1, aspect="auto", extent=extent)
    for y, label in enumerate(order):
        for x, need in enumerate(needs):
            one = by.get((label, need))
            if one is None:
                _not_run(ax, x, y)
            else:
                ink = "white" if one.score.value > 0.75 else style.INK
                center = {"ha": "center", "color": ink}
                weight = "bold" if one.good else "normal"
                ax.text(
                    x + 0.5,
                    y + 0.4,
                    f"{one.score.value:.2f}",
                    va="center",
                    fontsize=10,
                    weight=weight,
                    **center,
                )
                ends = f"{one.score.low:.2f} to {one.score.high:.2f}"
                ax.text(x + 0.5, y + 0.78, ends, va="center", fontsize=6.5, **center)
        if label in costs:
            ink = "white" if cheapest / costs[label] > 0.75 else style.INK
            ax.text(
                len(needs) + 0.5,
                y + 0.5,
                f"{costs[label]:.3g} ms",
                ha="center",
                va="center",
                color=ink,
                fontsize=9,
            )
    titles = [_headed(need, rows) for need in needs] + ["cost of\na step"]
    _name(ax, titles, order, 10)
    for x in range(1, len(needs) + 1):
        ax.axvline(x, color="white", lw=3)
    style.legend(made, [], [note])
    return made


def _name(ax, titles: list[str], cells: list[str], size: float, **slanted):
    """Columns on top, cells at the left, in the middle of their squares."""
    ax.set_xticks(np.arange(len(titles)) + 0.5, titles, fontsize=8, **slanted)
    ax.xaxis.tick_top()
    named = [textwrap.fill(label.replace(":", " "), 24) for label in cells]  # options on a second line
    ax.set_yticks(np.arange(len(cells)) + 0.5, named, fontsize=size)
    for tick in ax.get_yticklabels():
        if "\n" in tick.get_text():
            tick.set_fontsize(0.7 * size)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _not_run(ax, x: int, y: int):
    ax.text(x + 0.5, y + 0.5, "not run", ha="center", va="center", fontsize=7, color=style.MUTED)


def _headed(need: str, rows: pd.DataFrame) -> str:
    """A need, the tasks that stand for it below."""
    columns = rows.loc[rows["need"] == need, "columns"].iloc[0]
    tasks = textwrap.fill(", ".join(COLUMNS[column].title for column in columns), 18)
    return f"{textwrap.fill(NEEDS[need], 15)}\n{tasks}"


def by_task(found: pd.DataFrame, costs: dict[str, float], states: dict[str, int], note: str) -> Figure:
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
            if one is None:
                _not_run(ax, x, y)
            else:
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
    _name(ax, titles, order, 9, rotation=35, ha="left")
    first = 0
    for need, words in NEEDS.items():
        number = sum(COLUMNS[column].need == need for column in columns)
        if number:
            ax.axvline(first, color="white", lw=4)
            name = textwrap.fill(words, 12 * number)
            where = {"ha": "center", "va": "top", "fontsize": 7.5, "weight": "bold"}
            ax.text(first + number / 2, len(order) + 0.15, name, **where)
            first += number
    ax.axvline(first, color="white", lw=4)
    style.legend(made, [], [note])
    return made
