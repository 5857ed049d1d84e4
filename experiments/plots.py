"""Figures out of the DataFrames of `experiments.results`; nothing here reads or writes files.

A cell has one colour, line and marker everywhere; a variant of a cell (another label) keeps the colour.
"""

import itertools
import textwrap
import zlib

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# The colours of Okabe and Ito, which the colour-blind tell apart, and for the cells that they do not suffice
# for some of Tol's on broken lines; markers tell all of them apart.
DASHED, DOTTED, MIXED = (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))
CELLS = {
    "rnn": ("#D55E00", "-", "o"),
    "lstm": ("#0072B2", "-", "s"),
    "gru": ("#009E73", "-", "^"),
    "sru": ("#E69F00", "-", "D"),
    "sru_feedback": ("#CC79A7", "-", "v"),
    "qrnn": ("#882255", DASHED, "P"),
    "knn": ("#999933", DASHED, "X"),
    "mingru": ("#44AA99", DASHED, "<"),
    "minlstm": ("#56B4E9", DASHED, ">"),
    "lru": ("#332288", DASHED, "p"),
    "rglru": ("#AA4499", DASHED, "h"),
    "slstm": ("#117733", MIXED, "d"),
    "mlstm": ("#4477AA", MIXED, "H"),
    "mamba2": ("#8B4513", MIXED, "8"),
    "tcn": ("#8C8C8C", DOTTED, "*"),
    "window": ("#595959", DOTTED, "."),
}
LINES = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1))]
MARKERS = ["P", "*", "<", ">", "h", "p", "d"]
SPARE = [
    (colour, line, MARKERS[i % len(MARKERS)])
    for i, (line, colour) in enumerate(itertools.product(LINES[1:], ("#BBCC33", "#EE8866", "#CC3311")))
]
UNITS = {
    "step": "optimiser steps",
    "examples": "training examples",
    "tokens": "training tokens",
    "seconds": "seconds of training",
}
CLOCK = "Seconds: all seeds of a run together, compilation excluded."
INK, MUTED = "#222222", "#595959"


def styles(frame: pd.DataFrame) -> dict[str, dict]:
    """label -> color, linestyle and marker, for every cell and label of `frame` (columns `cell`, `label`).

    A cell that `CELLS` does not list gets a spare style by its name, and the next free one if that is taken.
    """
    known = dict(CELLS)
    for cell in sorted(set(frame["cell"]) - set(CELLS)):
        start = zlib.crc32(cell.encode()) % len(SPARE)
        taken = set(known.values())
        known[cell] = next((s for s in SPARE[start:] + SPARE[:start] if s not in taken), SPARE[start])
    out = {}
    for cell, group in frame.groupby("cell"):
        labels = sorted(set(group["label"]), key=lambda label: (label != cell, label))
        colour, line, marker = known[cell]
        lines, markers = ([x, *(y for y in ys if y != x)] for x, ys in ((line, LINES), (marker, MARKERS)))
        for i, label in enumerate(labels):
            line, marker = lines[i % len(lines)], markers[i % len(markers)]
            out[label] = {"color": colour, "linestyle": line, "marker": marker}
    return out


