"""What is read off units of long and of short memory, and off what they forget when gates are held still."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import ranking, statistics, style
from experiments.lab.holding import HELD_AT, LETTERS
from experiments.lab.units import RANGES

WORDS = {"mean": "mean over time", "std": "std over time", "off": "mean of 1 - gate"}
AGO = {"long": "long ago", "short": "just now"}  # what was seen


def aucs(units: pd.DataFrame, gate: str, statistic: str, of: str, before: bool = False) -> pd.Series:
    """How often a unit of one range (`of`) has more of a gate than one of the other, by seed, of the seeds
    that have both.

    Args:
      statistic: "mean" or "std" (over time), or "off" (1 - mean).
      before: that of the same units before training.
    """
    rows = units[(units["gate"] == gate) & units["range"].isin(RANGES)]
    rows = rows.assign(activity=activity(rows, statistic, before))
    found = {}
    for seed, group in rows.groupby("seed"):
        one, other = (group["activity"][(group["range"] == of) == side] for side in (True, False))
        if len(one) and len(other):
            found[seed] = ranking.auc(one, other)
    return pd.Series(found, dtype=float)


def activity(rows: pd.DataFrame, statistic: str, before: bool = False) -> pd.Series:
    """What `aucs` compares."""
    values = rows[("std" if statistic == "std" else "mean") + "_before" * before]
    return 1 - values if statistic == "off" else values


def lost(held: pd.DataFrame, gate: str, to: str, answers: str) -> pd.DataFrame:
    """The accuracy that is lost where a gate is held at `to`, by seed and by the range of the units in which
    it is.

    Args:
      answers: "long", those about what was long ago, or "short".
    """
    rows = held[(held["gate"] == gate) & (held["to"].astype(str) == to)]
    return rows.pivot(index="seed", columns="range", values=f"{answers}_lost")


def held_figure(held: pd.DataFrame) -> Figure:
    """What is forgotten at the longest gap: a column for each cell, above of long ago, below of just now."""
    held = held[held["gap"] == held["gap"].max()]
    labels, look = list(held["label"].unique()), {"long": "#0072B2", "short": "#D55E00"}
    figure, axes = style.panels(2, len(labels), (3.6, 2.3), sharey=True)
    for column, label in zip(axes.T, labels, strict=True):
        rows = held[held["label"] == label]
        cases = list(itertools.product(rows["gate"].unique(), HELD_AT))
        for ax, answers in zip(column, ("long", "short"), strict=True):
            for (i, case), of in itertools.product(enumerate(cases), RANGES):
                values = lost(rows, *case, answers)[of]
                at = i + {"long": -0.17, "short": 0.17}[of]
                ax.plot(np.full(len(values), at), values, ".", color=look[of], ms=3, alpha=0.5)
                middle = statistics.mean(values)
                ax.plot([at - 0.14, at + 0.14], [middle.value] * 2, color=look[of], lw=2)
            ax.set_xticks(
                range(len(cases)), [f"{LETTERS[gate]} = {to}" for gate, to in cases], fontsize=8, rotation=45
            )
            ax.grid(axis="x", visible=False)
            style.title(ax, f"{label}: {AGO[answers]}")
        column[0].set_xticklabels([])
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy that is lost", fontsize=9)
    handles = [style.handle(f"held in {of} units", color=look[of], lw=2) for of in RANGES]
    note = (
        f"Gap {held['gap'].iloc[0]}: what is lost where a gate, by its letter, is held at a value, in the "
        f"long units or in as many short ones. Dots: seeds that solved the task ({_counts(held)}); lines: "
        "their mean."
    )
    style.legend(figure, handles, [note])
    return figure


def _counts(rows) -> str:
    """Seeds of each label."""
    return ", ".join(
        f"{label} {n}" for label, n in rows.groupby("label", sort=False)["seed"].nunique().items()
    )


def gates_figure(rows: pd.DataFrame, shown: list[tuple[str, str]]) -> Figure:
    """Gates of one cell's units by range: a line for each gap, a column for each (gate, statistic) shown."""
    gaps = sorted(rows["gap"].unique())
    label, colour = rows["label"].iloc[0], style.styles(rows)[rows["label"].iloc[0]]["color"]
    figure, axes = style.panels(len(gaps), len(shown), (3.1, 2.1), sharex=True, sharey=True)
    rng = np.random.default_rng(0)
    for (i, gap), (j, (gate, of)) in itertools.product(enumerate(gaps), enumerate(shown)):
        here, ax = rows[(rows["gap"] == gap) & (rows["gate"] == gate)], axes[i, j]
        for (at, name), before in itertools.product(enumerate(RANGES), (True, False)):
            values = activity(here[here["range"] == name], of, before)
            x = at + (-0.2 if before else 0.2) + rng.uniform(-0.12, 0.12, len(values))
            ax.plot(x, values, ".", ms=3, color="#AAAAAA" if before else colour, alpha=0.6)
        ax.set_xticks(range(2), [f"{name} units" for name in RANGES])
        style.title(ax, f"gap {gap}: {gate} gate, {WORDS[of]}")
        ax.grid(axis="x", visible=False)
    note = (
        f"{label}: a dot is a unit, in grey before training, of the seeds that solved the task "
        f"({', '.join(f'gap {gap}: {n}' for gap, n in rows.groupby('gap')['seed'].nunique().items())})."
    )
    style.legend(figure, [], [note])
    return figure
