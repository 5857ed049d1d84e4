"""Inputs of a person's own sequences: gaps, time stamps, their scale."""

import numpy as np

from train.tasks.datasets import DataError
from train.tasks.meaning import NO_SCALE, Meaning, Scale, scaled
from train.tasks.own.sequences import Sequences


def filled(task, found: Sequences) -> Sequences:
    """With a mask of the steps that count, where gaps are skipped; refuses gaps that are not asked for."""
    if not found.features:
        numbers = task.answer.startswith("number")
        off = {"gaps": "refuse", "times": "none"} | ({} if numbers else {"standardize": True})
        for option, value in off.items():
            if (given := getattr(task, option)) != value:
                raise DataError(f"{task.name}: {option}={given} has no effect: the inputs are tokens")
        return found
    bad = ~np.isfinite(found.xs) & found.real[:, None]
    if task.gaps == "refuse":
        for step, feature in np.argwhere(bad)[:1]:
            raise DataError(
                f"{found.where(step)}: {found.features[feature]!r} is {found.xs[step, feature]}; "
                "task.gaps=indicator takes 0 and says where, task.gaps=skip passes over the step"
            )
    return found._replace(mask=found.real & ~bad.any(axis=1)) if task.gaps == "skip" else found


def inputs(task, found: Sequences, trains: np.ndarray) -> tuple[np.ndarray, np.ndarray, Meaning]:
    """What the model reads at each step.

    Args:
      found: from `filled`.
      trains: (steps,) bool, which are of the training split.

    Returns:
      (steps,) int32, or (steps, inputs) float32; (steps, features), scaled, NaN where they are missing; and
      what they mean.
    """
    if not found.features:
        return found.xs.astype(np.int32), found.xs, Meaning()
    missing = ~np.isfinite(found.xs)
    trains = trains & found.real
    for i in np.flatnonzero(missing[trains].all(axis=0))[:1] if trains.any() else ():
        raise DataError(
            f"{found.place}: {found.features[i]!r} is missing in all steps that train: leave it out"
        )
    names = tuple(map(str, found.features))
    features, scales = standardized(task, np.where(missing, np.nan, found.xs), trains)
    columns = [np.where(missing, 0, features)]
    if task.gaps == "indicator":
        columns.append(missing & found.real[:, None])
    if timed := task.times != "none":
        names += ("time" if task.times == "value" else "time since the step before",)
        times, scale = standardized(task, _times(task, found)[:, None], trains)
        columns.append(times)
        scales += scale
    with np.errstate(over="ignore"):  # infinite, which is refused
        xs = np.concatenate(columns, axis=1).astype(np.float32)
    return xs, features, Meaning(features=names, scales=scales, gaps=task.gaps, timed=timed)


def standardized(task, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, tuple[Scale, ...]]:
    """Columns with mean 0 and standard deviation 1 where `counts`, if the task asks for it; their scales.

    Args:
      values: (n, k) float64; NaN is left out.
      counts: (n,) bool.
    """
    if not task.standardize:
        return values, (NO_SCALE,) * values.shape[1]
    some = values[counts]
    there = np.isfinite(some)
    number = np.maximum(1, there.sum(0))
    size = np.abs(np.where(there, some, 0)).max(axis=0, initial=0)
    size = np.where(size > 0, size, 1)  # in units of it, no square overflows or vanishes
    mean = np.where(there, some / size, 0).sum(0) / number
    deviation = np.sqrt((np.where(there, some / size - mean, 0) ** 2).sum(0) / number)
    changes = deviation > 1e-14  # below that it is rounding
    factor = np.where(changes, 1 / np.where(changes, deviation, 1), size)
    scales = tuple(Scale(*map(float, column)) for column in zip(size, mean, factor, strict=True))
    return scaled(scales, values), scales


def _times(task, found: Sequences) -> np.ndarray:
    """(steps,) time stamps, or how long after the step before of those that are not skipped."""
    if found.times is None:
        raise DataError(f"{task.name}: times={task.times} has no effect: {found.place} has no time stamps")
    for step in np.flatnonzero(~np.isfinite(found.times) & found.real)[:1]:
        raise DataError(f"{found.where(step)}: the time stamp is {found.times[step]}")
    kept = np.flatnonzero(found.real)
    row = np.repeat(np.arange(len(found.lengths)), found.lengths)[kept]
    first = np.diff(row, prepend=-1) != 0  # of a sequence
    difference = np.where(first, 0, np.diff(found.times[kept], prepend=0))
    if task.times == "value":
        single = np.diff(found.times[kept].astype(np.float32).astype(float), prepend=0)
        lost = ~first & (np.abs(single - difference) > 0.1 * np.abs(difference))
        for i in np.flatnonzero(lost)[:1] if not task.standardize else ():
            raise DataError(
                f"{found.where(kept[i])}: the time stamp {found.times[kept[i]]} is too large for float32 to "
                "tell it from the one before: take times=difference, or standardize=true"
            )
        return np.where(found.real, found.times, 0)
    for i in np.flatnonzero(difference < 0)[:1]:
        raise DataError(f"{found.where(kept[i])}: its time stamp is before that of the step before")
    out = np.zeros(len(found.xs))
    out[kept] = difference
    return out
