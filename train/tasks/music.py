"""Polyphonic music: which keys of a piano sound in the next frame.

Sources: Boulanger-Lewandowski et al. 2012, "Modeling temporal dependencies in high-dimensional sequences";
files and splits as in Bai et al. 2018, "An empirical evaluation of generic convolutional and recurrent
networks" (TCN).
"""

import dataclasses
import io
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from cells.registry import nearest
from train.tasks import base, datasets
from train.tasks.datasets import DataError
from train.tasks.meaning import Meaning

KEYS = 88


class Set(NamedTuple):
    file: str
    threshold: float  # nats a frame, where published recurrent networks arrive


SETS = {
    "jsb": Set("JSB_Chorales.mat", 8.9),
    "nottingham": Set("Nottingham.mat", 4.0),
    "muse": Set("MuseData.mat", 7.0),
    "piano": Set("Piano_midi.mat", 8.5),
}
NAMES = {"train": "traindata", "valid": "validdata", "test": "testdata"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Music(base.InMemory):
    """Piano rolls of chorales, tunes, orchestral and piano pieces: after each frame the keys of the next.

    Keys are on or off independently of each other given the frames before; a frame costs the negative
    log-likelihood of its 88 keys, in nats, and all frames count alike, whichever piece they are of. The first
    frame of a piece is given, as in the TCN paper.

    xs (batch, time, 88) float32, 1 where a key sounds; ys the same, one frame later.

    Options:
      dataset: "jsb", "nottingham", "muse" or "piano".
    """

    name: ClassVar[str] = "music"
    input_kind: ClassVar[str] = "features"
    per_step: ClassVar[bool] = True
    dataset: str = "jsb"

    def __post_init__(self):
        known = isinstance(self.dataset, str) and self.dataset in SETS
        base.require(self, "dataset", known, f"a known set ({nearest(self.dataset, SETS)})")

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=KEYS,
            output_size=KEYS,
            per_step=self.per_step,
            pooling="last",
            loss="binary_cross_entropy",
            metric="frame_nll",
            threshold=SETS[self.dataset].threshold,
            baseline=frequencies_nll(data),
            time=data["train"]["xs"].shape[1] - 1,
            looks_ahead=True,
        )

    def meaning(self, data):
        keys = tuple(f"key {number}" for number in range(1, KEYS + 1))
        return Meaning(features=keys, targets=keys)

    def load(self, data_dir=None):
        """{"train" | "valid" | "test": {"xs": (n, time + 1, 88) uint8, "lengths": (n,) int32}}; lengths are
        without the first frame."""
        rolls = parse(datasets.read(SETS[self.dataset].file, data_dir))
        frames = max(len(roll) for split in rolls.values() for roll in split)
        return {split: padded(rolls[split], frames) for split in NAMES}

    def check(self, data):
        for split, part in data.items():
            for row, (roll, length) in enumerate(zip(part["xs"], part["lengths"], strict=True)):
                if length < 1 or roll.max(initial=0) > 1:
                    raise DataError(
                        f"music, {split}, row {row}: not two frames or more of keys that are 0 or 1"
                    )

    def example(self, stored):
        rolls = stored["xs"].astype(jnp.float32)
        return rolls[:, :-1], rolls[:, 1:]


def parse(raw: bytes) -> dict[str, list[np.ndarray]]:
    """A MATLAB file's rolls by split, (frames, 88) uint8 each.

    Raises:
      DataError: it holds something else.
    """
    from scipy.io import loadmat  # half a second to import

    try:
        content = loadmat(io.BytesIO(raw))
        rolls = {split: [np.asarray(roll) for roll in content[name][0]] for split, name in NAMES.items()}
    except Exception as error:  # scipy raises many kinds
        raise DataError(f"no piano rolls in it: {type(error).__name__}: {error}") from error
    for split in rolls.values():
        if not split or any(roll.ndim != 2 or roll.shape[1] != KEYS for roll in split):
            raise DataError(f"piano rolls must be (frames, {KEYS})")
    return {name: [roll.astype(np.uint8) for roll in split] for name, split in rolls.items()}


def padded(rolls: list[np.ndarray], frames: int) -> dict[str, np.ndarray]:
    """Rolls of different lengths as one array, zeros after their end."""
    xs = np.zeros((len(rolls), frames, KEYS), np.uint8)
    for row, roll in zip(xs, rolls, strict=True):
        row[: len(roll)] = roll
    return {"xs": xs, "lengths": np.array([len(roll) - 1 for roll in rolls], np.int32)}


def frequencies_nll(data) -> float:
    """Nats a frame of the validation split, where each key is as likely as in training at any time."""

    def counts(part):
        xs, lengths = np.asarray(part["xs"]), np.asarray(part["lengths"])
        real = np.arange(1, xs.shape[1]) <= lengths[:, None]
        return xs[:, 1:][real].sum(axis=0, dtype=np.int64), int(real.sum())

    (on, frames), (valid_on, valid_frames) = counts(data["train"]), counts(data["valid"])
    p = (on + 1) / (frames + 2)  # a key that training never has is not impossible
    share = valid_on / valid_frames
    return float(-(share * np.log(p) + (1 - share) * np.log1p(-p)).sum())
