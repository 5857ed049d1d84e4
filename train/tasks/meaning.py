"""What the numbers that a model reads and gives stand for: kept with a run, so that it needs no data."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np


class Scale(NamedTuple):
    """One column: what a model has is (value / size - mean) * factor."""

    size: float
    mean: float
    factor: float


NO_SCALE = Scale(1.0, 0.0, 1.0)


def scaled(scales: tuple[Scale, ...], values: np.ndarray) -> np.ndarray:
    """(..., columns) in a person's units, as a model has them; float64."""
    size, mean, factor = np.asarray(scales, float).T
    with np.errstate(over="ignore"):  # infinite, which is refused
        return (values / size - mean) * factor


def unscaled(scales: tuple[Scale, ...], values: np.ndarray) -> np.ndarray:
    """The inverse of `scaled`."""
    size, mean, factor = np.asarray(scales, float).T
    return (values / factor + mean) * size


@jax.tree_util.register_static  # what is said here is no value of a program
@dataclasses.dataclass(frozen=True)
class Meaning:
    """Of a task's inputs and answers; empty where they stand for themselves."""

    features: tuple[str, ...] = ()  # columns of xs, as a person gives them
    scales: tuple[Scale, ...] = ()  # of these
    gaps: str = (
        ""  # of these, missing ones: "refuse", "indicator" or "skip", as in own data; "": not looked at
    )
    timed: bool = False  # whether the last of these is of time, which has no gaps
    tokens: tuple[str, ...] = ()  # by their number
    classes: tuple[str, ...] = ()  # by their number
    targets: tuple[str, ...] = ()  # what numbers are asked for
    target_scales: tuple[Scale, ...] = ()  # of these

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> "Meaning":
        """The inverse of `to_dict`; what an older version did not write is empty."""
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        given = {name: values.get(name, default) for name, default in known.items()}
        for name, value in given.items():
            if isinstance(value, list):
                given[name] = tuple(Scale(*each) if "scales" in name else each for each in value)
        return cls(**given)

    def inputs(self, xs: np.ndarray, real: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Features in a person's units, (batch, time, features), as the model reads them, float32; and, where
        some steps are passed over, which are not, (batch, time).

        Args:
          real: (batch, time), which steps count; what stands at others does not matter. None: all.

        Raises:
          ValueError: there are not as many, or one is missing and the run has no place for that.
        """
        if not self.scales and self.gaps in ("", "refuse"):
            return xs, None
        xs = np.asarray(xs, float)
        if xs.ndim != 3 or xs.shape[2] != len(self.features):
            names = ", ".join(self.features)
            raise ValueError(f"xs must be (batch, time, {len(self.features)}: {names}), got {xs.shape}")
        if real is not None:
            xs = np.where(real[..., None], xs, 0)
        missing = ~np.isfinite(xs)
        for row, step, feature in np.argwhere(missing)[:1] if self.gaps == "refuse" else ():
            name = self.features[feature]
            raise ValueError(f"xs: {name!r} of row {row}, step {step} is {xs[row, step, feature]}")
        kept = ~missing.any(axis=2) if self.gaps == "skip" and missing.any() else None
        columns = np.where(missing, 0, scaled(self.scales, xs) if self.scales else xs)
        if self.gaps == "indicator":
            own = len(self.features) - self.timed
            parts = [columns[..., :own], missing[..., :own], columns[..., own:]]
            columns = np.concatenate(parts, axis=2)
        with np.errstate(over="ignore"):  # infinite, which is refused
            return columns.astype(np.float32), kept
