"""Gains of gradients against distance in numbers: exponents, and where they fall below a floor."""

import numpy as np
import pandas as pd

from experiments.lab import statistics

COLUMNS = ["label", "stage", "seed", "trial", "exponent", "state", "inputs"]


def counted(gains: pd.DataFrame) -> pd.DataFrame:
    """All seeds as initialised; those of the tuned run only if they solved the task."""
    return gains[(gains["stage"] == "initial") | (gains["solved"].astype(str) == "True")]


def exponents(gains: pd.DataFrame, floor: float) -> pd.DataFrame:
    """One row per label, stage and seed that is `counted`: `exponent`, the slope of the logarithm of the
    state's gain over the farther three quarters of k; `state` and `inputs`, from which k on they are below
    the floor, infinite where they are not; the `trial` that was picked.

    Args:
      gains: `state` and `inputs` as log10 by k.
    """
    rows = []
    for (label, stage, seed), group in counted(gains).groupby(["label", "stage", "seed"], sort=False):
        rate, state = statistics.decay(group["k"], group["state"], np.log10(floor))
        inputs = statistics.decay(group["k"], group["inputs"], np.log10(floor))[1]
        row = {"label": label, "stage": stage, "seed": seed, "trial": group["trial"].iloc[0]}
        rows.append(row | {"exponent": rate * np.log(10), "state": state, "inputs": inputs})
    return pd.DataFrame(rows, columns=COLUMNS)


def reaches(reach: pd.DataFrame, floor: float) -> pd.DataFrame:
    """One row per bias and seed: `state`, as in `exponents`."""
    return pd.DataFrame(
        {"bias": bias, "seed": seed, "state": statistics.decay(one["k"], one["state"], np.log10(floor))[1]}
        for (bias, seed), one in reach.groupby(["bias", "seed"])
    )


def exponent_table(gains: pd.DataFrame, floor: float, kept: float) -> pd.DataFrame:
    """Exponents, what they mean (up to `kept` a gain is kept), and reaches by label and stage."""
    rows, limit = [], f">{gains['k'].max():.0f}"
    for (label, stage), group in exponents(gains, floor).groupby(["label", "stage"], sort=False):
        value = statistics.mean(group["exponent"])
        sign = "vanishes" if value.high < -kept else "explodes" if value.low > kept else "–"
        if -kept < value.low and value.high < kept:
            sign = "is kept"
        row = {"cell": label, "stage": stage, "seeds": len(group), "exponent": f"{value:+.4f}", "it": sign}
        for name, text in (("state", "gain"), ("inputs", "loss gradient")):
            reached = statistics.censored(statistics.median(group[name]), limit)
            row[f"{text} below {floor:g} from k ="] = reached
        rows.append(row)
    return pd.DataFrame(rows)


def scaled_table(at: pd.DataFrame) -> pd.DataFrame:
    """Median log10 gain at one distance by scale of the matrix and of the inputs."""
    wide = at.pivot_table(index="scale", columns="input_scale", values="state", aggfunc="median")
    return wide.map("{:.1f}".format).rename(columns="inputs x {:g}".format).reset_index(names="scale of U")


def clipping_table(clipping: pd.DataFrame) -> pd.DataFrame:
    """Seeds that solved the task by scale, clipping and learning rate."""
    found = []
    for (scale, clip), group in clipping.groupby(["scale", "clip_norm"]):
        row = {"scale of U": f"{scale:g}", "clipped to norm": f"{clip:g}" if clip else "no"}
        for rate, seeds in group.groupby("learning_rate"):
            gone = int(seeds["diverged_step"].notna().sum())
            solved = f"{int(seeds['solved'].sum())}/{len(seeds)}"
            row[f"rate {rate:g}"] = solved + f", {gone} NaN" * bool(gone)
        found.append(row)
    return pd.DataFrame(found)
