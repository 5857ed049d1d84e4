"""Images read as sequences: what the digit tasks share."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from train.tasks import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(base.InMemory):
    """Grey images of ten classes, scanned row by row from the top left, a few pixels a step.

    xs (batch, pixels / pixels_per_step, pixels_per_step) float32 in [0, 1]. ys (batch,) int32. Pixels are
    divided by `white`: no statistics of any split are used.

    Options:
      pixels_per_step: divides the number of pixels; the width of the image makes it a row a step.
    """

    input_kind: ClassVar[str] = "features"
    pixels: ClassVar[int]
    white: ClassVar[int]  # the value of a white pixel
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
            input_size=self.pixels_per_step,
            output_size=10,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=self.solved(),
            baseline=base.majority(data["train"]["ys"]),
            time=self.pixels // self.pixels_per_step,
        )

    def inputs(self, xs):
        steps = self.pixels // self.pixels_per_step
        return xs.reshape(-1, steps, self.pixels_per_step).astype(jnp.float32) / self.white
