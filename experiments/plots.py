"""Figures out of the DataFrames of `experiments.results`; nothing here reads or writes files."""

import textwrap
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import varied
from experiments.lab import panels, scales, statistics, style

UNITS = {
    "step": "optimiser steps",
    "examples": "training examples",
    "tokens": "training tokens",
    "seconds": "seconds of training",
}
LEVELS = {"threshold": "--", "baseline": ":"}
CLOCK = "Seconds: all seeds of a run together, compilation excluded."


def learning_curves(curves: pd.DataFrame, x: str = "step", drawn: list[panels.Panel] | None = None) -> Figure:
    """The validation metric during training, a panel per task; of many labels a small one for each cell, with
    the others in grey.

    A line is the median over seeds, its band the middle half of them (lowest to highest where there are
    fewer than 4). A seed that stopped because it had reached the threshold keeps its last value, so that
    the median goes on over all seeds; one that diverged leaves the median there and is marked by a cross.
    Where an accuracy saturates its error is drawn, on a log axis.

    Args:
      curves: `results.load_curves`; columns task, cell, label, run, seed, step, `x`, valid_metric, metric,
        higher_is_better, threshold, baseline.
      x: "step", "examples", "tokens" or "seconds".
      drawn: `curve_panels` of them, where that is there.

    Raises:
      ValueError: unknown `x`, or no rows.
    """
    look, drawn = style.styles(curves), drawn or curve_panels(curves, x)
    figure = panels.figure(drawn)
    handles = _handles(look, drawn)
    if not np.isfinite(curves["valid_metric"]).all():
        handles.append(style.handle("diverged", marker="X", ls="none", mec="white", ms=8, color=style.MUTED))
    notes = ["Line: median over seeds. Band: middle half (of fewer than 4 seeds, lowest to highest)."]
    style.legend(figure, handles, notes + [CLOCK] * (x == "seconds"))
    return figure


def _handles(look: dict, drawn: list[panels.Panel]) -> list:
    """Of the labels that no title says, and of what small panels have no room to name."""
    told = [label for panel in drawn if panel.title not in panel.labels for label in panel.labels]
    handles = [style.handle(label, ms=5, **look[label]) for label in varied.in_order(told)]
    if any(panel.small for panel in drawn):
        handles += [style.handle(name, ls=line, lw=1, color=style.MUTED) for name, line in LEVELS.items()]
        handles.append(style.handle("others", color=panels.GREY, lw=1))
    return handles


def curve_panels(curves: pd.DataFrame, x: str = "step") -> list[panels.Panel]:
    """The panels of `learning_curves`."""
    _check(curves, x, "x")
    look, drawn = style.styles(curves), []
    for task, group in curves.groupby("task"):
        group = group.assign(valid_metric=group["valid_metric"].where(np.isfinite(group["valid_metric"])))
        bands = {label: _band(seeds, x) for label, seeds in group.groupby("label")}
        metric, higher = _first(group, "metric", "metric"), bool(_first(group, "higher_is_better", True))
        ends = [band["middle"].iloc[-1] for band in bands.values()]
        levels = group["threshold"].dropna().unique()  # zero is drawn below them, too
        scale = scales.scale(metric, higher, ends, [*group["valid_metric"], *levels])
        shown = panels.groups(group)
        for title, labels in shown:
            small = len(shown) > 1
            draw = partial(_draw_curves, group, bands, labels, scale, x, look, small)
            drawn.append(panels.Panel(task, title, labels, 2.05 if small else 3.1, draw, small))
    return drawn