def learning_curves(curves: pd.DataFrame, x: str = "step") -> Figure:
    """The validation metric during training, one panel per task.

    A line is the median over seeds, its band the middle half of them (lowest to highest where there are
    fewer than 4). A seed that stopped because it had reached the threshold keeps its last value, so that
    the median goes on over all seeds; one that diverged leaves the median there and is marked by a cross.

    Args:
      curves: `results.load_curves`; columns task, cell, label, run, seed, step, `x`, valid_metric, metric,
        higher_is_better, threshold, baseline.
      x: "step", "examples", "tokens" or "seconds".

    Raises:
      ValueError: unknown `x`, or no rows.
    """
    _check(curves, x, "x")
    look, diverged = styles(curves), False
    figure, panels = _panels(curves, height=lambda group: 3.1)
    for ax, group in panels:
        for i, (label, seeds) in enumerate(group.groupby("label")):
            seeds = seeds.assign(valid_metric=seeds["valid_metric"].where(np.isfinite(seeds["valid_metric"])))
            style, band = look[label], _band(seeds, x)
            every = max(1, len(band) // 8)
            marks = (i % every, every)
            ax.plot(band["x"], band["middle"], label=label, ms=4, lw=1.6, markevery=marks, **style)
            ax.fill_between(band["x"], band["low"], band["high"], color=style["color"], alpha=0.18, lw=0)
            for _, seed in seeds.sort_values("step").groupby(["run", "seed"]):
                if pd.isna(seed["valid_metric"].iloc[-1]):
                    diverged = True
                    _cross(ax, seed, x, style["color"])
        metric = _first(group, "metric", "metric")
        if "mse" in metric:
            ax.set_yscale("log")
        _levels(ax, group)
        better = "higher" if _first(group, "higher_is_better", True) else "lower"
        ax.set(xlabel=UNITS[x], ylabel=f"validation {metric}\n({better} is better)")
        end = group[x].max()
        ax.set_xlim(0, 1.06 * end)
        _ticks(ax, 0, end)
    handles = [_handle(label, ms=5, **look[label]) for label in sorted(look)]
    if diverged:
        handles.append(_handle("diverged", marker="X", ls="none", mec="white", ms=8, color=MUTED))
    notes = ["Line: median over seeds. Band: middle half (of fewer than 4 seeds, lowest to highest)."]
    legend(figure, handles, notes + [CLOCK] * (x == "seconds"))
    return figure


def _band(seeds: pd.DataFrame, x: str) -> pd.DataFrame:
    """x, middle, low, high at every step at which some seed of one label was evaluated."""
    wide = seeds.pivot(index="step", columns=["run", "seed"], values="valid_metric")
    last = seeds.sort_values("step").groupby(["run", "seed"]).last(skipna=False)
    margin = (last["valid_metric"] - last["threshold"]) * np.where(last["higher_is_better"] == True, 1, -1)  # noqa: E712
    wide = wide.interpolate(method="index", limit_area="inside")
    solved = wide.columns[wide.columns.isin(margin.index[margin >= 0])]
    wide[solved] = wide[solved].ffill()
    low, high = (0.25, 0.75) if wide.shape[1] >= 4 else (0, 1)
    band = pd.DataFrame({"middle": wide.median(axis=1)})
    band["low"], band["high"] = wide.quantile(low, axis=1), wide.quantile(high, axis=1)
    # The seeds of several runs do not share a clock: the median of those that still run, never going back.
    band["x"] = band.index if x == "step" else seeds.groupby("step")[x].median().cummax()
    return band


def _cross(ax, seed: pd.DataFrame, x: str, colour: str):
    finite = seed[seed["valid_metric"].notna()]
    style = dict(color=colour, marker="X", ms=8, mec="white", mew=0.8, ls="none", zorder=5, clip_on=False)
    if len(finite):
        ax.plot(finite[x].iloc[-1], finite["valid_metric"].iloc[-1], **style)
    else:  # it never had a value: on the axis
        ax.plot(seed[x].iloc[0], 0, transform=ax.get_xaxis_transform(), **style)


def _levels(ax, group: pd.DataFrame):
    """Threshold and baseline, named at the right edge, the upper one above its line."""
    levels = {name: _first(group, name, np.nan) for name in ("threshold", "baseline")}
    levels = {name: value for name, value in levels.items() if np.isfinite(value)}
    for name, value in levels.items():
        ax.axhline(value, color=MUTED, lw=1, ls="--" if name == "threshold" else ":", zorder=1)
        place = ("bottom" if value == max(levels.values()) else "top") if len(levels) > 1 else "center"
        ax.annotate(
            f"{name}\n{value:.3g}", (1, value), xycoords=ax.get_yaxis_transform(), xytext=(6, 0), color=MUTED,
            textcoords="offset points", va=place, fontsize=8, linespacing=1.1, annotation_clip=False,
        )  # fmt: skip


def time_to_threshold(seeds: pd.DataFrame, unit: str = "step") -> Figure:
    """What every seed needed to reach the threshold, one panel per task, one row per label.

    A dot is a seed, the bar the median of all seeds (`results.aggregate`: there is none where fewer than
    half solved the task). A seed that did not solve it is a hollow dot in the grey zone, a cross if it
    diverged. The axis is logarithmic where the times span a factor of 20.

    Args:
      seeds: `results.load_seeds`; columns task, cell, label, run, seed, solved, solved_{unit}, diverged_step,
        budget_steps, run_seconds.
      unit: "step", "examples", "tokens" or "seconds".

    Raises:
      ValueError: unknown `unit`, or no rows.
    """
    _check(seeds, unit, "unit")
    look = styles(seeds)
    figure, panels = _panels(seeds, height=lambda group: 0.95 + 0.45 * group["label"].nunique())
    for ax, group in panels:
        zone = _zone(ax, group, unit)
        labels = sorted(set(group["label"]))
        for y, label in enumerate(labels):
            rows = group[group["label"] == label].sort_values(["run", "seed"])
            style = {"color": look[label]["color"], "ls": "none", "zorder": 3}
            times = rows[f"solved_{unit}"].where(rows["solved"].astype(bool), np.inf).to_numpy(float)
            middle = np.quantile(times, 0.5, method="inverted_cdf")
            if np.isfinite(middle):
                ax.plot([middle, middle], [y - 0.42, y + 0.42], color=INK, lw=2, zorder=2)
            jitter = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else [0.0]
            for at, offset, diverged in zip(times, jitter, rows["diverged_step"].notna(), strict=True):
                fate = {"marker": look[label]["marker"], "ms": 5.5, "mec": "white", "mew": 0.6}
                if np.isinf(at):
                    fate = {"marker": "x", "ms": 5.5} if diverged else {"marker": "o", "ms": 5, "mfc": "none"}
                ax.plot(at if np.isfinite(at) else zone, y + offset, **style, **fate)
            count = f"{int(np.isfinite(times).sum())}/{len(times)} solved"
            ax.annotate(
                count, (1, y), xycoords=ax.get_yaxis_transform(), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=8, annotation_clip=False,
            )  # fmt: skip
        ax.set_yticks(range(len(labels)), [textwrap.fill(label, 18) for label in labels])
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"{UNITS[unit]} to reach the threshold")
    handles = [
        _handle("a seed", marker="o", ls="none", color=MUTED),
        _handle("median of all seeds", marker="|", ms=12, mew=2, ls="none", color=INK),
    ]
    diverged = seeds["diverged_step"].notna()
    if (~seeds["solved"].astype(bool) & ~diverged).any():
        label = "not solved within the budget"
        handles.append(_handle(label, marker="o", mfc="none", ls="none", color=MUTED))
    if (~seeds["solved"].astype(bool) & diverged).any():
        handles.append(_handle("diverged", marker="x", ls="none", color=MUTED))
    legend(figure, handles, [CLOCK] * (unit == "seconds"))
    return figure


