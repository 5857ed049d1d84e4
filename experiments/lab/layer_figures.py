"""Layers of equal size in figures: a panel per cell, and what one cell's time is made of."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import style
from experiments.lab.layers import OTHERS
from experiments.lab.timing import PASSES


def by_cell(frame: pd.DataFrame, value: str, name: str, note: str, band: tuple) -> Figure:
    """A value against time: a panel per cell with its strategies, beside what has no recurrence.

    Args:
      frame: columns label, cell, time and that of the value.
      name: of the y axis. band: two quantiles.
    """
    look = style.styles(frame) | OTHERS
    text = frame["label"].str.split().str[0]
    texts = [one for one in dict.fromkeys(text) if one not in OTHERS]
    figure, axes = style.multiples(len(texts), (2.9, 2.7))
    handles = {}
    for ax, one in zip(axes.flat, texts, strict=False):
        for label, group in frame[text.isin([one, *OTHERS])].groupby("label", sort=False):
            other, how = label in OTHERS, label.removeprefix(one).strip() or "step by step"
            style.line(ax, group, "time", value, look[label] | ({"lw": 1, "ms": 3} if other else {}), band)
            grey = look[label] | {"color": style.MUTED, "marker": ""}
            handles |= {label: look[label]} if other else {how: grey}
        style.lengths(ax, frame["time"])
        ax.set_yscale("log")
        style.title(ax, one)
    style.names(axes, "length T, steps", name)
    handles = [style.handle(label.replace("_", " "), **look) for label, look in handles.items()]
    style.legend(figure, handles, [note])
    return figure


def lstm_ratios(table: pd.DataFrame, edges: dict[str, float], note: str) -> Figure:
    """`layers.ratios` of the LSTM against time.

    Args:
      edges: by column, the value that matters.
    """
    titles = {"serial": "share outside its W x", "units": "over RNN of as many units"}
    titles |= {"size": "over RNN of as many parameters", "newton": "Newton over step by step"}
    titles = {name: text for name, text in titles.items() if name in table}
    figure, axes = style.panels(1, len(titles), (2.9, 2.9))
    colour = style.known()["lstm"][0]
    for ax, name in zip(axes[0], titles, strict=True):
        for which, line in zip(PASSES, ("--", "-"), strict=True):
            rows = table[table["pass"] == which].sort_values("time")
            values, low, high = np.array(rows[name].tolist()).T
            ax.plot(rows["time"], values, linestyle=line, color=colour, marker="s", ms=4, label=which)
            ax.fill_between(rows["time"], low, high, color=colour, alpha=0.15, lw=0)
        ax.axhline(edges[name], color=style.MUTED, lw=1, ls=":")
        style.lengths(ax, table["time"])
        ax.set_ylim(0, 1 if name == "serial" else None)
        style.title(ax, titles[name])
    axes[0, 0].set_ylabel("time of the LSTM")
    style.legend(figure, axes[0, 0], [note])
    return figure
