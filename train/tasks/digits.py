"""Scikit-learn's 8x8 handwritten digits, a pixel a step: real data that needs no download.

Source: the test part of Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits" (UCI), 1,797
images with pixel values 0 to 16.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from train.tasks import images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(images.Images):
    """Handwritten digits of 8x8 pixels, some pixels a step: which digit is it?

    1,257 training, 180 validation and 360 test images: a stratified split that never changes.
    """

    name: ClassVar[str] = "digits"
    pixels: ClassVar[int] = 64
    white: ClassVar[int] = 16

    def load(self, data_dir=None):
        # Imported here: scikit-learn takes a second, and no other task needs it.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        xs, ys = load_digits(return_X_y=True)
        rest, test = train_test_split(np.arange(len(ys)), test_size=360, random_state=0, stratify=ys)
        train, valid = train_test_split(rest, test_size=180, random_state=0, stratify=ys[rest])
        splits = {"train": train, "valid": valid, "test": test}
        xs, ys = xs.astype(np.uint8), ys.astype(np.int32)
        return {split: {"xs": xs[rows], "ys": ys[rows]} for split, rows in splits.items()}
