"""A metric against a numeric option: gaps, learning rates, parameters."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from cells.registry import nearest
from experiments import rates, varied
from experiments.lab import panels, scales, statistics, style
from experiments.varied import SEED

MEASURED = ("parameters", "hidden_size", "state_size", "batch_size", "seconds_per_step")
RATE = "learning_rate"
OF_RUNS = ("seconds_per_step", "compile_seconds", "run_seconds", "parameters", "state_size")
NOTE = "Point: median over seeds, with its 95 % bootstrap interval."
UNSOLVED = " Hollow triangle: fewer than half of the seeds solved it, until the budget."
LOST = " Hollow triangle at the edge: at least half of the seeds diverged, without a score."
SHARE = "Point: share of seeds, with its 95 % interval (Wilson)."
TIMES = "Point: what half of all seeds needed, with its 95 % bootstrap interval."
TUNED = "Each seed with the learning rate that was best for the others."


def options(seeds: pd.DataFrame) -> list[str]:
    """What a metric may be drawn against: the numeric options that were varied, then what runs measured."""
    found = dict.fromkeys([*varied.columns(seeds), *MEASURED])
    return [name for name in found if name in seeds and _numeric(seeds[name]) and seeds[name].nunique() > 1]


def metrics(seeds: pd.DataFrame) -> list[str]:
    """What may be drawn against an option."""
    return [
        name for name in (*SEED, *OF_RUNS) if name in seeds and name != RATE and _numeric(seeds[name], True)
    ]


def _numeric(column: pd.Series, truth: bool = False) -> bool:
    values = column.dropna()
    kinds = int | float | np.number | (bool | np.bool_ if truth else int)
    return len(values) > 0 and all(
        isinstance(v, kinds) and (truth or not isinstance(v, bool | np.bool_)) for v in values
    )


def check(seeds: pd.DataFrame, x: str, y: str) -> None:
    """Refuses what cannot be drawn.

    Raises:
      ValueError: in a line with the nearest name.
    """
    known = options(seeds)
    if x not in known:
        there = nearest(x, known) if known else "they differ in none"
        raise ValueError(f"--x={x} is no number in which these runs differ; {there}")
    if y not in metrics(seeds):
        raise ValueError(f"--y={y} is no metric of a seed; {nearest(y, metrics(seeds))}")


def is_varied(seeds: pd.DataFrame, x: str) -> bool:
    """Whether some line has several values of x: not where every cell has its own."""
    return bool((table(seeds, x).groupby(["task", "label"])[x].nunique() > 1).any())


def table(seeds: pd.DataFrame, x: str, y: str = "test_metric") -> pd.DataFrame:
    """One row per task, line and value of x: task, cell, label (of the line), x, y, low, high, seeds.

    A line is the runs that differ in x, and in what x brings along, alone. Where learning rates differ, too,
    each seed counts with the one that was best for the other seeds. y is the median over seeds with its 95 %
    bootstrap interval, of times (`solved_step`) what half of all seeds needed; where y is "solved" a share,
    with Wilson's. What was not reached is infinite, and a seed without a score the worst.

    Args:
      seeds: `results.load_seeds`.
      x: one of `options`. y: one of `metrics`.

    Raises:
      ValueError: see `check`.
    """
    check(seeds, x, y)
    there = seeds[seeds[x].notna()]
    names = [x, *(name for name in varied.columns(seeds) if _follows(there, name, x))]
    tune = x != RATE and (there.groupby("task")[RATE].nunique() > 1).any()
    if tune:
        there = rates.lines(there, *names)
    else:
        there = there.assign(label=[varied.without(label, *names) for label in there["label"]])
    rows = []
    for (task, cell, label, at), group in there.groupby(["task", "cell", "label", x]):
        group = rates.tuned(group) if tune and group[RATE].nunique() > 1 else group
        value, low, high = _estimate(group, y)
        rows.append({"task": task, "cell": cell, "label": label, x: at, y: value, "low": low, "high": high})
        rows[-1] |= {
            "seeds": len(group),
            "limit": group["budget_steps"].max(),
            "metric": group["metric"].iloc[0],
        }
        rows[-1] |= {"higher_is_better": bool(group["higher_is_better"].iloc[0])}
    return pd.DataFrame(rows)


def _follows(seeds: pd.DataFrame, name: str, x: str) -> bool:
    """Whether x says what another option is, of each task and cell: the width that makes the parameters."""
    if name in (x, RATE):
        return False
    by = seeds.groupby(["task", "cell", x], dropna=False)[name].nunique()
    return bool((by <= 1).all()) and _numeric(seeds[name])


def _estimate(group: pd.DataFrame, y: str) -> statistics.Estimate:
    if y == "solved":
        return statistics.share(group["solved"].astype(bool).sum(), len(group))
    values = group[y].astype(float)
    if y.startswith("solved_"):
        return statistics.median(values.where(group["solved"].astype(bool), np.inf).fillna(np.inf))
    if y == "diverged_step":
        return statistics.median(values.fillna(np.inf))
    return statistics.score(statistics.worst_last(values, y.endswith("_metric") and _higher(group)))


def _higher(group: pd.DataFrame) -> bool:
    return bool(group["higher_is_better"].iloc[0])


def figure(seeds: pd.DataFrame, x: str, y: str = "test_metric") -> Figure:
    """`table` as a figure: a panel per task, of many lines a small one for each cell, the others in grey.

    Raises:
      ValueError: see `check`.
    """
    rows = table(seeds, x, y)
    drawn, look = panels_of(rows, x, y), style.styles(rows)
    out = panels.figure(drawn)
    told = [label for panel in drawn if panel.title not in panel.labels for label in panel.labels]
    handles = [style.handle(label, ms=5, **look[label]) for label in varied.in_order(told)]
    if any(panel.small for panel in drawn):
        handles.append(style.handle("others", color=panels.GREY, lw=1))
    style.legend(out, handles, [note(seeds, x, y)])
    return out


def note(seeds: pd.DataFrame, x: str, y: str) -> str:
    """How the figure is to be read."""
    point = SHARE if y == "solved" else TIMES if y.startswith("solved_") else NOTE
    tuned = f" {TUNED}" if x != RATE and RATE in varied.columns(seeds) else ""
    mark = UNSOLVED if y.startswith("solved_") else LOST if y.endswith("_metric") else ""
    return f"{point}{tuned}{mark}"


def panels_of(rows: pd.DataFrame, x: str, y: str) -> list[panels.Panel]:
    """The panels of `figure`, out of `table`."""
    look, drawn = style.styles(rows), []
    for task, group in rows.groupby("task"):
        if group[x].nunique() < 2:
            continue  # another task was varied
        scale = _scale(group, y)
        shown = panels.groups(group)
        for title, labels in shown:
            small = len(shown) > 1
            draw = partial(_draw, group, labels, scale, x, y, look, small)
            drawn.append(panels.Panel(task, title, labels, 2.05 if small else 3.1, draw, small))
    return drawn


def _scale(group: pd.DataFrame, y: str) -> scales.Scale:
    if y.endswith("_metric"):
        metric = group["metric"].iloc[0]
        ends = group.groupby("label")[y].max() if group["higher_is_better"].iloc[0] else group[y]
        found = scales.scale(
            metric, group["higher_is_better"].iloc[0], ends, group[[y, "low", "high"]].stack()
        )
        return found._replace(name=f"{y.removesuffix('_metric').replace('_', ' ')} {found.name}")
    if y == "solved":
        return scales.Scale("share of seeds that solved it", False)
    return scales.scale(y.replace("_", " "), False, [], group[y])._replace(lower=True)


def _draw(group, labels, scale, x, y, look, small, ax) -> list[panels.Point]:
    points = []
    worst = group[np.isfinite(group[y])][y].max() if scale.lower and not scale.error else np.nan
    for label in set(group["label"]) - set(labels):
        rows = group[group["label"] == label].sort_values(x)
        ax.plot(rows[x], scale(rows[y].where(np.isfinite(rows[y]))), color=panels.GREY, lw=0.8, zorder=1)
    for i, label in enumerate(labels):
        rows, gid = group[group["label"] == label].sort_values(x), panels.key(label)
        rows = rows.assign(at=_beside(rows[x], group[x], i - (len(labels) - 1) / 2))
        finite = rows[np.isfinite(rows[y])]
        middle = scale(finite[y])
        low, high = (scale(finite[end].replace({np.inf: worst, -np.inf: np.nan})) for end in ("low", "high"))
        ends = np.abs(np.stack([np.fmin(low, high), np.fmax(low, high)]) - middle)
        ax.plot(finite["at"], middle, label=label, ms=4.5, lw=1.6, gid=gid, **look[label])
        bars = {"ls": "none", "lw": 1.1, "capsize": 2.5, "color": look[label]["color"]}
        for part in ax.errorbar(finite["at"], middle, np.nan_to_num(ends), elinewidth=1.1, **bars)[1:]:
            for artist in part:
                artist.set_gid(gid)
        for row in rows[~np.isfinite(rows[y])].to_dict("records"):  # not reached, or without a score
            mark = {"marker": "^" if scale.lower else "v", "mfc": "none", "ls": "none", "clip_on": False}
            mark |= {"color": look[label]["color"], "gid": gid}
            if y == "solved_step":  # at the budget
                ax.plot(row["at"], row["limit"], **mark)
                points.append(panels.Point(row["at"], row["limit"], label, _unsolved(row, x)))
            else:
                edge = 1.0 if scale.lower else 0.0
                ax.plot(row["at"], edge, transform=ax.get_xaxis_transform(), **mark)
        for row, at in zip(finite.to_dict("records"), middle, strict=True):
            told = f"{y.replace('_', ' ')} {row[y]:,.4g} ({row['low']:,.4g}–{row['high']:,.4g})"
            points.append(panels.Point(row["at"], float(at), label, f"{told} at {x} {row[x]:,.4g}"))
    if small:  # all alike
        there = group[np.isfinite(group[y])]
        ax.update_datalim(np.column_stack([there[x], scale(there[y])]))
        ax.autoscale_view()
    _fit(ax, group[x], small)
    scale.set(ax, few=small)
    ax.set_xlabel(x.replace("_", " "))
    return points


def _unsolved(row: dict, x: str) -> str:
    return f"not solved in {row['limit']:,.0f} steps by half of the seeds at {x} {row[x]:,.4g}"


def _fit(ax, values: pd.Series, small: bool) -> None:
    """The x axis, with ticks at the values where they are few."""
    values, log = np.unique(values.astype(float)), _is_log(values)
    ax.set_xscale("log" if log else "linear")
    if len(values) <= (4 if small else 6) and _apart(values, log):
        ax.set_xticks(values, [f"{value:,.4g}" for value in values])
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        style.ticks(ax, values[0], values[-1], 3 if small else 5)


def _is_log(values: pd.Series) -> bool:
    """Whether they span a factor of 8."""
    return bool(values.min() > 0 and values.max() >= 8 * values.min())


def _beside(values: pd.Series, every: pd.Series, place: float):
    """Values of x moved aside a little, so that lines which agree are seen; place: 0 in the middle."""
    low, high = float(every.min()), float(every.max())
    if _is_log(every):
        return values * (high / low) ** (0.012 * place)
    return values + 0.012 * place * (high - low)


def _apart(values: np.ndarray, log: bool) -> bool:
    """Whether ticks at all values leave room for their names."""
    at = np.log(values) if log else values
    return len(at) < 2 or np.diff(at).min() > 0.12 * (at[-1] - at[0])
