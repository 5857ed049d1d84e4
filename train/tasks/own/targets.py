"""Targets of a person's own sequences: classes or numbers, which of them count, and how much."""

from typing import NamedTuple

import numpy as np

from train.tasks.datasets import DataError
from train.tasks.own.inputs import scaled
from train.tasks.own.sequences import Sequences


class Targets(NamedTuple):
    """Of each sequence or step."""

    ys: np.ndarray  # (n,) int32 classes or (n, k) float32 numbers
    counts: np.ndarray  # (n,) bool
    classes: np.ndarray | None = None  # (classes,) int32, how often training has each


def targets(task, found: Sequences, trains: np.ndarray, features: np.ndarray) -> Targets:
    """What the model is to answer.

    Args:
      trains: (n,) bool, which sequences or steps are of the training split.
      features: (steps, features) as the model reads them, NaN where they are missing.

    Raises:
      DataError: with the place.
    """
    tokens = task.answer == "forecast" and not found.features
    made = _classes if tokens or task.answer.startswith("class") else _numbers
    made = made(task, found, trains, features)
    if task.answer == "forecast":
        return made._replace(counts=made.counts & found.real)
    return made


def loss_weights(task, classes: np.ndarray) -> np.ndarray:
    """(classes,) weights."""
    if not task.class_weights:
        return np.ones(len(classes))
    if task.class_weights == "balanced":
        return classes.sum() / (len(classes) * np.maximum(1, classes))
    if len(weights := task.own_weights()) != len(classes):
        raise DataError(
            f"{task.name}: class_weights has {len(weights)} numbers, and there are {len(classes)} classes"
        )
    return np.array(weights)


def _where(task, found: Sequences, i: int) -> str:
    return found.where(i) if task.per_step else f"{found.place}, {found.names[i]}"


def _all_there(task, found: Sequences, there: np.ndarray) -> None:
    """The one answer of a sequence may not be missing."""
    for i in np.flatnonzero(~there)[:1] if not task.per_step else ():
        raise DataError(f"{_where(task, found, i)}: its target is missing")


def _classes(task, found: Sequences, trains, features) -> Targets:
    forecast = task.answer == "forecast"
    labels, there = _labels(task, found, found.xs if forecast else found.ys)
    _all_there(task, found, there)
    if task.ignore_label is not None:
        ignored = labels.astype(str) == str(task.ignore_label)
        if not ignored.any():
            raise DataError(f"{task.name}: ignore_label: no label of {found.place} is {task.ignore_label}")
        there &= ~ignored
    if forecast:  # a token that training never has is none the less one
        counts = np.bincount(labels[trains & there], minlength=labels.max(initial=0) + 1)
        return Targets(labels.astype(np.int32), there, counts)
    classes, counts = np.unique(labels[there & trains], return_counts=True)
    listed = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
    if len(classes) < 2:
        raise DataError(f"{found.place}: two classes or more are needed to train, got {listed or 'none'}")
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    for i in np.flatnonzero((classes[codes] != labels) & there)[:1]:
        raise DataError(
            f"{_where(task, found, i)} is held out, and its class {labels[i].item()!r} is not among those "
            f"that train: {listed}"
        )
    return Targets(np.where(there, codes, 0).astype(np.int32), there, counts)


def _labels(task, found: Sequences, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes as integers or text, and which are there: NaN and "" are none."""
    if ys.ndim > 1:
        raise DataError(f"{found.place}: a class is one value, got {ys.shape[1]}; is it answer=number?")
    if ys.dtype.kind not in "iubfU":
        raise DataError(f"{found.place}: classes must be integers or text, got {ys.dtype}")
    if ys.dtype.kind == "U":
        return ys, ys != ""
    there = ~np.isnan(ys) if ys.dtype.kind == "f" else np.ones(len(ys), bool)
    labels = np.where(there, ys, 0)
    for i in np.flatnonzero(labels % 1 != 0)[:1]:
        raise DataError(f"{_where(task, found, i)}: {ys[i]} is no class; is it answer=number?")
    return labels.astype(np.int64), there


def _numbers(task, found: Sequences, trains, features) -> Targets:
    if task.class_weights or task.ignore_label is not None:
        option = "class_weights" if task.class_weights else "ignore_label"
        raise DataError(f"{task.name}: {option} has no effect: {found.place} has numbers to forecast")
    events, forecast = task.judged_by(False)[0] == "binary_cross_entropy", task.answer == "forecast"
    if forecast and (found.ys is None or found.targets):
        chosen = list(found.targets or range(len(found.features)))
        raw, ys = found.xs[:, chosen], features[:, chosen]
        if events and task.standardize:
            raise DataError(f"{task.name}: loss={task.loss} is of events, 0 or 1: standardize=false")
    else:
        if found.ys.dtype.kind not in "iubf" or found.ys.ndim > 2:
            raise DataError(f"{found.place}: targets must be numbers, got {found.ys.shape} {found.ys.dtype}")
        raw = (found.ys[:, None] if found.ys.ndim == 1 else found.ys).astype(float)
        ys = raw if events else scaled(task, raw, trains & np.isfinite(raw).all(axis=1))
    there = np.isfinite(raw).all(axis=1)
    for i in np.flatnonzero(np.isinf(raw).any(axis=1))[:1] if not forecast else ():
        raise DataError(f"{_where(task, found, i)}: the target is {raw[i]}")
    _all_there(task, found, there)
    for i in np.flatnonzero(there & ((raw < 0) | (raw > 1)).any(axis=1))[:1] if events else ():
        raise DataError(f"{_where(task, found, i)}: {raw[i]} is not in 0..1, as {task.loss} needs it")
    with np.errstate(over="ignore"):  # infinite, which is refused
        return Targets(np.where(there[:, None], ys, 0).astype(np.float32), there)
