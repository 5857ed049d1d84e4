"""Sentence classification: the six sets of table 1 of Lei et al. 2018, "Simple recurrent units for highly
parallelizable recurrence", as the authors prepare them, but with a vocabulary of training words only.

Sources: CR Hu & Liu 2004; MR Pang & Lee 2005; SUBJ Pang & Lee 2004; MPQA Wiebe et al. 2005; TREC Li & Roth
2002; SST-2 Socher et al. 2013.
"""

import collections
import dataclasses
import random
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import numpy as np

from cells.registry import nearest
from train.tasks import base, datasets
from train.tasks.meaning import Meaning

Row = tuple[int, list[str]]  # label, words


class Set(NamedTuple):
    files: tuple[str, ...]  # all | train, test | train, valid, test
    encoding: str
    lower: bool  # whether the authors lower-case it; TREC keeps its case, SST comes in lower case
    classes: int
    threshold: float


SST2 = ("stsa.binary.phrases.train", "stsa.binary.dev", "stsa.binary.test")
SETS = {
    "cr": Set(("custrev.all",), "ascii", True, 2, 0.75),
    "mr": Set(("rt-polarity.all",), "latin-1", True, 2, 0.72),
    "subj": Set(("subj.all",), "latin-1", True, 2, 0.88),
    "mpqa": Set(("mpqa.all",), "ascii", True, 2, 0.80),
    "trec": Set(("TREC.train.all", "TREC.test.all"), "latin-1", False, 6, 0.80),
    "sst2": Set(SST2, "utf-8", False, 2, 0.78),
}
PADDING, UNKNOWN = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence(base.InMemory):
    """A sentence, phrase or question: of which class is it, such as praise or criticism?

    Rows have lengths; a few of CR and MPQA hold no words: length 0, and they stay in. A fifth of MPQA's
    rows repeat another, so that its splits share some texts, as published results do.

    The answer is read from the last state, as the SRU authors do: it is defined for empty rows too, where
    a maximum or a mean over no steps is not.

    xs (batch, time) int32: 0 padding, 1 unknown, then training words, commonest first. ys (batch,) int32.

    Options:
      dataset: "cr", "mr", "subj", "mpqa", "trec" or "sst2".
      fold: which tenth, 0 to 9, is the test split, for the four sets that come without one.
      max_length: longer rows lose their end; None: as long as the longest row of the set.
      min_count: words seen less often in training are unknown.
      phrases: whether sst2 trains on the labelled phrases of its training trees, or on whole sentences.
    """

    name: ClassVar[str] = "sentence"
    input_kind: ClassVar[str] = "tokens"
    dataset: str = "cr"
    fold: int = 0
    max_length: int | None = None
    min_count: int = 1
    phrases: bool = True

    def __post_init__(self):
        known = isinstance(self.dataset, str) and self.dataset in SETS
        base.require(self, "dataset", known, f"a known set ({nearest(self.dataset, SETS)})")
        base.at_least(self, fold=0, min_count=1)
        base.require(self, "fold", self.fold < 10, "at most 9")
        if self.max_length is not None:
            base.at_least(self, max_length=1)
        base.require(self, "phrases", isinstance(self.phrases, bool), "True or False")
        # An option without effect would make two runs look different that are not.
        name = self.dataset
        folded = len(SETS[name].files) == 1
        base.require(self, "fold", self.fold == 0 or folded, f"0 for {name}: it has a test split")
        base.require(self, "phrases", self.phrases or name == "sst2", f"True for {name}: an option of sst2")

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=len(data["counts"]),
            output_size=SETS[self.dataset].classes,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=SETS[self.dataset].threshold,
            baseline=base.majority(data),
            time=data["train"]["xs"].shape[1],
        )

    def load(self, data_dir=None):
        """As `InMemory`; "counts" (vocabulary,) int32: how often training has each token; and "meaning"."""
        splits = self.splits(data_dir)
        words = vocabulary(splits["train"], self.min_count)
        ids = {word: i for i, word in enumerate(words)}
        longest = max(len(row) for rows in splits.values() for _, row in rows)
        data = {split: encode(rows, ids, self.max_length or longest) for split, rows in splits.items()}
        tokens = [ids.get(word, UNKNOWN) for _, row in splits["train"] for word in row]
        meaning = Meaning(tokens=tuple(words), classes=tuple(map(str, range(SETS[self.dataset].classes))))
        counts = np.bincount(tokens, minlength=len(words)).astype(np.int32)
        return data | {"counts": counts, "meaning": meaning}

    def as_tokens(self, text):
        return (text.lower() if SETS[self.dataset].lower else text).split()

    def splits(self, data_dir: str | None = None) -> dict[str, list[Row]]:
        """The rows of "train", "valid" and "test", as words. Raises DataError as `load` does."""
        files, encoding, lower, *_ = SETS[self.dataset]
        if not self.phrases:
            files = ("stsa.binary.train", *files[1:])
        parts = [parse(datasets.read(file, data_dir), encoding, lower) for file in files]
        if len(parts) == 3:
            return dict(zip(("train", "valid", "test"), parts, strict=True))
        rows = split_rows(len(parts[0]), self.fold, with_test=len(parts) == 1)
        splits = {split: [parts[0][i] for i in chosen] for split, chosen in rows.items()}
        return splits if len(parts) == 1 else splits | {"test": parts[1]}


