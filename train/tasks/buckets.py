"""Batches of rows that are about as long: less padding, one shape for each bucket, all in one program.

Rows are sorted by length, and cut into buckets where that leaves the least padding. Which step trains on
which bucket is fixed for all seeds, so that a batched program of theirs takes one branch; which of a bucket's
rows, is drawn for each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

UNITS = 400  # places where a bucket may end, at most


class Bucket(NamedTuple):
    """Rows `first` onwards, `rows` of them, of at most `time` steps; `batches` of them in a round."""

    first: int
    rows: int
    time: int
    batches: int


def sort(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows by their length, the shortest first."""
    order = np.argsort(arrays["lengths"], kind="stable")
    return {name: np.asarray(array)[order] for name, array in arrays.items()}


def plan(lengths: np.ndarray, count: int, batch_size: int) -> tuple[Bucket, ...]:
    """At most `count` buckets of rows sorted by length, with the fewest steps in all, padding included.

    All but the last one hold whole batches, so that rows are trained on equally often; those of the last one
    nearly so.
    """
    n = len(lengths)
    step = batch_size * max(1, -(-n // (batch_size * UNITS)))
    ends = np.array([*range(step, n - step + 1, step), n])
    times = np.maximum(np.asarray(lengths)[ends - 1], 1).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    # least[k, j]: steps of the first j pieces in k buckets, of which the last one begins at came[k, j].
    units = len(ends)
    cost = (ends[None, :] - starts[:, None]) * times[None, :]  # of a bucket of pieces i..j
    cost = np.where(np.arange(units)[:, None] <= np.arange(units)[None, :], cost, np.iinfo(np.int64).max // 4)
    least = np.full((min(count, units) + 1, units + 1), np.iinfo(np.int64).max // 4)
    came, least[0, 0] = np.zeros(least.shape, int), 0
    for k in range(1, len(least)):
        total = least[k - 1, :units, None] + cost
        came[k, 1:], least[k, 1:] = total.argmin(axis=0), total.min(axis=0)
    k, last, cuts = int(least[1:, units].argmin()) + 1, units, [n]
    while k:
        last, k = int(came[k, last]), k - 1
        cuts.append(int(starts[last]))
    cuts = cuts[::-1]
    return tuple(
        Bucket(first, end - first, int(max(lengths[end - 1], 1)), max(1, round((end - first) / batch_size)))
        for first, end in zip(cuts, cuts[1:], strict=False)
    )


def schedule(buckets: tuple[Bucket, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The bucket of each batch of a round, and the how manieth of that bucket it is; both (batches,)."""
    of = np.concatenate([np.full(bucket.batches, i) for i, bucket in enumerate(buckets)])
    # RandomState, not Generator: NumPy promises that its streams never change.
    of = np.random.RandomState(0).permutation(of).astype(np.int32)
    before = [np.sum(of[:at] == bucket) for at, bucket in enumerate(of)]
    return of, np.array(before, np.int32)


def switch(buckets: tuple[Bucket, ...], step: jax.Array, f: Callable[[Bucket, jax.Array], Any]) -> Any:
    """f(bucket, how manieth of its batches) of the bucket that step `step` trains on."""
    of, number = map(jnp.asarray, schedule(buckets))
    rounds, place = step // len(of), step % len(of)
    branches = [lambda n, bucket=bucket: f(bucket, rounds * bucket.batches + n) for bucket in buckets]
    return jax.lax.switch(of[place], branches, number[place])
