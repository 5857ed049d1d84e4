"""Sequential and permuted MNIST (Le, Jaitly & Hinton 2015, "A simple way to initialize recurrent networks of
rectified linear units"); the data: LeCun et al. 1998."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.tasks import base, datasets, images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mnist(images.Images):
    """Handwritten digits of 28x28 pixels, some pixels a step: which digit is it?

    55,000 training, 5,000 validation and 10,000 test images; the test images are the original ones.

    The last 5,000 training images, after a shuffle that never changes, are the validation split.

    Options:
      permuted: the pixels of all images are in one random order, so that neighbours are far apart in time.
      permutation_seed: which order; 0 where there is none.
    """

    name: ClassVar[str] = "mnist"
    pixels: ClassVar[int] = 784
    white: ClassVar[int] = 255
    permuted: bool = False
    permutation_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "permuted", isinstance(self.permuted, bool), "True or False")
        base.at_least(self, permutation_seed=0)
        ordered = self.permuted or self.permutation_seed == 0
        base.require(self, "permutation_seed", ordered, "0 unless permuted")

    def solved(self):
        return 0.90 if self.permuted else 0.95

    def load(self, data_dir=None):
        def read(part):
            xs = parse(datasets.read(f"{part}-images-idx3-ubyte", data_dir))
            ys = parse(datasets.read(f"{part}-labels-idx1-ubyte", data_dir))
            return xs.reshape(len(ys), self.pixels), ys.astype(np.int32)

        data = images.splits(read("train"), read("t10k"))
        if self.permuted:
            pixels = np.random.RandomState(self.permutation_seed).permutation(self.pixels)
            data = {split: part | {"xs": part["xs"][:, pixels]} for split, part in data.items()}
        return data


@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutedMnist(Mnist):
    """Handwritten digits, their pixels in one random order for all images: which digit is it? See `Mnist`."""

    name: ClassVar[str] = "permuted_mnist"
    permuted: bool = True

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "permuted", self.permuted, "True: without, it is mnist")


def parse(raw: bytes) -> np.ndarray:
    """The uint8 array in an idx file: two zeros, a type, the rank, big-endian int32 sizes, the values."""
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
