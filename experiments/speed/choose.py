"""Which strategy is fastest on this machine's accelerator: measured, and kept for "auto"."""

import jax
import pandas as pd

import cells
from cells.scans import chosen
from experiments.lab import timing
from experiments.speed import layers


def choose(sizes, names, repeats: int, tell=lambda what: None, card: str | None = None) -> pd.DataFrame:
    """Times every strategy of each cell, with its gradient, and keeps the fastest in `chosen.place()`.

    Args:
      sizes: (batch, time, hidden_size) each.
      card: the name under which it is kept; None: that of the device.

    Raises:
      ValueError: on a CPU, where "auto" is the same for everyone.
    """
    if card is None and jax.default_backend() == "cpu":
        raise ValueError("--choose is for accelerators: on a CPU 'auto' is the same everywhere")
    card, rows = card or jax.devices()[0].device_kind, []
    for size in sizes:
        for name in names:
            cases = [
                case
                for case in layers.cases(size, [name], None, ["gradient"], [])
                if case.labels["devices"] == 1 and case.labels["strategy"] != "stepwise"
            ]
            measured = [row for row in timing.interleaved(cases, repeats, tell) if "ms" in row]
            if not measured:
                continue
            best = min(measured, key=lambda row: row["ms"])
            chosen.keep(card, cells.get(name, hidden_size=size[2]), *size[:2], best["strategy"])
            rows += [row | {"chosen": "yes" if row is best else ""} for row in measured]
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per cell and size: ms of each strategy, and which is kept."""
    found = []
    for (name, *size), group in rows.groupby(["cell", "batch", "time", "hidden_size"], sort=False):
        line = {"cell": name, "batch, time, hidden": ", ".join(map(str, size))}
        line["auto"] = group[group["chosen"] == "yes"]["strategy"].iloc[0]
        found.append(line | {row["strategy"]: f"{row['ms']:.3g} ms" for _, row in group.iterrows()})
    return pd.DataFrame(found).fillna("")