def _draw_curves(group, bands, labels, scale, x, look, small, ax) -> list[panels.Point]:
    points = []
    metric = _first(group, "metric", "metric")
    for label in bands.keys() - set(labels):
        ax.plot(bands[label]["x"], scale(bands[label]["middle"]), color=panels.GREY, lw=0.8, zorder=1)
    for i, label in enumerate(labels):
        seeds, band, gid = group[group["label"] == label], bands[label], panels.key(label)
        every = max(1, len(band) // 8)
        marks = (i % every, every)
        line = {"label": label, "ms": 4, "lw": 1.6, "markevery": marks, "gid": gid} | look[label]
        ax.plot(band["x"], scale(band["middle"]), **line)
        low, high = scale(band["low"]), scale(band["high"])
        ax.fill_between(band["x"], low, high, color=look[label]["color"], alpha=0.18, lw=0, gid=gid)
        for _, seed in seeds.sort_values("step").groupby(["run", "seed"]):
            if pd.isna(seed["valid_metric"].iloc[-1]):
                _cross(ax, seed, x, look[label]["color"], scale, gid)
        for at, *values in band[["x", "middle", "low", "high"]].itertuples(index=False):
            if np.isfinite(values[0]):
                middle, *ends = (f"{value:.3g}" for value in values)
                text = f"{metric} {middle} ({'–'.join(ends)}) at {at:,.4g} {UNITS[x]}"
                points.append(panels.Point(at, scale(values[0]).item(), label, text))
    end = group[x].max()
    ax.set_xlim(0, 1.06 * end)
    _levels(ax, group, scale, small)
    scale.set(ax, "validation ", few=small)
    ax.set_xlabel(UNITS[x])
    style.ticks(ax, 0, end, 3 if small else 5)
    return points


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


def _cross(ax, seed: pd.DataFrame, x: str, colour: str, scale, gid: str):
    finite = seed[seed["valid_metric"].notna()]
    cross = dict(color=colour, marker="X", ms=8, mec="white", mew=0.8, ls="none", zorder=5, clip_on=False)
    last, gone = seed.iloc[-1], seed["diverged_step"].iloc[-1] if "diverged_step" in seed else np.nan
    at = (
        last[x] * min(gone / last["step"], 1)
        if np.isfinite(gone)
        else (finite if len(finite) else seed)[x].max()
    )
    if len(finite):
        ax.plot(at, scale(finite["valid_metric"].iloc[-1]), gid=gid, **cross)
    else:  # it never had a value: on the axis
        ax.plot(at, 0, transform=ax.get_xaxis_transform(), gid=gid, **cross)


def _levels(ax, group: pd.DataFrame, scale, small: bool):
    """Threshold and baseline, named at the right edge, the upper one above its line."""
    levels = {name: scale(_first(group, name, np.nan)).item() for name in LEVELS}
    levels = {name: value for name, value in levels.items() if np.isfinite(value)}
    for name, value in levels.items():
        ax.axhline(value, color=style.MUTED, lw=1, ls=LEVELS[name], zorder=1)
        if small:
            continue
        place = ("bottom" if value == max(levels.values()) else "top") if len(levels) > 1 else "center"
        ax.annotate(
            f"{name}\n{value:.3g}", (1, value), xycoords=ax.get_yaxis_transform(), xytext=(6, 0),
            color=style.MUTED, textcoords="offset points", va=place, fontsize=8, linespacing=1.1,
            annotation_clip=False,
        )  # fmt: skip


def time_to_threshold(seeds: pd.DataFrame, unit: str = "step") -> Figure:
    """What every seed needed to reach the threshold, one panel per task, one row per label.

    A dot is a seed, the bar the median of all seeds (`results.aggregate`: there is none where fewer than
    half solved the task). A seed that did not solve it is a hollow mark that points onwards from where it was
    last seen, at its own budget or where its run ended; a cross where it diverged. The axis is logarithmic
    where the times span a factor of 20.

    Args:
      seeds: `results.load_seeds`; columns task, cell, label, run, seed, solved, solved_{unit}, diverged_step,
        budget_steps, steps, status, batch_size, run_seconds.
      unit: "step", "examples", "tokens" or "seconds".

    Raises:
      ValueError: unknown `unit`, or no rows.
    """
    figure = panels.figure(threshold_panels(seeds, unit))
    unsolved, diverged = ~seeds["solved"].astype(bool), seeds["diverged_step"].notna()
    handles = [
        style.handle("a seed", marker="o", ls="none", color=style.MUTED),
        style.handle("median of all seeds", marker="|", ms=12, mew=2, ls="none", color=style.INK),
    ]
    if (unsolved & ~diverged).any():
        label = "not solved until there"
        handles.append(style.handle(label, marker=">", mfc="none", ls="none", color=style.MUTED))
    if (unsolved & diverged).any():
        handles.append(style.handle("diverged", marker="x", ls="none", color=style.MUTED))
    style.legend(figure, handles, [CLOCK] * (unit == "seconds"))
    return figure


def threshold_panels(seeds: pd.DataFrame, unit: str = "step") -> list[panels.Panel]:
    """The panels of `time_to_threshold`."""
    _check(seeds, unit, "unit")
    look, drawn = style.styles(seeds), []
    for task, group in seeds.groupby("task"):
        labels = tuple(varied.in_order(group["label"]))
        across = max(20, min(30, max(len(word) for label in labels for word in label.split())))
        wrapped = [textwrap.fill(label, across, break_on_hyphens=False) for label in labels]
        row = max(0.36, 0.1 + 0.155 * max(label.count("\n") + 1 for label in wrapped))
        draw = partial(_draw_times, group, labels, wrapped, unit, look)
        drawn.append(panels.Panel(task, "", labels, 0.95 + row * len(labels), draw))
    return drawn


def _draw_times(group, labels, wrapped, unit, look, ax) -> list[panels.Point]:
    group = group.assign(seen=_seen(group, unit))
    _fit(ax, group, unit)
    points = []
    for y, label in enumerate(labels):
        rows = group[group["label"] == label].sort_values(["run", "seed"])
        own = {"color": look[label]["color"], "ls": "none", "zorder": 3, "gid": panels.key(label)}
        solved = rows["solved"].astype(bool)
        times = rows[f"solved_{unit}"].where(solved, np.inf).to_numpy(float)
        middle = statistics.reached(times, 0.5)
        if np.isfinite(middle):
            bar = {"color": style.INK, "lw": 2, "zorder": 2, "gid": panels.key(label)}
            ax.plot([middle, middle], [y - 0.42, y + 0.42], **bar)
            points.append(panels.Point(middle, y, label, f"median {_in_words(middle, unit)}"))
        jitter = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else [0.0]
        for row, at, offset in zip(rows.to_dict("records"), times, jitter, strict=True):
            diverged = pd.notna(row["diverged_step"])
            fate = {"marker": look[label]["marker"], "ms": 5.5, "mec": "white", "mew": 0.6}
            if np.isinf(at):
                fate = {"marker": "x", "ms": 5.5} if diverged else {"marker": ">", "ms": 5, "mfc": "none"}
            place = at if np.isfinite(at) else row["seen"]
            if np.isfinite(place):
                ax.plot(place, y + offset, **own, **fate)
                how = "" if np.isfinite(at) else "diverged after " if diverged else "not solved in "
                text = f"seed {row['seed']}: {how}{_in_words(place, unit)}"
                points.append(panels.Point(place, y + offset, label, text))
        ax.annotate(
            f"{solved.sum()}/{len(times)} solved", (1, y), xycoords=ax.get_yaxis_transform(), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=8, annotation_clip=False, gid=panels.key(label),
        )  # fmt: skip
    ax.set_yticks(range(len(labels)), wrapped)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"{UNITS[unit]} to reach the threshold")
    return points


