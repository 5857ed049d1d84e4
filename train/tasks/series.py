"""The sets of series that the package aeon ships: classification, regression, forecasting.

Sources: the UCR and UEA archives (Dau et al. 2019; Bagnall et al. 2018), Tan et al. 2021 for regression; see
`aeon.datasets`.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from cells.registry import nearest
from train.tasks import base
from train.tasks.datasets import DataError
from train.tasks.own.sequences import Sequences, joined, ragged
from train.tasks.own.task import Own

CLASSES = (
    "ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf",
    "PickupGestureWiimoteZ", "UnitTest",
)  # fmt: skip
NUMBERS = ("CardanoSentiment", "Covid3Month")
SETS = (*CLASSES, *NUMBERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series(Own):
    """One or several features over time, in the sets' own split; the rows to validate are taken from those
    that train. Needs the extra `series`.

    Options:
      dataset: one of SETS. Of CLASSES a "class" is asked for, of NUMBERS a "number", of all the "forecast".
    """

    name: ClassVar[str] = "series"
    input_kind: ClassVar[str] = "features"
    answers: ClassVar[tuple[str, ...]] = ("class", "number", "forecast")
    dataset: str = "BasicMotions"

    def __post_init__(self):
        super().__post_init__()
        known = isinstance(self.dataset, str) and self.dataset in SETS
        base.require(self, "dataset", known, f"a known set ({nearest(self.dataset, SETS)})")
        asked = "class" if self.dataset in CLASSES else "number"
        fits = self.answer in (asked, "forecast")
        base.require(self, "answer", fits, f"{asked} or forecast with dataset={self.dataset}")
        base.require(self, "test_fraction", self.test_fraction is None, "None: the sets have a test split")
        base.require(self, "split_by", self.split_by == "sequence", "sequence: the sets have a split")
        base.require(self, "times", self.times == "none", "none: the sets have no time stamps")

    def source(self):
        return self.dataset

    def read(self, data_dir):
        try:
            from aeon.datasets import load_classification, load_regression
        except ImportError as error:
            cause = " ".join(str(error).split())
            raise DataError(
                f"series: install the extra 'series', pip install '.[series]': {cause}"
            ) from error
        load = load_classification if self.dataset in CLASSES else load_regression
        return joined(self.dataset, {split: self._of_split(load, split) for split in ("train", "test")})

    def _of_split(self, load, split: str) -> Sequences:
        xs, ys = load(self.dataset, split=split)  # (features, time) each
        rows = [{"xs": np.asarray(x).T, "ys": np.asarray(y)} for x, y in zip(xs, ys, strict=True)]
        names = [f"row {i}" for i in range(len(rows))]
        return ragged(rows, names, self.dataset, self.per_step, targets=self.answer != "forecast")
