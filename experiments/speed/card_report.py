"""Rows of `accelerator` to a table, goals and a figure; nothing here measures."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import statistics, style
from experiments.speed.report import SHOWN, goal

COPY_SHARE, TIMES_CUDNN, TIMES_CONVOLUTION, LINEAR, AS_FAST = 0.8, 10.0, 1.3, 1.1, 1.0


def goals(rows: pd.DataFrame, copy_gb_per_s: float) -> pd.DataFrame:
    """What was to be reached, what was measured, and whether that meets it."""
    if "ms" not in rows or rows["ms"].isna().all():
        return pd.DataFrame()
    rows, found = rows.dropna(subset="ms"), []
    for row in rows[(rows["group"] == "bandwidth") & (rows["strategy"] == "kernel")].to_dict("records"):
        share = row["gigabytes"] / (row["ms"] / 1e3) / copy_gb_per_s
        of = f"{row['layer']}, {row['pass']}"
        found.append(goal(of, "kernel", "share of a copy's bytes/s", share, COPY_SHARE))
    gradients = rows[rows["pass"] == "gradient"]
    for name, group in gradients.groupby("group", sort=False):
        kind = name.split()[0]
        if kind == "width":
            sru, of = _fastest(group, layer="sru"), f"sru, {name}"
            if sru and (lstm := _fastest(group, strategy="cudnn")):
                found.append(goal(of, "sru", "times as fast as cuDNN's LSTM", lstm / sru, TIMES_CUDNN))
            if sru and (convolution := _fastest(group, layer="convolution")):
                ratio = sru / convolution
                found.append(
                    goal(of, "sru", "times a causal convolution", ratio, TIMES_CONVOLUTION, most=True)
                )
        for layer in ("lstm", "gru") if kind in ("hidden", "width") else ():
            of_it = group[group["layer"] == layer]
            is_cudnn = (of_it["library"] == "torch") | (of_it["strategy"] == "cudnn")
            mine, theirs = _fastest(of_it[~is_cudnn], library="ours"), _fastest(of_it[is_cudnn])
            if mine and theirs:
                found.append(goal(name, layer, "times cuDNN's time", mine / theirs, AS_FAST, most=True))
    long = gradients[gradients["group"].str.startswith("steps")].sort_values("time")
    for strategy, of in long.groupby("strategy"):
        if len(of) >= 3:
            power = statistics.exponent(of["time"], of["ms"])
            found.append(goal(f"batch 1, {strategy}", "sru", "ms ~ time to the", power, LINEAR, most=True))
    return pd.DataFrame(found)


def _fastest(rows: pd.DataFrame, **labels) -> float | None:
    for name, value in labels.items():
        rows = rows[rows[name] == value]
    return rows["ms"].min() if len(rows) else None


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per group, layer, type and library: ms forward and with gradient."""
    rows = rows.assign(ms=rows["ms"].map("{:.3g}".format) if "ms" in rows else "")
    rows["strategy"] = rows["strategy"].fillna("")
    keys = ["group", "layer", "dtype", "library", "strategy"]
    wide = rows.pivot_table(index=keys, columns="pass", values="ms", aggfunc="first", sort=False)
    return (
        wide.reset_index().fillna("").rename(columns={"forward": "forward, ms", "gradient": "gradient, ms"})
    )


def figure(rows: pd.DataFrame) -> Figure:
    """Time forward and backward: a panel per group with a dot per layer and way; for a batch of one a line
    per strategy against the steps."""
    rows = rows[rows["pass"] == "gradient"].dropna(subset="ms")
    rows = rows[~rows["group"].str.startswith(("bandwidth", "pipeline", "grid"))].fillna({"strategy": ""})
    long = rows[rows["group"].str.startswith("steps")]
    names = [name for name in dict.fromkeys(rows["group"]) if not name.startswith("steps")]
    count = len(names) + (len(long) > 0)
    drawn, axes = style.panels(-(-count // 3), min(3, count), (4.4, 3.2))
    panels = iter(axes.flat)
    for name in names:
        _dots(next(panels), rows[rows["group"] == name])
    if len(long):
        ax = next(panels)
        labels = long["layer"] + " " + long["strategy"]
        look = style.styles(pd.DataFrame({"cell": long["layer"], "label": labels}))
        for label, of in long.groupby(labels, sort=False):
            ax.plot(of["time"], of["ms"], label=label, **look[label])
        ax.set(xscale="log", xlabel="steps", ylabel="ms, forward and backward")
        style.log(ax)
        style.title(ax, "batch 1, hidden {hidden_size}".format(**long.iloc[0]), strong=True)
        ax.legend(frameon=False, fontsize=9)
    for ax in panels:
        ax.set_visible(False)
    return drawn


def _dots(ax, rows: pd.DataFrame):
    rows = rows.sort_values("ms")
    look = style.styles(pd.DataFrame({"cell": rows["layer"], "label": rows["layer"]}))
    names = []
    for at, row in enumerate(rows.to_dict("records")):
        whose = SHOWN.get(row["library"], "") if row["library"] not in ("ours", "jax") else row["strategy"]
        names.append(" ".join(filter(None, (row["layer"], whose))))
        face = {} if row["library"] == "ours" else {"markerfacecolor": "none"}
        ax.plot(row["ms"], at, "o", color=look[row["layer"]]["color"], markersize=8, **face)
        ax.annotate(
            f"{row['ms']:.3g}", (row["ms"], at), xytext=(8, -3), textcoords="offset points", fontsize=8
        )
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="ms, forward and backward")
    low, high = ax.get_xlim()
    ax.set_xlim(low, high * 1.6)
    style.ticks(ax, low, high)
    style.title(ax, "batch {batch}, {time} steps, hidden {hidden_size}".format(**rows.iloc[0]), strong=True)
