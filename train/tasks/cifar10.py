"""Sequential CIFAR-10 (Trinh et al. 2018, "Learning longer-term dependencies in RNNs with auxiliary losses";
in grey Tay et al. 2021, "Long range arena"); the data: Krizhevsky 2009."""

import dataclasses
import io
import tarfile
from typing import ClassVar

import numpy as np

from train.tasks import base, datasets, images
from train.tasks.datasets import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
PIXELS = 32 * 32
LUMA = (0.2989, 0.5870, 0.1140)  # of red, green, blue: ITU-R BT.601


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cifar10(images.Images):
    """Small photographs, scanned row by row, some pixels a step: which of ten things is it, such as a cat?

    45,000 training, 5,000 validation and 10,000 test images; the test images are the original ones, the
    validation split the last of the training images after a shuffle that never changes. A pixel is its red,
    green and blue.

    Options:
      grey: a pixel is one number, its brightness, as in the Long range arena.
    """

    name: ClassVar[str] = "cifar10"
    pixels: ClassVar[int] = PIXELS
    white: ClassVar[int] = 255
    classes: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    grey: bool = False

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "grey", isinstance(self.grey, bool), "True or False")

    @property
    def channels(self):
        return 1 if self.grey else 3

    def solved(self):
        return 0.6  # of colour, pixel by pixel, LSTM has 0.63: Gu et al. 2022 (S4), table 5

    def load(self, data_dir=None):
        batches = parse(datasets.read(ARCHIVE, data_dir))
        if self.grey:
            batches = {name: (brightness(xs), ys) for name, (xs, ys) in batches.items()}
        train = [batches[f"data_batch_{i}.bin"] for i in range(1, 6)]
        xs, ys = (np.concatenate(parts) for parts in zip(*train, strict=True))
        return images.splits((xs, ys), batches["test_batch.bin"])


def parse(raw: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """File name -> images (n, 3072) uint8, three numbers for each pixel, and labels (n,) int32.

    Each record of a file is a label and then 1,024 reds, greens and blues.

    Raises:
      DataError: the archive holds something else.
    """
    batches = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
            for member in archive:
                if member.name.endswith(".bin"):
                    records = np.frombuffer(archive.extractfile(member).read(), np.uint8)
                    records = records.reshape(-1, 1 + 3 * PIXELS)
                    xs = records[:, 1:].reshape(-1, 3, PIXELS).swapaxes(1, 2)
                    name = member.name.rsplit("/", 1)[-1]
                    batches[name] = xs.reshape(-1, 3 * PIXELS), records[:, 0].astype(np.int32)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{ARCHIVE}: no images in it: {type(error).__name__}: {error}") from error
    if missing := {*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"} - batches.keys():
        raise DataError(f"{ARCHIVE}: no {min(missing)} in it")
    return batches


def brightness(xs: np.ndarray) -> np.ndarray:
    """(n, 3 * pixels) colours as (n, pixels) uint8."""
    return np.rint(xs.reshape(len(xs), -1, 3) @ np.array(LUMA, np.float32)).astype(np.uint8)
