"""Units of trained cells: which remember long and which short, and what their gates do."""

import numpy as np

from experiments.lab import probes

RANGES = ("long", "short")


def moments(cell, params, xs) -> dict:
    """Of each gate and unit the mean, and the standard deviation over time, (hidden_size,) each."""
    gates = probes.trace(cell, params, xs).gates
    return {name: (g.mean((0, 1)), g.std(1).mean(0)) for name, g in gates.items()}


def ranges(memory, swap, long: float, short: float) -> np.ndarray:
    """Of each unit "long", where both its memory times are above `long`, "short", where both are below
    `short`, else "neither": (hidden_size,)."""
    memory, swap = np.asarray(memory), np.asarray(swap)
    is_long, is_short = (memory > long) & (swap > long), (memory < short) & (swap < short)
    return np.where(is_long, "long", np.where(is_short, "short", "neither"))
