"""Text, character by character: which one comes next.

Sources: Mikolov et al. 2012, "Subword language modeling with neural networks" (Penn Treebank and its split);
Graves 2013, "Generating sequences with recurrent neural networks" (enwik8, and state that is kept).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from cells.registry import nearest
from train.tasks import base, datasets
from train.tasks.datasets import DataError
from train.tasks.meaning import Meaning
from train.tasks.own import files

PTB = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")
FILES = {
    "ptb": PTB,
    "shakespeare": ("tinyshakespeare.txt",),
    "war_and_peace": ("warandpeace.txt",),
    "dickens": ("dickens",),
    "xml": ("xml",),
    "enwik8": ("enwik8",),
}
OWN = "own"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(base.Task):
    """Penn Treebank, books, XML, enwik8 or a text of yours: after each character the next one.

    A character is a byte. Rows read on: row i of a batch begins where row i of the batch before ended, and
    with the state of then, so that a gradient reaches back `length` characters, the state to the beginning.
    Every row has a part of the text of its own, which it reads once in an epoch; where it begins, within
    `length`, is drawn anew for each epoch and seed. Held-out text is read by as many rows as
    train.eval_batch_size says, whose first characters are guessed without what stands before them.

    Penn Treebank has its split, and a line of it is its words and a line end; of the others the first 90 %
    are for training, the next 5 % for validation. Metric: bits per character; solved is half of what the
    frequencies of characters alone cost on the validation split.

    xs, ys (batch, length) int32: places in the sorted list of all bytes that the text has.

    Options:
      dataset: "ptb", "shakespeare", "war_and_peace", "dickens", "xml", "enwik8" or "own".
      path: the file of your own text; looked for here, then where other data sets are.
      length: characters of a row that an optimiser step reads.
      valid_limit: only so many characters are scored while training; 0: all of the split.
    """

    name: ClassVar[str] = "text"
    input_kind: ClassVar[str] = "tokens"
    per_step: ClassVar[bool] = True
    dataset: str = "ptb"
    path: str = ""
    length: int = 128
    valid_limit: int = 0

    def __post_init__(self):
        sets = (*FILES, OWN)
        known = isinstance(self.dataset, str) and self.dataset in sets
        base.require(self, "dataset", known, f"a known text ({nearest(self.dataset, sets)})")
        base.at_least(self, length=1, valid_limit=0)
        if self.dataset == OWN:
            base.require(self, "path", bool(self.path), "the file of your text, with dataset=own")
        base.require(self, "path", not self.path or self.dataset == OWN, "empty, or dataset 'own'")

    def spec(self, data):
        bits = frequencies_bits(data)
        return base.Spec(
            inputs=self.input_kind,
            input_size=len(data["alphabet"]),
            output_size=len(data["alphabet"]),
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="bits_per_character",
            threshold=bits / 2,
            baseline=bits,
            time=self.length,
            reads_on=True,
        )

    def load(self, data_dir=None):
        """{"train" | "valid" | "test": (n,) uint8, "alphabet": (characters,) uint8, the byte of each}."""
        splits = self.splits(data_dir)
        alphabet = np.unique(np.concatenate(list(splits.values())))
        data = {split: np.searchsorted(alphabet, text).astype(np.uint8) for split, text in splits.items()}
        if self.valid_limit:
            data["valid"] = data["valid"][: self.valid_limit + 1]
        return data | {"alphabet": alphabet}

    def meaning(self, data):
        names = tuple(map(chr, np.asarray(data["alphabet"])))
        return Meaning(tokens=names, classes=names)

    def as_tokens(self, text):
        return list(map(chr, text.encode()))

    def splits(self, data_dir: str | None = None) -> dict[str, np.ndarray]:
        """The bytes of each split, (n,) uint8."""
        if self.dataset == "ptb":
            parts = [lines_stripped(datasets.read(name, data_dir)) for name in PTB]
        else:
            own = self.dataset == OWN
            raw = read_own(self.path, data_dir) if own else datasets.read(*FILES[self.dataset], data_dir)
            held_out = len(raw) // 20
            ends = (0, len(raw) - 2 * held_out, len(raw) - held_out, len(raw))
            parts = [raw[first:last] for first, last in zip(ends, ends[1:], strict=False)]
        return {
            split: np.frombuffer(part, np.uint8)
            for split, part in zip(("train", *base.SPLITS), parts, strict=True)
        }

    def check(self, data):
        for split in ("train", *base.SPLITS):
            if len(data[split]) < 2:
                raise DataError(f"text, {split}: {len(data[split])} characters; two are the least")

    def train_batch(self, data, key, step, batch_size):
        text = data["train"]
        each = (len(text) - 1) // batch_size
        pieces = each // self.length - 1  # of a row in an epoch; what is left lets it begin elsewhere
        if pieces < 1:
            raise ValueError(
                f"text: {len(text)} characters are too few for {batch_size} rows of two pieces of "
                f"{self.length}; take a smaller task.length or train.batch_size"
            )
        begin = jax.random.randint(jax.random.fold_in(key, step // pieces), (), 0, self.length)
        first = jnp.arange(batch_size) * each + begin + step % pieces * self.length
        return self._batch(text, first, step % pieces == 0, True)

    def eval_size(self, data, split):
        base.check_split(self, split)
        return -(-(len(data[split]) - 1) // self.length)

    def eval_batch(self, data, split, index, batch_size):
        pieces = -(-self.eval_size(data, split) // batch_size)  # of a row
        first = (jnp.arange(batch_size) * pieces + index) * self.length
        return self._batch(data[split], first, index == 0, index < pieces)

    def _batch(self, text, first, starts, counts):
        places = first[:, None] + jnp.arange(self.length)
        inside = (places < len(text) - 1) & counts
        places = jnp.minimum(places, len(text) - 2)
        xs, ys = (jnp.asarray(text)[at].astype(jnp.int32) for at in (places, places + 1))
        weights = inside.astype(jnp.float32)
        return base.Batch(xs, ys, None, weights, weights, starts=jnp.broadcast_to(starts, first.shape))


def lines_stripped(raw: bytes) -> bytes:
    """Each line without the spaces around it."""
    return b"\n".join(line.strip(b" ") for line in raw.split(b"\n"))


def read_own(path: str, data_dir: str | None = None) -> bytes:
    """A text of the user's, looked for here, then where other data sets are.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return files.find("text", path, "the file of your text", data_dir).read_bytes()
    except OSError as error:
        raise DataError(f"task.path={path} cannot be read: {error.strerror}") from error


def frequencies_bits(data) -> float:
    """Bits a character of the validation split, where each is as likely as in training at any place."""
    size = len(data["alphabet"])
    train, valid = (np.bincount(np.asarray(data[part]), minlength=size) for part in ("train", "valid"))
    p = (train + 1) / (train.sum() + size)  # one that training never has is not impossible
    return float(-(valid / valid.sum() * np.log2(p)).sum())
