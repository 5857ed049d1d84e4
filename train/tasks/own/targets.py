"""Targets of a person's own sequences: classes or numbers, which of them count, and how much."""

from typing import NamedTuple

import numpy as np

from train.tasks.datasets import DataError
from train.tasks.meaning import Meaning, Scale
from train.tasks.own.inputs import standardized
from train.tasks.own.sequences import Sequences


class Targets(NamedTuple):
    """Of each sequence or step."""

    ys: np.ndarray  # (n,) int32 classes or (n, k) float32 numbers
    counts: np.ndarray  # (n,) bool
    classes: tuple[str, ...] | None = None  # their names
    scales: tuple[Scale, ...] = ()  # of numbers
    names: tuple[str, ...] = ()  # of these, where they are features


MOST = 1e30  # a weight, so that float32 has the sum of a batch's


def weights(task, found: Sequences) -> np.ndarray:
    """(n,) float32, of each sequence or step; 0 where it is skipped.

    Raises:
      DataError: one cannot be right.
    """
    there = found.real if task.per_step else np.ones(len(found.lengths), bool)
    given = np.where(there, 1.0 if found.weights is None else found.weights, 0)
    for i in np.flatnonzero(~((given >= 0) & (given <= MOST)))[:1]:
        raise DataError(f"{_where(task, found, i)}: the weight is {given[i]}, and not in 0..{MOST:g}")
    return given.astype(np.float32)


def targets(
    task, found: Sequences, used: np.ndarray, trains: np.ndarray, features: np.ndarray, meaning: Meaning
) -> Targets:
    """What the model is to answer. What is not used has no part in it: not in the scale, nor in the classes.

    Args:
      used: (n,) bool, which sequences or steps have a weight.
      trains: (n,) bool, which are of the training split.
      features: (steps, features) as the model reads them, NaN where they are missing.
      meaning: of these.

    Raises:
      DataError: with the place.
    """
    tokens = task.answer == "forecast" and not found.features
    made = _classes if tokens or task.answer.startswith("class") else _numbers
    return made(task, found, used, trains & used, features, meaning)


def _where(task, found: Sequences, i: int) -> str:
    return found.where(i) if task.per_step else found.row(i)


def _all_there(task, found: Sequences, used, there: np.ndarray) -> None:
    """The one answer of a sequence that counts may not be missing."""
    for i in np.flatnonzero(used & ~there)[:1] if not task.per_step else ():
        raise DataError(f"{_where(task, found, i)}: its target is missing")


def _classes(task, found: Sequences, used, trains, features, meaning) -> Targets:
    forecast = task.answer == "forecast"
    labels, there = _labels(task, found, used, found.xs if forecast else found.ys)
    _all_there(task, found, used, there)
    if task.ignore_label is not None:
        ignored = labels.astype(str) == str(task.ignore_label)
        if not ignored.any():
            raise DataError(f"{task.name}: ignore_label: no label of {found.place} is {task.ignore_label}")
        there = there & ~ignored
    there = there & used
    if forecast:  # a token that training never has is none the less one
        names = tuple(map(str, range(int(labels.max(initial=0)) + 1)))
        return Targets(labels.astype(np.int32), there, names)
    classes = np.unique(labels[there & trains])
    listed = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
    if len(classes) < 2:
        raise DataError(f"{found.place}: two classes or more are needed to train, got {listed or 'none'}")
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    for i in np.flatnonzero((classes[codes] != labels) & there)[:1]:
        raise DataError(
            f"{_where(task, found, i)} is held out, and its class {labels[i].item()!r} is not among those "
            f"that train: {listed}"
        )
    return Targets(np.where(there, codes, 0).astype(np.int32), there, tuple(map(str, classes)))


def _labels(task, found: Sequences, used, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes as integers or text, and which are there: NaN and "" are none."""
    if ys.ndim > 1:
        raise DataError(f"{found.place}: a class is one value, got {ys.shape[1]}; is it answer=number?")
    if ys.dtype.kind not in "iubfU":
        raise DataError(f"{found.place}: classes must be integers or text, got {ys.dtype}")
    if ys.dtype.kind == "U":
        return ys, ys != ""
    there = ~np.isnan(ys) if ys.dtype.kind == "f" else np.ones(len(ys), bool)
    large = np.isinf(ys) | (np.abs(ys.astype(float)) >= 2.0**63)
    labels = np.where(there & ~large, ys, 0)
    for i in np.flatnonzero(used & (large | (labels % 1 != 0)))[:1]:
        raise DataError(f"{_where(task, found, i)}: {ys[i]} is no class; is it answer=number?")
    return labels.astype(np.int64), there


def _numbers(task, found: Sequences, used, trains, features, meaning) -> Targets:
    if task.class_weights or task.ignore_label is not None:
        option = "class_weights" if task.class_weights else "ignore_label"
        raise DataError(f"{task.name}: {option} has no effect: {found.place} has numbers to forecast")
    events, forecast = task.judged_by(False)[0] == "binary_cross_entropy", task.answer == "forecast"
    if forecast and (found.ys is None or found.targets):
        chosen = list(found.targets or range(len(found.features)))
        raw, ys = found.xs[:, chosen], features[:, chosen]
        scales, names = tuple(meaning.scales[i] for i in chosen), tuple(found.features[i] for i in chosen)
        if events and task.standardize:
            raise DataError(f"{task.name}: loss={task.loss} is of events, 0 or 1: standardize=false")
    else:
        names = ()
        if found.ys.dtype.kind not in "iubf" or found.ys.ndim > 2:
            raise DataError(f"{found.place}: targets must be numbers, got {found.ys.shape} {found.ys.dtype}")
        raw = (found.ys[:, None] if found.ys.ndim == 1 else found.ys).astype(float)
        for i in np.flatnonzero(used & np.isinf(raw).any(axis=1))[:1]:
            raise DataError(f"{_where(task, found, i)}: the target is {raw[i]}")
        raw = np.where(np.isinf(raw), np.nan, raw)
        ys, scales = (raw, ()) if events else standardized(task, raw, trains)
    _all_there(task, found, used, np.isfinite(raw).all(axis=1))
    there = used & np.isfinite(raw).all(axis=1)
    for i in np.flatnonzero(there & ((raw < 0) | (raw > 1)).any(axis=1))[:1] if events else ():
        raise DataError(f"{_where(task, found, i)}: {raw[i]} is not in 0..1, as {task.loss} needs it")
    with np.errstate(over="ignore"):  # infinite, which is refused
        return Targets(np.where(there[:, None], ys, 0).astype(np.float32), there, scales=scales, names=names)
