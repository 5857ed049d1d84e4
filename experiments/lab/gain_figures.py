"""Gains of gradients against distance, in figures."""

import textwrap

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import style
from experiments.lab.gains import counted

STAGES = {"initial": ("as initialised", "#888888"), "trained": ("trained, seeds that solved it", None)}
QUANTITIES = {"state": ("gain of $ds_T / ds_{T-k}$", "-"), "inputs": (r"$\|d\,loss / dx_{T-k}\|$", ":")}


def by_cell(gains: pd.DataFrame, floor: float) -> Figure:
    """Both quantities against k, a panel per cell: as initialised, and after training, of the seeds that
    solved the task.

    Args:
      gains: columns cell, label, stage, seed, k, solved, and the quantities as log10.
      floor: a line.
    """
    every, gains = gains[gains["stage"] == "trained"], counted(gains)
    looks, labels = style.styles(gains), list(dict.fromkeys(gains["label"]))
    solved = gains[gains["stage"] == "trained"]
    figure, axes = style.multiples(len(labels), (2.9, 2.6))
    for ax, label in zip(axes.flat, labels, strict=False):
        for stage, (_, grey) in STAGES.items():
            rows = gains[(gains["label"] == label) & (gains["stage"] == stage)]
            for quantity, (_, line) in QUANTITIES.items():
                look = {"color": grey or looks[label]["color"], "linestyle": line, "marker": ""}
                style.line(ax, rows.dropna(subset=[quantity]), "k", quantity, look)
        ax.axhline(np.log10(floor), color=style.MUTED, lw=1, ls="--")
        seeds = [frame["seed"][frame["label"] == label].nunique() for frame in (solved, every)]
        name = label.replace("_", " ").replace("=", " ").replace(":", ", ")
        name += f" ({seeds[0]} of {seeds[1]} solved it)" if seeds[1] else " (not trained)"
        style.title(ax, textwrap.fill(name, 36))
        ax.set_ylim(max(-40, gains["state"].replace(-np.inf, np.nan).min()) - 1, None)
    style.names(axes, "distance k, steps back from the end", "log10")
    handles = [style.handle(text, color=colour or style.INK) for text, colour in STAGES.values()]
    handles += [style.handle(text, color=style.MUTED, linestyle=line) for text, line in QUANTITIES.values()]
    seeds = gains[gains["stage"] == "initial"]["seed"].nunique()
    note = f"Line: median over seeds ({seeds} as initialised); band: all; zero is off it. Dashed: {floor:g}."
    style.legend(figure, handles, [note])
    return figure


def scaled(rows: pd.DataFrame, small: float, large: float) -> Figure:
    """Gains of RNNs by scale of the matrix, a panel per scale of the inputs.

    Args:
      small, large: decades between which a gradient counts as kept.
    """
    inputs, scales = (sorted(rows[name].unique()) for name in ("input_scale", "scale"))
    figure, axes = style.panels(1, len(inputs), (3.6, 3.5), sharey=True)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(scales)))
    for ax, input_scale in zip(axes[0], inputs, strict=True):
        for scale, colour in zip(scales, shades, strict=True):
            part = rows[(rows["scale"] == scale) & (rows["input_scale"] == input_scale)]
            style.line(ax, part, "k", "state", {"color": colour}, label=f"{scale:g}")
        ax.axhspan(small, large, color="#DDDDDD", alpha=0.5, zorder=0, lw=0)
        style.title(ax, f"inputs of standard deviation {input_scale:g}")
        ax.set(xlabel="distance k, steps", ylim=(-40, 40))
    axes[0, 0].set_ylabel("RNN: log10 gain of $dh_T / dh_{T-k}$")
    note = f"Scale of the orthogonal recurrent matrix; white noise, {rows['seed'].nunique()} seeds: median, "
    style.legend(figure, axes[0, 0], [f"{note}all. Grey: within a factor 1000 of 1."])
    return figure


def reach(rows: pd.DataFrame, longest: float, floor: float) -> Figure:
    """The distance from which on an LSTM's gain is below a floor, by bias of its forget gate."""
    figure, axes = style.panels(1, 1, (4.2, 3.2))
    ax, look = axes[0, 0], style.known()["lstm"]
    beyond = np.isinf(rows["state"])
    shown = rows.assign(state=rows["state"].clip(upper=longest))
    style.line(ax, shown, "bias", "state", {"color": look[0], "linestyle": look[1], "marker": ""})
    for part, face in ((shown[~beyond], look[0]), (shown[beyond], "none")):
        ax.plot(part["bias"], part["state"], "s", color=look[0], markerfacecolor=face, ms=4)
    style.log(ax)
    style.ticks_at(ax, rows["bias"], "{:g}")
    ax.set(xlabel="bias of the forget gate", ylabel=f"steps until the gain is below {floor:g}")
    note = f"LSTM as initialised, delayed recall; a point per seed ({rows['seed'].nunique()}), line: median."
    style.legend(figure, [], [note + f" Hollow: not within {longest:,.0f} steps." * bool(beyond.any())])
    return figure
