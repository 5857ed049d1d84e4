"""Layers of equal size compared: ratios of their times, and figures with a panel per cell."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import statistics, style
from experiments.lab.layers import OTHERS
from experiments.lab.rules import ratio
from experiments.lab.timing import PASSES


def ratios(time: pd.DataFrame) -> pd.DataFrame:
    """Ratios of times by pass and length, an Estimate over rounds each: `sru`, its fastest strategy over the
    convolution; `serial`, the share of the LSTM's time outside its projection, taken to cost there what it
    costs alone; `units` and `size`, the LSTM over RNNs; `newton`, by Newton's method over step by step."""
    rows = []
    for (which, at), here in time.groupby(["pass", "time"], sort=False):
        ms = here.pivot(index="round", columns="label", values="ms").sort_index()
        row, sru = {"pass": which, "time": at}, [label for label in ms if label.split()[0] == "sru"]
        if sru:
            times = ms[sru].to_numpy()
            row["fastest"] = sru[np.median(times, 0).argmin()]
            # Each round has the strategy that was the fastest in the others: none chooses its own.
            others = (np.delete(times, turn, 0) if len(times) > 1 else times for turn in range(len(times)))
            fastest = [np.median(other, 0).argmin() for other in others]
            row["sru"] = ratio(times[np.arange(len(times)), fastest], ms["convolution"])
        if "lstm" in ms:
            row["serial"] = statistics.mean(1 - ms["lstm projection"] / ms["lstm"])
            against = {
                "units": ("lstm", "rnn as wide"),
                "size": ("lstm", "rnn"),
                "newton": ("lstm newton", "lstm"),
            }
            row |= {name: ratio(ms[a], ms[b]) for name, (a, b) in against.items() if {a, b} <= set(ms)}
        rows.append(row)
    return pd.DataFrame(rows)


def ratio_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`ratios` as text."""
    names = {"sru": "SRU's fastest / convolution", "fastest": "fastest", "serial": "LSTM: share outside W x"}
    names |= {"units": "LSTM / RNN of as many units", "size": "LSTM / RNN of as many parameters"}
    names |= {"newton": "LSTM: Newton / step by step"}
    names = {name: text for name, text in names.items() if name in compared}
    table = compared.sort_values(["pass", "time"])[["pass", "time", *names]].copy()
    for name in names.keys() - {"fastest"}:
        table[name] = [f"{value:.2f}" for value in table[name]]
    return table.rename(columns=names | {"time": "steps"})


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
            other, how = label in OTHERS, label.removeprefix(one).strip() or "sequential"
            own = {"lw": 1, "ms": 3} if other else {"linestyle": style.STRATEGIES.get(how, "-")}
            style.line(ax, group, "time", value, look[label] | own, band)
            grey = {"color": style.MUTED, "linestyle": own.get("linestyle")}
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
