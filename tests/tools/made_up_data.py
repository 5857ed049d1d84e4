"""Made-up files for the tasks that read real data, and the table that takes them for the right ones."""

import contextlib
import hashlib

import numpy as np
import pytest

from train.tasks import datasets, sentence


def idx(array):
    """A uint8 array as the bytes of an idx file."""
    sizes = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def lines(rng, n, classes, encoding):
    """A file of n sentences of 0 to 8 words, sorted by label, with the real files' traps."""
    traps = ["a\x85b", "c\xa0d", "Cased"] if encoding == "latin-1" else []
    words = [f"word{i}" for i in range(30)] + traps
    rows = [f"{i * classes // n} " + "".join(f"{w} " for w in rng.choice(words, i % 9)) for i in range(n)]
    return "".join(f"{row}\n" for row in rows).encode(encoding)


def contents() -> dict[str, bytes]:
    """Every file, by name."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 5030), ("t10k", 33)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, n).astype(np.uint8))
    for kind in sentence.SETS.values():
        for file, n in zip((*kind.files, "stsa.binary.train"), (60, 17, 23, 40), strict=False):
            files[file] = lines(rng, n, kind.classes, kind.encoding)
    files["stsa.binary.train"] = lines(rng, 40, 2, "utf-8")
    return files


@contextlib.contextmanager
def written(path):
    """The files in a folder; while it holds, they are the right ones."""
    files = contents()
    for name, content in files.items():
        (path / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        table = {name: datasets.File("", hashlib.sha256(c).hexdigest(), ()) for name, c in files.items()}
        patch.setattr(datasets, "FILES", table)
        yield path