def parse(raw: bytes, encoding: str, lower: bool) -> list[Row]:
    """Rows of a file of lines `label word word ...`.

    Lines end in a newline and words at a space, and nowhere else: Latin-1 text holds byte 0x85, which
    `splitlines` takes for a line end, and some words hold a no-break space.
    """
    text = raw.decode(encoding)
    lines = (text.lower() if lower else text).removesuffix("\n").split("\n")
    cells = (line.split(" ") for line in lines)
    return [(int(label), [word for word in words if word]) for label, *words in cells]


def split_rows(n: int, fold: int, with_test: bool) -> dict[str, list[int]]:
    """Which of n rows go where, by the SRU authors' own shuffle (the files are sorted by label).

    With `with_test`, row i of the shuffled file is a test row if i % 10 is `fold`, and a random tenth of the
    rest is for validation. Without, rows with i % 10 = `fold` are for validation.
    """
    rng = random.Random(1234)
    order = list(range(n))
    rng.shuffle(order)
    inside = [row for i, row in enumerate(order) if i % 10 == fold]
    rest = [row for i, row in enumerate(order) if i % 10 != fold]
    if not with_test:
        return {"train": rest, "valid": inside}
    rng.shuffle(rest)
    cut = int(len(rest) * 0.9)
    return {"train": rest[:cut], "valid": rest[cut:], "test": inside}


def vocabulary(rows: Iterable[Row], min_count: int) -> list[str]:
    """Words by token number: padding, unknown, then those seen often enough, commonest first."""
    counts = collections.Counter(word for _, words in rows for word in words)
    kept = [word for word, count in counts.items() if count >= min_count]
    return ["<padding>", "<unknown>", *sorted(kept, key=lambda word: (-counts[word], word))]


def encode(rows: list[Row], ids: dict[str, int], time: int) -> dict[str, np.ndarray]:
    """Rows as padded arrays: xs (n, time), ys (n,), lengths (n,)."""
    xs = np.full((len(rows), time), PADDING, np.int16 if len(ids) < 2**15 else np.int32)
    lengths = np.array([min(len(words), time) for _, words in rows], np.int32)
    for x, (_, words), length in zip(xs, rows, lengths, strict=True):
        x[:length] = [ids.get(word, UNKNOWN) for word in words[:length]]
    return {"xs": xs, "ys": np.array([label for label, _ in rows], np.int32), "lengths": lengths}
