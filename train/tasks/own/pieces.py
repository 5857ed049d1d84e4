"""Sequences of any length, cut into the rows of a task."""

from typing import NamedTuple

import numpy as np

from train.tasks.own.sequences import Sequences


class Pieces(NamedTuple):
    """Stretches of steps, each a row of the task."""

    row: np.ndarray  # (pieces,) the sequence that it is of
    start: np.ndarray  # (pieces,) its first step, among the steps of all sequences
    length: np.ndarray  # (pieces,) steps
    split: np.ndarray  # (pieces,) place in `splits.PARTS`


def shortened(sequences: Sequences, most: int, per_step: bool) -> Sequences:
    """Every row's first `most` steps."""
    steps = np.arange(len(sequences.xs)) - np.repeat(sequences.starts, sequences.lengths)
    fields = ("xs", "mask", "resets", "times", *(("ys", "weights") if per_step else ()))
    there = {field: getattr(sequences, field) for field in fields}
    cut = {field: values[steps < most] for field, values in there.items() if values is not None}
    return sequences._replace(lengths=np.minimum(sequences.lengths, most), **cut)


def whole(lengths: np.ndarray, split: np.ndarray) -> Pieces:
    """A piece for each sequence, whose split is said."""
    return Pieces(np.arange(len(lengths)), np.cumsum(lengths) - lengths, lengths, split)


def in_time(lengths: np.ndarray, fractions: dict[str, float]) -> Pieces:
    """Three pieces of each sequence: its first part trains, then comes the one to validate, then to test."""
    held_out = [np.round(fractions[split] * lengths).astype(int) for split in ("valid", "test")]
    sizes = np.stack([lengths - sum(held_out), *held_out], axis=1)  # (rows, 3)
    starts = (np.cumsum(sizes.ravel()) - sizes.ravel()).reshape(sizes.shape)
    rows = np.arange(len(lengths))
    made = Pieces(np.repeat(rows, 3), starts.ravel(), sizes.ravel(), np.tile([0, 1, 2], len(rows)))
    return Pieces(*(values[made.length > 0] for values in made))


def without_end(pieces: Pieces, horizon: int) -> tuple[Pieces, int]:
    """Pieces less their last steps, whose targets would be behind their end; and how many are left out,
    because nothing is left of them."""
    long = pieces.length > horizon
    kept = Pieces(*(values[long] for values in pieces))
    return kept._replace(length=kept.length - horizon), int((~long).sum())


def windows(pieces: Pieces, size: int) -> Pieces:
    """Pieces cut into pieces of `size` steps; the last ones have what is left."""
    counts = np.maximum(1, -(-pieces.length // size))
    each = np.repeat(np.arange(len(counts)), counts)
    offset = size * (np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts))
    length = np.minimum(size, pieces.length[each] - offset)
    return Pieces(pieces.row[each], pieces.start[each] + offset, length, pieces.split[each])


def with_a_step(pieces: Pieces, real: np.ndarray) -> Pieces:
    """Those that have a step that is not skipped."""
    before = np.r_[0, np.cumsum(real)]
    some = before[pieces.start + pieces.length] > before[pieces.start]
    return Pieces(*(values[some] for values in pieces))


def padded(values: np.ndarray, start: np.ndarray, length: np.ndarray, time: int) -> np.ndarray:
    """(steps, ...) as (pieces, time, ...), zeros after the end of a piece."""
    steps = np.arange(time)
    real = steps < length[:, None]
    if not len(values):
        return np.zeros((len(start), time, *values.shape[1:]), values.dtype)
    out = values[np.where(real, start[:, None] + steps, 0)]
    out[~real] = 0
    return out
