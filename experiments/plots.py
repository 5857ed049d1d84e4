"""Figures out of the DataFrames of `experiments.results`; nothing here reads or writes files."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import style

UNITS = {
    "step": "optimiser steps",
    "examples": "training examples",
    "tokens": "training tokens",
    "seconds": "seconds of training",
}
CLOCK = "Seconds: all seeds of a run together, compilation excluded."


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
    look, diverged = style.styles(curves), False
    figure, panels = _panels(curves, height=lambda group: 3.1)
    for ax, group in panels:
        for i, (label, seeds) in enumerate(group.groupby("label")):
            seeds = seeds.assign(valid_metric=seeds["valid_metric"].where(np.isfinite(seeds["valid_metric"])))
            band, colour = _band(seeds, x), look[label]["color"]
            every = max(1, len(band) // 8)
            marks = (i % every, every)
            ax.plot(band["x"], band["middle"], label=label, ms=4, lw=1.6, markevery=marks, **look[label])
            ax.fill_between(band["x"], band["low"], band["high"], color=colour, alpha=0.18, lw=0)
            for _, seed in seeds.sort_values("step").groupby(["run", "seed"]):
                if pd.isna(seed["valid_metric"].iloc[-1]):
                    diverged = True
                    _cross(ax, seed, x, colour)
        metric = _first(group, "metric", "metric")
        if "mse" in metric:
            ax.set_yscale("log")
        _levels(ax, group)
        better = "higher" if _first(group, "higher_is_better", True) else "lower"
        ax.set(xlabel=UNITS[x], ylabel=f"validation {metric}\n({better} is better)")
        end = group[x].max()
        ax.set_xlim(0, 1.06 * end)
        style.ticks(ax, 0, end)
    handles = [style.handle(label, ms=5, **look[label]) for label in sorted(look)]
    if diverged:
        handles.append(style.handle("diverged", marker="X", ls="none", mec="white", ms=8, color=style.MUTED))
    notes = ["Line: median over seeds. Band: middle half (of fewer than 4 seeds, lowest to highest)."]
    style.legend(figure, handles, notes + [CLOCK] * (x == "seconds"))
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
    cross = dict(color=colour, marker="X", ms=8, mec="white", mew=0.8, ls="none", zorder=5, clip_on=False)
    if len(finite):
        ax.plot(finite[x].iloc[-1], finite["valid_metric"].iloc[-1], **cross)
    else:  # it never had a value: on the axis
        ax.plot(seed[x].iloc[0], 0, transform=ax.get_xaxis_transform(), **cross)


def _levels(ax, group: pd.DataFrame):
    """Threshold and baseline, named at the right edge, the upper one above its line."""
    levels = {name: _first(group, name, np.nan) for name in ("threshold", "baseline")}
    levels = {name: value for name, value in levels.items() if np.isfinite(value)}
    for name, value in levels.items():
        ax.axhline(value, color=style.MUTED, lw=1, ls="--" if name == "threshold" else ":", zorder=1)
        place = ("bottom" if value == max(levels.values()) else "top") if len(levels) > 1 else "center"
        ax.annotate(
            f"{name}\n{value:.3g}", (1, value), xycoords=ax.get_yaxis_transform(), xytext=(6, 0),
            color=style.MUTED, textcoords="offset points", va=place, fontsize=8, linespacing=1.1,
            annotation_clip=False,
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
    look = style.styles(seeds)
    figure, panels = _panels(seeds, height=lambda group: 0.95 + 0.45 * group["label"].nunique())
    for ax, group in panels:
        zone = _zone(ax, group, unit)
        labels = sorted(set(group["label"]))
        for y, label in enumerate(labels):
            rows = group[group["label"] == label].sort_values(["run", "seed"])
            mark = {"color": look[label]["color"], "ls": "none", "zorder": 3}
            times = rows[f"solved_{unit}"].where(rows["solved"].astype(bool), np.inf).to_numpy(float)
            middle = np.quantile(times, 0.5, method="inverted_cdf")
            if np.isfinite(middle):
                ax.plot([middle, middle], [y - 0.42, y + 0.42], color=style.INK, lw=2, zorder=2)
            jitter = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else [0.0]
            for at, offset, diverged in zip(times, jitter, rows["diverged_step"].notna(), strict=True):
                fate = {"marker": look[label]["marker"], "ms": 5.5, "mec": "white", "mew": 0.6}
                if np.isinf(at):
                    fate = {"marker": "x", "ms": 5.5} if diverged else {"marker": "o", "ms": 5, "mfc": "none"}
                ax.plot(at if np.isfinite(at) else zone, y + offset, **mark, **fate)
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
        style.handle("a seed", marker="o", ls="none", color=style.MUTED),
        style.handle("median of all seeds", marker="|", ms=12, mew=2, ls="none", color=style.INK),
    ]
    diverged = seeds["diverged_step"].notna()
    if (~seeds["solved"].astype(bool) & ~diverged).any():
        label = "not solved within the budget"
        handles.append(style.handle(label, marker="o", mfc="none", ls="none", color=style.MUTED))
    if (~seeds["solved"].astype(bool) & diverged).any():
        handles.append(style.handle("diverged", marker="x", ls="none", color=style.MUTED))
    style.legend(figure, handles, [CLOCK] * (unit == "seconds"))
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
    style.ticks(ax, left, edge)
    ax.set_xlim(left, at(1.05 if unsolved.empty else 1.22))
    if unsolved.empty:
        return None
    ax.axvspan(at(1.04), at(1.22), color="#DDDDDD", lw=0, zorder=0)
    ax.annotate(
        "not solved", (at(1.13), 1), xycoords=ax.get_xaxis_transform(), xytext=(0, 3), color=style.MUTED,
        textcoords="offset points", ha="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip
    return at(1.13)


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
        style.tidy(ax)
        panels.append((ax, group))
    return figure, panels


def _first(group: pd.DataFrame, column: str, default):
    """The value that the runs of a task share; a run without a summary does not know it."""
    values = group[column].dropna()
    return values.iloc[0] if len(values) else default


def _check(frame: pd.DataFrame, unit: str, name: str):
    if unit not in UNITS:
        raise ValueError(f"{name}={unit!r}; choices: {', '.join(UNITS)}")
    if frame.empty:
        raise ValueError("nothing to plot: no rows")
