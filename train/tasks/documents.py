"""Your own texts: to which class each belongs."""

import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import numpy as np

from cells.registry import nearest
from train.tasks import base, sentence
from train.tasks.datasets import DataError
from train.tasks.meaning import Meaning
from train.tasks.own import files, splits
from train.tasks.own.baseline import with_baseline

LEVELS = ("words", "characters", "bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents(splits.Divided):
    """A folder with a folder of .txt files for each class; or folders `train`, `valid` and `test` of such.

    As in `sentence`: xs (batch, time) int32, 0 padding, 1 unknown, then what training has, commonest first.
    ys (batch,) int32, the classes by name. An empty file is a row of length 0. Texts are UTF-8, a leading
    byte order mark left out; as bytes they may be anything.

    Options:
      path: of the folder; looked for here, then where other data sets are.
      level: what a step is: "words" (what white space parts), "characters" or "bytes".
      lower: texts in lower case.
      min_count: what training has less often is unknown.
    """

    name: ClassVar[str] = "documents"
    input_kind: ClassVar[str] = "tokens"
    path: str = ""
    level: str = "words"
    lower: bool = True
    min_count: int = 1

    def __post_init__(self):
        super().__post_init__()
        base.require(self, "path", isinstance(self.path, str), "text")
        base.require(self, "level", self.level in LEVELS, f"known ({nearest(self.level, LEVELS)})")
        base.require(self, "lower", isinstance(self.lower, bool), "True or False")
        base.at_least(self, min_count=1)

    def spec(self, data):
        return with_baseline(self, self.sizes(data), data)

    def sizes(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=len(data["counts"]),
            output_size=len(data["read"]["classes"]),
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=math.nan,
            baseline=math.nan,
            time=data["train"]["xs"].shape[1],
        )

    def load(self, data_dir=None):
        """As `InMemory`, and "read", "meaning", "counts" (vocabulary,) int32: how often each token trains."""
        folder = files.find(self.name, self.path, "a folder with a folder of .txt files a class", data_dir)
        if not folder.is_dir():
            raise DataError(f"{self.name}: {self.path} is no folder")
        held = files.held(folder, self.path)
        found = [(part, *pair) for part, one, place in held for pair in files.by_class(one, place, ".txt")]
        given = np.array([part for part, _, _ in found])
        classes, labels = np.unique([name for _, name, _ in found], return_inverse=True)
        split = self.divide(self.path, labels, None if held[0][0] == "" else given)
        texts = [self.steps(path) for _, _, path in found]
        trains = np.bincount(labels[split == 0], minlength=len(classes))
        for i in np.flatnonzero(trains == 0)[:1]:
            raise DataError(f"{self.path}: no text that trains is of class {str(classes[i])!r}")
        if len(classes) < 2:
            raise DataError(f"{self.path}: two classes or more are needed, got {classes[0]}")
        rows = {
            name: [(int(labels[i]), texts[i]) for i in np.flatnonzero(split == part)]
            for part, name in enumerate(splits.PARTS)
        }
        words = sentence.vocabulary(rows["train"], self.min_count)
        ids = {word: i for i, word in enumerate(words)}
        lengths = np.array([len(text) for text in texts])
        cut = self.cut(lengths, "text")
        time = self.max_length or lengths.max()
        if time == 0:
            raise DataError(f"{self.path}: all texts are empty")
        data = {name: sentence.encode(part, ids, time) for name, part in rows.items()}
        tokens = [ids.get(word, sentence.UNKNOWN) for _, row in rows["train"] for word in row]
        if self.class_weights:
            weights = self.loss_weights(trains).astype(np.float32)
            data = {name: part | {"weights": weights[part["ys"]]} for name, part in data.items()}
        drawn = held[0][0] == "" or len(held) < len(splits.PARTS)
        read = {"classes": trains, "drawn": drawn, "cut": cut}
        read |= {"shortest": lengths.min(), "longest": lengths.max()}
        names = [word if isinstance(word, str) else chr(word) for word in words]
        return data | {
            "meaning": Meaning(tokens=tuple(names), classes=tuple(map(str, classes))),
            "counts": np.bincount(tokens, minlength=len(words)).astype(np.int32),
            "read": {name: np.array(value, np.int32) for name, value in read.items()},
        }

    def steps(self, path: Path) -> list:
        """The words, characters or bytes of a file.

        Raises:
          DataError: it is no text.
        """
        return self.parts(path.read_bytes(), path)

    def parts(self, raw: bytes, path: Path | str) -> list:
        """`steps`, of what a file holds."""
        if self.level == "bytes":
            return list(raw.lower() if self.lower else raw)
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8: {error.reason} at byte {error.start}; level=bytes?"
            ) from None
        text = text.lower() if self.lower else text
        return text.split() if self.level == "words" else list(text)

    def as_tokens(self, text):
        return [x if isinstance(x, str) else chr(x) for x in self.parts(text.encode(), "the text")]

    def describe(self, data):
        read = data["read"]
        counts = {split: len(data[split]["xs"]) for split in splits.PARTS}
        line = f"{self.name}: {self.path}: {sum(counts.values()):,} texts of {int(read['shortest']):,} to "
        line += f"{int(read['longest']):,} {self.level}, {len(data['counts']):,} different ones known, "
        line += f"{len(read['classes'])} classes; {self.split_said(counts, bool(read['drawn']))}"
        return line + (f"; {int(read['cut'])} were cut to {self.max_length}" if read["cut"] else "")
