"""How deep Newton's method is, in figures."""

import itertools

import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import style
from experiments.lab.convergence import WINDOWS, usual


def both(rows: pd.DataFrame, share: float, stages: dict[str, str]) -> dict[str, Figure]:
    """`newton`: depth over T against T, a panel per cell; `chaos`: against the exponent, of the two longest
    times, where recurrent weights were sized.

    Args:
      share: of a sequential run's steps below which it counts as parallel.
      stages: names of those that are lines.
    """
    sized = rows[rows["stage"] == "dial"]
    found = {"newton": _by_cell(rows, share, stages)}
    return found | ({"chaos": _chaos(sized, share)} if len(sized) else {})


def _by_cell(rows, share, stages) -> Figure:
    rows = rows[rows["stage"].isin(list(stages))]
    if "solved" in rows:
        rows = rows[(rows["stage"] != "trained") | (rows["solved"].astype(str) == "True")]
    rows = rows.assign(share=rows["depth"] / rows["time"])
    labels = list(dict.fromkeys(rows["label"]))
    figure, axes = style.multiples(len(labels), (2.9, 2.7))
    handles = {}
    looks = dict(zip(stages, (("#888888", "o"), ("#0072B2", "^"), ("#D55E00", "s")), strict=True))
    for ax, label in zip(axes.flat, labels, strict=False):
        for (stage, words), (window, name) in itertools.product(stages.items(), WINDOWS.items()):
            group = usual(rows[(rows["label"] == label) & (rows["stage"] == stage)], window)
            colour, marker = looks[stage]
            look = {"color": colour, "marker": marker, "linestyle": ":" if window else "-"}
            if len(group):
                style.line(ax, group, "time", "share", look)
                handles[f"{words}, windows {name}"] = look
        ax.axhline(share, color=style.MUTED, lw=1, ls="--")
        style.lengths(ax, rows["time"])
        style.log(ax)
        style.title(ax, label)
    style.names(axes, "length T, steps", "steps one after the other / T")
    note = "Line: median of seeds, of trained cells those that solved it; band: all. Dashed: the rule's edge."
    style.legend(figure, [style.handle(text, ms=4, **look) for text, look in handles.items()], [note])
    return figure


def _chaos(rows, share) -> Figure:
    look, times = style.styles(rows), sorted(rows["time"].unique())[-2:]
    figure, axes = style.panels(len(times), len(WINDOWS), (4.1, 3.2), sharex=True, sharey="row")
    for (row, time), (column, window) in itertools.product(enumerate(times), enumerate(WINDOWS)):
        ax, here = axes[row, column], usual(rows[rows["time"] == time], window)
        for (label, fell), group in here.groupby(["label", "fallback"]):
            hollow = {"markerfacecolor": "none"} if fell else {}
            mark = look[label] | {"linestyle": "", "ms": 5, "alpha": 0.8} | hollow
            ax.plot(group["exponent"], group["depth"] / time, **mark)
        ax.axvline(0, color=style.MUTED, lw=1, ls=":")
        ax.axhline(share, color=style.MUTED, lw=1, ls="--")
        style.log(ax)
        style.title(ax, f"T = {time:,}: windows {WINDOWS[window]}")
    style.names(axes, "largest Lyapunov exponent per step", "steps one after the other / T")
    handles = [style.handle(label, ms=4, **look[label]) for label in sorted(look)]
    style.legend(figure, handles, ["A point per size and seed. Hollow: fell back. Dashed: the rule's edge."])
    return figure
