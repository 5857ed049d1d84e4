"""Which examples of a person's own data train, and which are held out."""

import dataclasses
import math

import numpy as np

from cells.registry import nearest
from train.tasks import base
from train.tasks.datasets import DataError

PARTS = ("train", *base.SPLITS)
SHARE = 0.15  # of the examples, for each held-out split whose fraction is not said


@dataclasses.dataclass(frozen=True, kw_only=True)
class Divided(base.InMemory):
    """A data set that may come without a split.

    Options:
      valid_fraction, test_fraction: how much of the examples is held out; None: 0.15. A split that the data
        give stands; what they leave out of it is taken from training.
      split_seed: which examples are held out; classes have the same shares in all splits, and one example
        of each always trains.
      max_length: longer sequences or texts lose their end; None: none does.
      class_weights: of the loss, for each class in order, "1,2,0.5"; "balanced": every class has as much
        weight. The metric has none.
    """

    valid_fraction: float | None = None
    test_fraction: float | None = None
    split_seed: int = 0
    max_length: int | None = None
    class_weights: str = ""

    def __post_init__(self):
        base.at_least(self, split_seed=0)
        if self.max_length is not None:
            base.at_least(self, max_length=1)
        for option in ("valid_fraction", "test_fraction"):
            value = getattr(self, option)
            number = value is None or isinstance(value, float) and 0 < value < 1
            base.require(self, option, number, "between 0 and 1")
        base.require(self, "valid_fraction", sum(self.fractions().values()) < 1, "so small that some train")
        right = self.class_weights in ("", "balanced") or self._own_weights() is not None
        wanted = "empty, balanced, or numbers of 0 or more as 1,2,0.5, not all alike"
        base.require(self, "class_weights", right, wanted)

    def fractions(self) -> dict[str, float]:
        """Of the held-out splits."""
        given = {"valid": self.valid_fraction, "test": self.test_fraction}
        return {split: SHARE if value is None else value for split, value in given.items()}

    def _own_weights(self) -> list[float] | None:
        """Those of classes that are spelt out, if they are all right."""
        try:
            weights = [float(text) for text in self.class_weights.split(",")]
        except (AttributeError, ValueError):
            return None
        alike = len(set(weights)) == 1
        return None if alike or not all(0 <= weight < math.inf for weight in weights) else weights

    def loss_weights(self, classes: np.ndarray) -> np.ndarray:
        """(classes,) weights, of how much each class has in training without them."""
        if not self.class_weights:
            return np.ones(len(classes))
        if self.class_weights == "balanced":
            return classes.sum() / (len(classes) * np.where(classes > 0, classes, 1))
        if len(weights := self._own_weights()) != len(classes):
            raise DataError(
                f"{self.name}: class_weights has {len(weights)} numbers, and there are {len(classes)} classes"
            )
        return np.array(weights)

    def cut(self, lengths: np.ndarray, what: str) -> int:
        """How many are longer than `max_length`.

        Raises:
          DataError: none is, of which it would cut some.
        """
        if self.max_length is None:
            return 0
        if self.max_length >= (longest := lengths.max()):
            said = f"max_length={self.max_length} has no effect: the longest {what} has {longest} steps"
            raise DataError(f"{self.name}: {said}")
        return int((lengths > self.max_length).sum())

    def divide(self, place: str, labels: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        """The split of each example.

        Args:
          place: what error lines call the data.
          labels: (n,) of which each has the same share in all splits.
          given: (n,) names of splits, or None.

        Returns:
          (n,) int: a place in PARTS.

        Raises:
          DataError: a name that is none, an option that would not act, or too few examples.
        """
        n = len(labels)
        split = np.zeros(n, int)
        if given is not None:
            split = self._places(place, given)
        todo = [part for part in (2, 1) if not (split == part).any()]
        if self.split_seed and not todo:
            raise DataError(f"{self.name}: split_seed={self.split_seed} has no effect: {place} has its split")
        for part in {1, 2} - set(todo):
            if getattr(self, option := f"{PARTS[part]}_fraction") is not None:
                raise DataError(f"{self.name}: {option} has no effect: {place} says what {PARTS[part]} is")
        rows = np.flatnonzero(split == 0)
        order = rows[np.random.default_rng(self.split_seed).permutation(len(rows))]
        order = order[np.argsort(labels[order], kind="stable")]
        first = np.r_[True, labels[order][1:] != labels[order][:-1]][: len(order)]
        pool = order[~first]
        counts = {part: max(1, round(self.fractions()[PARTS[part]] * len(rows))) for part in todo}
        if len(pool) < sum(counts.values()):
            raise DataError(
                f"{self.name}: {place} has {n} example{'s' * (n > 1)}, too few to hold out "
                f"{' and '.join(f'{count} for {PARTS[part]}' for part, count in counts.items())}"
                f"{': one of each class trains' if first.sum() > 1 else ''}"
            )
        for part, count in counts.items():  # evenly spaced where sorted by label
            chosen = pool[((np.arange(count) + 0.5) * len(pool) / count).astype(int)]
            split[chosen] = part
            pool = pool[split[pool] == 0]
        return split

    def _places(self, place: str, given: np.ndarray) -> np.ndarray:
        names = np.asarray(given).astype(str)
        for wrong in names[~np.isin(names, PARTS)].tolist()[:1]:
            raise DataError(f"{place}: unknown split {wrong!r}; {nearest(wrong, PARTS)}")
        split = sum((names == part) * i for i, part in enumerate(PARTS))
        if not (split == 0).any():
            raise DataError(f"{place}: no example is in the split 'train'")
        return split

    def split_said(self, counts: dict[str, int], drawn: bool) -> str:
        """How many examples each split has, in words."""
        numbers = "/".join(f"{counts[part]:,}" for part in PARTS)
        return f"split {numbers}" + (f" (seed {self.split_seed})" if drawn else "")
