"""Images read as sequences: what their tasks share."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from train.tasks import base
from train.tasks.meaning import Meaning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(base.InMemory):
    """Images of ten classes, scanned row by row from the top left, a few pixels a step.

    xs (batch, pixels / pixels_per_step, pixels_per_step * channels) float32 in [0, 1]. ys (batch,) int32.
    Pixels are divided by `white`: no statistics of any split are used.

    Options:
      pixels_per_step: divides the number of pixels; the width of the image makes it a row a step.
    """

    input_kind: ClassVar[str] = "features"
    pixels: ClassVar[int]
    white: ClassVar[int]  # the value of a white pixel
    channels: ClassVar[int] = 1  # numbers of a pixel
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    pixels_per_step: int = 1

    def __post_init__(self):
        base.at_least(self, pixels_per_step=1)
        divides = self.pixels % self.pixels_per_step == 0
        base.require(self, "pixels_per_step", divides, f"a divisor of {self.pixels}")

    def solved(self) -> float:
        """The accuracy that counts as solved."""
        return 0.95

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=self.pixels_per_step * self.channels,
            output_size=10,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=self.solved(),
            baseline=base.majority(data),
            time=self.pixels // self.pixels_per_step,
        )

    def meaning(self, data):
        return Meaning(classes=self.classes)

    def inputs(self, xs):
        steps = self.pixels // self.pixels_per_step
        return xs.reshape(len(xs), steps, -1).astype(jnp.float32) / self.white


def splits(train: tuple, test: tuple) -> dict[str, dict[str, np.ndarray]]:
    """As in `base.InMemory`, of (xs, ys): the last 5,000 training images, after a shuffle that never changes,
    are for validation."""
    # RandomState, not Generator: NumPy promises that its streams never change.
    order = np.random.RandomState(0).permutation(len(train[1]))
    rows = {"train": order[:-5000], "valid": order[-5000:]}
    parts = {split: [part[chosen] for part in train] for split, chosen in rows.items()} | {"test": test}
    return {split: {"xs": xs, "ys": ys} for split, (xs, ys) in parts.items()}