def _in_words(amount: float, unit: str) -> str:
    return f"{amount:,.3g} s" if unit == "seconds" else f"{amount:,.0f} {UNITS[unit]}"


def _seen(group: pd.DataFrame, unit: str) -> pd.Series:
    """Until when each seed was seen: its budget, or where its run ended or it diverged; NaN: not known."""
    steps = group["budget_steps"].where(group["status"] == "finished", group["steps"]).astype(float)
    ended = group["diverged_step"].astype(float).where(~group["solved"].astype(bool)).fillna(steps)
    if unit == "step":
        return ended
    if unit == "seconds":
        return group["run_seconds"].astype(float) * (ended / steps).clip(upper=1)
    of_a_step = (group[f"solved_{unit}"] / group["solved_step"]).astype(float)
    own = of_a_step.groupby(group["run"]).transform("median")
    return ended * own.fillna(of_a_step.min())  # rather too early than beyond its budget


def _fit(ax, group: pd.DataFrame, unit: str) -> None:
    """Sets the x axis."""
    solved = group["solved"].astype(bool)
    times = group[f"solved_{unit}"].where(solved).astype(float).dropna()
    ends = [*times, *group["seen"][~solved].dropna()] or [1.0]
    edge, lowest = max(ends), min(times, default=0)
    log = lowest > 0 and max(times) > 20 * lowest
    left = min([lowest, *ends]) / 1.5 if log else 0
    ax.set_xscale("log" if log else "linear")
    style.ticks(ax, left, edge)
    ax.set_xlim(left, edge * (edge / left) ** 0.05 if log else 1.05 * edge)


def _first(group: pd.DataFrame, column: str, default):
    """The value that the runs of a task share; a run without a summary does not know it."""
    values = group[column].dropna()
    return values.iloc[0] if len(values) else default


def _check(frame: pd.DataFrame, unit: str, name: str):
    if unit not in UNITS:
        raise ValueError(f"{name}={unit!r}; choices: {', '.join(UNITS)}")
    if frame.empty:
        raise ValueError("nothing to plot: no rows")
