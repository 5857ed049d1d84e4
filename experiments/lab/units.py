"""Units of trained cells: what each one's gates do, and how that goes with how far back it remembers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.lab import probes, statistics

MEMORIES = {"memory": "by gradients", "swap": "by replacing a token"}


def has_gates(cell) -> bool:
    """Whether it has gates to look at."""

    def gates():
        params = cell.init(jax.random.key(0), 1)
        return cell.gates(params, cell.initial_carry(1), jnp.zeros((1, 1)))

    return bool(jax.eval_shape(gates))


def moments(cell, params, xs) -> dict:
    """Of each gate and unit the mean, and the standard deviation over time, (hidden_size,) each."""
    gates = probes.trace(cell, params, xs).gates
    return {name: (g.mean((0, 1)), g.std(1).mean(0)) for name, g in gates.items()}


def spread(cell, params, seed, time):
    """A model's parameters with the cell's biases from chrono initialisation."""
    layer = probes.layer_params(params)
    fresh = dataclasses.replace(cell, chrono=time).init(jax.random.key(seed), 1)
    biases = {name: value for name, value in fresh.items() if name.startswith("b_")}
    return params | {"layers": {"0": {"forward": layer | biases}}}


def activity(units: pd.DataFrame, gate: str, statistic: str) -> pd.DataFrame:
    """The units of a gate, with its `activity`: "mean", "std" (over time), or "off" (1 - mean)."""
    rows = units[units["gate"] == gate]
    return rows.assign(activity=1 - rows["mean"] if statistic == "off" else rows[statistic])


def correlations(units: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell, gate, statistic and memory: an Estimate for each stage and of trained minus
    untrained (`gained`), and in how many of the `seeds` the trained one has the sign of the whole (`agree`).
    Only of seeds that solved the task."""
    rows = []
    units = units[units["solved"].astype(bool)]
    for (label, gate), group in units.groupby(["label", "gate"], sort=False):
        for statistic in ("mean", "std", *(["off"] if gate == "reset" else [])):
            stages = dict(list(activity(group, gate, statistic).groupby("stage")))
            for memory in MEMORIES:
                row = {"label": label, "gate": gate, "statistic": statistic, "memory": memory}
                for stage, frame in stages.items():
                    row[stage] = statistics.rank_correlation(frame, "activity", memory)
                trained, untrained = stages["trained"], stages["untrained"]
                row["gained"] = statistics.rank_difference(trained, untrained, "activity", memory)
                each = [
                    statistics.rank_correlation(seed, "activity", memory).value
                    for _, seed in trained.groupby("seed")
                ]
                row |= {"agree": sum(np.sign(each) == np.sign(row["trained"].value)), "seeds": len(each)}
                rows.append(row)
    return pd.DataFrame(rows)


def memory_times(units: pd.DataFrame, gap: int) -> str:
    """How memory times of a GRU's units differ, before and after training, and the gates of the long ones."""
    units = units[units["solved"].astype(bool)]
    low, high = (units.groupby("stage")["memory"].quantile(q) for q in (0.1, 0.9))
    before, after = (f"{low[stage]:.1f} to {high[stage]:.1f}" for stage in ("untrained", "trained"))
    long = units["memory"] > gap / 2
    count = units[long & (units["gate"] == "update")].groupby("stage").size()
    text = f"memory times (10 to 90 %) go from {before} steps to {after}; more than {gap / 2:g} steps have "
    text += f"{count.get('untrained', 0)} units before training and {count.get('trained', 0)} after"
    mean = units[units["stage"] == "trained"].groupby([long, "gate"])["mean"].mean()
    if len(mean) == 4:
        text += (
            f" (z {mean[True, 'update']:.2f}, r {mean[True, 'reset']:.2f}; the others z "
            f"{mean[False, 'update']:.2f}, r {mean[False, 'reset']:.2f})"
        )
    return text
