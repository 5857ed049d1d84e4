"""Sequences of any length, as they are read, before they are a task's rows."""

from typing import NamedTuple

import numpy as np

from train.tasks.datasets import DataError

STEPS = ("mask", "resets", "times")  # of each step, whatever is asked
KEYS = ("xs", "ys", "lengths", *STEPS, "weights", "split")


class Sequences(NamedTuple):
    """Rows of different lengths: the steps of all of them, one after the other."""

    place: str  # what error lines call the data
    names: list[str]  # and each row
    lengths: np.ndarray  # (rows,) int
    xs: np.ndarray  # (steps, features) float64, or (steps,) int64: tokens
    features: list[str]
    ys: np.ndarray | None = None  # (rows, ...) or, for an answer at every step, (steps, ...)
    weights: np.ndarray | None = None  # (rows,) or (steps,) float64, as ys
    mask: np.ndarray | None = None  # (steps,) bool, as resets
    resets: np.ndarray | None = None
    times: np.ndarray | None = None  # (steps,) float64 or int64
    split: np.ndarray | None = None  # (rows,) text
    targets: tuple[int, ...] | None = None  # which features are forecast, where ys are features
    unused: bool = False  # whether there are ys that are not asked for

    @property
    def starts(self) -> np.ndarray:
        """(rows,) where each row's first step is."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def real(self) -> np.ndarray:
        """(steps,) bool, which are not skipped."""
        return np.ones(len(self.xs), bool) if self.mask is None else self.mask

    def where(self, step: int) -> str:
        """What a person calls a step."""
        row = int(np.searchsorted(np.cumsum(self.lengths), step, side="right"))
        return f"{self.row(row)}, step {step - self.starts[row]}"

    def row(self, row: int) -> str:
        """What a person calls a sequence."""
        return self.place if self.names[row] == self.place else f"{self.place}, {self.names[row]}"


def ragged(
    rows: list[dict[str, np.ndarray]], names: list[str], place: str, per_step: bool, targets: bool = True
) -> Sequences:
    """Sequences of one row each: {"xs": (time,) or (time, features), "ys": ...}; ys only with `targets`."""
    if not rows:
        raise DataError(f"{place}: no sequence in it")
    if not targets and "ys" in rows[0]:
        rows = [{key: array for key, array in row.items() if key != "ys"} for row in rows]
        return ragged(rows, names, place, per_step)._replace(unused=True)
    stepwise = {"xs", *STEPS} | ({"ys", "weights"} if per_step else set())
    for row, name in zip(rows, names, strict=True):
        for key, array in row.items():
            first = rows[0][key]
            if key in stepwise and (array.ndim == 0 or array.shape[:1] != row["xs"].shape[:1]):
                raise DataError(f"{place}, {name}: {key} has shape {array.shape}, xs {row['xs'].shape}")
            if _kind(key, array) != _kind(key, first):
                raise DataError(
                    f"{place}: {key} is {first.dtype} in {names[0]}, and {array.dtype} in {name}: tokens are "
                    "integers and features floats, in all of them"
                    if key == "xs"
                    else f"{place}: {key} is {first.dtype} in {names[0]}, and {array.dtype} in {name}"
                )
            inner = array.shape[1:] if key in stepwise else array.shape
            if inner != (first.shape[1:] if key in stepwise else first.shape):
                raise DataError(
                    f"{place}: {key} has shape {first.shape} in {names[0]}, {array.shape} in {name}"
                )
    lengths = np.array([len(row["xs"]) for row in rows])
    flat = {
        key: (np.concatenate if key in stepwise else np.stack)([row[key] for row in rows]) for key in rows[0]
    }
    return _made(flat, lengths, names, place)


def _kind(key: str, array: np.ndarray) -> str:
    """What arrays of one name must be alike in: tokens or features, text or numbers."""
    if array.dtype.kind not in "biuf":
        return "text"
    return "tokens" if key == "xs" and array.ndim == 1 and array.dtype.kind in "iu" else "numbers"


def dense(arrays: dict[str, np.ndarray], place: str, per_step: bool, targets: bool = True) -> Sequences:
    """Sequences of padded arrays: {"xs": (rows, time) or (rows, time, features), "ys": ...}; as `ragged`."""
    if not targets and "ys" in arrays:
        arrays = {key: array for key, array in arrays.items() if key != "ys"}
        return dense(arrays, place, per_step)._replace(unused=True)
    if "xs" not in arrays:
        raise DataError(f"{place}: no array 'xs' in it")
    xs = arrays["xs"]
    if xs.ndim not in (2, 3):
        hint = "; of a single series xs[None]" if xs.ndim == 1 else ""
        raise DataError(f"{place}: xs must be (rows, time) or (rows, time, features), got {xs.shape}{hint}")
    n, time = xs.shape[:2]
    if not xs.size:
        raise DataError(f"{place}: xs has no values, its shape is {xs.shape}")
    stepwise = {"xs", *STEPS} | ({"ys", "weights"} if per_step else set())
    lengths = arrays.get("lengths", np.full(n, time))
    for key, array in arrays.items():
        if array.ndim == 0 or len(array) != n:
            raise DataError(f"{place}: {n} rows in xs, and {key} has shape {array.shape}")
        wanted = (n, time) if key in stepwise else (n,)
        whole = array.shape if key not in ("xs", "ys") else array.shape[: len(wanted)]
        if whole != wanted:
            raise DataError(f"{place}: {key} must be {_shape(wanted, key)}, got {array.shape}")
    if lengths.dtype.kind not in "iu":
        raise DataError(f"{place}: lengths must be integers, got {lengths.dtype}")
    for row in np.flatnonzero((lengths < 0) | (lengths > time))[:1]:
        raise DataError(f"{place}, row {row}: the length {lengths[row]} is not in 0..{time}")
    real = np.arange(time) < lengths[:, None]
    flat = {key: array for key, array in arrays.items() if key != "lengths"}
    for key in flat.keys() & stepwise:
        flat[key] = flat[key][real]
    return _made(flat, lengths.astype(int), [f"row {row}" for row in range(n)], place)


def _shape(wanted: tuple, key: str) -> str:
    return f"{wanted} or {(*wanted, 'k')}".replace("'", "") if key == "ys" else str(wanted)


def _made(flat: dict[str, np.ndarray], lengths, names, place: str) -> Sequences:
    """Types of what was read."""
    xs = flat.pop("xs")
    if xs.dtype.kind not in "iufb" or xs.ndim > 2:
        raise DataError(
            f"{place}: xs must be numbers, (rows, time) or (rows, time, features), got {xs.dtype}"
        )
    if xs.ndim == 1 and xs.dtype.kind in "iu":
        for step in np.flatnonzero((xs < 0) | (xs >= 2**31))[:1]:
            made = Sequences(place, names, lengths, xs, [])
            raise DataError(f"{made.where(step)}: {xs[step]} is no token; as features xs are floats")
        xs, features = xs.astype(np.int64), []
    else:
        xs = (xs[:, None] if xs.ndim == 1 else xs).astype(float)
        features = [f"feature {i}" for i in range(xs.shape[1])]
    for key, kind in {"weights": float, "times": float, "mask": bool, "resets": bool}.items():
        if key in flat:
            if flat[key].dtype.kind not in "biuf" or kind is bool and not np.isin(flat[key], (0, 1)).all():
                raise DataError(f"{place}: {key} must be {'True or False' if kind is bool else 'numbers'}")
            whole = key == "times" and flat[key].dtype.kind in "iu" and flat[key].dtype != np.uint64
            flat[key] = flat[key].astype(np.int64 if whole else kind)
    return Sequences(place, names, lengths, xs, features, **flat)


def joined(place: str, parts: dict[str, Sequences]) -> Sequences:
    """The splits' sequences as one, which knows the splits.

    Raises:
      DataError: they do not fit together.
    """
    each = list(parts.values())
    for other in each:
        if other.split is not None:
            raise DataError(f"{other.place}: split is said twice")
        if other.xs.shape[1:] != each[0].xs.shape[1:] or bool(other.features) != bool(each[0].features):
            raise DataError(f"{other.place}: not the features that {each[0].place} has")
        for field, one, two in zip(Sequences._fields, each[0], other, strict=True):
            if (one is None) != (two is None):
                raise DataError(f"{place}: {field} is not in all splits")
        if other.ys is not None and other.ys.shape[1:] != each[0].ys.shape[1:]:
            raise DataError(f"{other.place}: not the targets that {each[0].place} has")
        if other.ys is not None and _kind("ys", other.ys) != _kind("ys", each[0].ys):
            raise DataError(
                f"{other.place}: targets are {other.ys.dtype}, in {each[0].place} {each[0].ys.dtype}"
            )
    arrays = {
        field: np.concatenate([getattr(part, field) for part in each])
        for field in ("lengths", "xs", "ys", "weights", "mask", "resets", "times")
        if getattr(each[0], field) is not None
    }
    names = [f"{part}, {name}" for part, rows in parts.items() for name in rows.names]
    split = np.repeat(list(parts), [len(part.names) for part in each])
    more = {"features": each[0].features, "unused": any(part.unused for part in each)}
    return Sequences(place=place, names=names, split=split, **more, **arrays)