def _zone(ax, group: pd.DataFrame, unit: str) -> float | None:
    """Sets the axis, shades where unsolved seeds go, and returns the middle of that zone."""
    solved = group["solved"].astype(bool)
    times, unsolved = group[f"solved_{unit}"][solved].to_numpy(float), group[~solved]
    watched = {"step": "budget_steps", "seconds": "run_seconds"}.get(unit)
    ends = [*times, *(unsolved[watched] if watched else [])] or [1.0]
    edge, lowest = max(ends), min(times, default=0)
    log = lowest > 0 and max(times) > 20 * lowest
    left = lowest / 1.5 if log else 0
    # Positions as fractions of left..edge, so that the zone looks the same on both kinds of axis.
    at = (lambda part: left * (edge / left) ** part) if log else (lambda part: edge * part)
    ax.set_xscale("log" if log else "linear")
    _ticks(ax, left, edge)
    ax.set_xlim(left, at(1.05 if unsolved.empty else 1.22))
    if unsolved.empty:
        return None
    ax.axvspan(at(1.04), at(1.22), color="#DDDDDD", lw=0, zorder=0)
    ax.annotate(
        "not solved", (at(1.13), 1), xycoords=ax.get_xaxis_transform(), xytext=(0, 3), color=MUTED,
        textcoords="offset points", ha="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip
    return at(1.13)


def _ticks(ax, low: float, high: float):
    """About five ticks from `low` to `high`, where the data are: none in a zone or at the edge."""
    if ax.get_xscale() == "log":
        locator = ticker.LogLocator(subs=(1, 3) if high / low < 500 else (1,))
    else:
        locator = ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    ax.set_xticks([tick for tick in locator.tick_values(low, high) if low <= tick <= high])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    plain = ticker.FuncFormatter(lambda value, _: f"{value:,.10g}")
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep="") if high >= 1e5 else plain)


def _panels(frame: pd.DataFrame, height) -> tuple[Figure, list]:
    """A figure with a panel (axes, rows of `frame`) per task, two to a line; `height` in inches."""
    groups = list(frame.groupby("task"))
    columns = min(2, len(groups))
    lines = [groups[i : i + columns] for i in range(0, len(groups), columns)]
    heights = [max(height(group) for _, group in line) for line in lines]
    figure = Figure(figsize=(9 if columns == 2 else 6.5, sum(heights) + 0.2), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    panels = []
    for i, (task, group) in enumerate(groups):
        ax = figure.add_subplot(grid[divmod(i, columns)])
        ax.set_title(task.replace("_", " "), loc="left", fontsize=11, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#E5E5E5", lw=0.7)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=9)
        panels.append((ax, group))
    return figure, panels


def legend(figure: Figure, handles: list, notes: list[str]):
    """A legend below the panels, in lines of equal length, with notes above it; the figure grows by it."""
    fit = int(figure.get_figwidth() / (0.7 + 0.08 * max(len(handle.get_label()) for handle in handles))) or 1
    lines = -(-len(handles) // fit)
    columns = -(-len(handles) // lines)  # so that lines are of equal length
    across = int(15 * figure.get_figwidth())  # letters of 8 points
    notes = [part for note in notes for line in note.split("\n") for part in textwrap.wrap(line, across)]
    figure.set_figheight(figure.get_figheight() + 0.2 * (lines + len(notes)))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9,
        title="\n".join(notes), title_fontproperties={"size": 8},
    )  # fmt: skip


def _handle(label: str, **style) -> Line2D:
    return Line2D([], [], label=label, **style)


def _first(group: pd.DataFrame, column: str, default):
    """The value that the runs of a task share; a run without a summary does not know it."""
    values = group[column].dropna()
    return values.iloc[0] if len(values) else default


def _check(frame: pd.DataFrame, unit: str, name: str):
    if unit not in UNITS:
        raise ValueError(f"{name}={unit!r}; choices: {', '.join(UNITS)}")
    if frame.empty:
        raise ValueError("nothing to plot: no rows")
