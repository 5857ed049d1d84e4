"""Your own arrays or table: classification, regression, an answer at every step, forecasting."""

import dataclasses
from typing import ClassVar

from train.tasks import base
from train.tasks.datasets import DataError
from train.tasks.own import files
from train.tasks.own.task import Own

OF_TABLES = {"sequence": "sequence", "step": "step", "target": "", "features": ""}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays(Own):
    """Sequences of a file or folder; what a .npz or a folder of .npy files holds: `train.tasks.own.files`.

    A .csv has a line for each step: columns that name the sequence and the step (a number or a date), the
    target, perhaps `weight` and `split` (train, valid or test); all others are features. Lines may stand in
    any order, and have a field for each column. Of one answer for a sequence it is enough that one of its
    lines has the target. Sequences and classes are integers where all are plain ones (2, 2.0), else text: 007
    is not 7. Empty, NA, nan, null or None is a number or class that is missing. The nameless first column
    0, 1, 2, ... that pandas writes is passed over.

    Options:
      path: of a .npz, a .csv or a folder; looked for here, then where other data sets are.
      sequence: column of a .csv that names the sequence; empty: there is one.
      step: column that orders its lines, a number (20240131, too) or a date as 2024-01-31 12:00; empty: as
        they stand.
      target: column, or columns with commas between; empty: "target", and of a forecast all features.
      features: columns with commas between; empty: all that are nothing else.
    """

    name: ClassVar[str] = "arrays"
    path: str = ""
    sequence: str = "sequence"
    step: str = "step"
    target: str = ""
    features: str = ""

    def __post_init__(self):
        super().__post_init__()
        for option in ("path", *OF_TABLES):
            base.require(self, option, isinstance(getattr(self, option), str), "text")
        one = not self.answer.startswith("class") or len(_names(self.target)) < 2
        base.require(self, "target", one, f"one column with answer={self.answer}")
        for option in ("target", "features"):
            names = _names(getattr(self, option))
            base.require(self, option, len(set(names)) == len(names), "each column once")
            base.require(self, option, self.sequence not in names, "other columns than that of the sequence")
        given = self.answer != "forecast" and set(self._targets()) & set(_names(self.features))
        base.require(self, "features", not given, "other columns than the target, which is the answer")

    def _targets(self) -> tuple[str, ...]:
        return _names(self.target) or (() if self.answer == "forecast" else ("target",))

    def source(self):
        return self.path

    def read(self, data_dir):
        path = files.find(self.name, self.path, "a .npz, a .csv or a folder of .npy files", data_dir)
        if path.is_dir() or path.suffix.lower() == ".npz":
            for option, default in OF_TABLES.items():
                if (given := getattr(self, option)) != default:
                    raise DataError(f"{self.name}: {option}={given} has no effect: {self.path} is no .csv")
            return files.read(path, self.path, self.per_step, self.answer != "forecast")
        if path.suffix.lower() != ".csv":
            raise DataError(f"{self.name}: {self.path} must be a .npz, a .csv or a folder")
        from train.tasks.own import tables  # pandas takes a second to import

        forecast, classes = self.answer == "forecast", self.answer.startswith("class")
        asked = (self._targets(), _names(self.features), forecast, self.per_step, classes)
        return tables.read(path, self.path, tables.Columns(self.sequence, self.step, *asked))


def _names(text: str) -> tuple[str, ...]:
    """Those between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
