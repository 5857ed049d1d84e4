"""Made-up files for all real tasks, with the traps of the real ones."""

import io
import tarfile

import numpy as np
from scipy.io import savemat

from train.tasks import music, sentence
from train.tasks import text as texts


def idx(array):
    """A uint8 array as the bytes of an idx file."""
    sizes = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def archive(rng, counts):
    """CIFAR-10's archive: file name -> number of images."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for name, n in counts.items():
            records = rng.integers(0, 256, (n, 1 + 3 * 1024)).astype(np.uint8)
            records[:, 0] %= 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records.size
            tar.addfile(member, io.BytesIO(records.tobytes()))
    return file.getvalue()


def lines(rng, n, classes, encoding):
    """A file of n sentences of 0 to 8 words, sorted by label, with the real files' traps."""
    traps = ["a\x85b", "c\xa0d", "Cased"] if encoding == "latin-1" else []
    words = [f"word{i}" for i in range(30)] + traps
    rows = [f"{i * classes // n} " + "".join(f"{w} " for w in rng.choice(words, i % 9)) for i in range(n)]
    return "".join(f"{row}\n" for row in rows).encode(encoding)


def rolls(rng, counts):
    """A MATLAB file of piano rolls of 2 to 9 frames."""
    content = {}
    for name, count in counts.items():
        content[name] = np.empty((1, count), object)
        for i in range(count):
            content[name][0, i] = (rng.random((2 + i % 8, music.KEYS)) < 0.05).astype(np.uint8)
    file = io.BytesIO()
    savemat(file, content)
    return file.getvalue()


def text(rng, n):
    """A file of so many characters, of the alphabet of 7, in lines with spaces around them."""
    words = ["".join(rng.choice(list("abcde"), 1 + i % 5)) for i in range(n)]
    return "".join(f" {word} \n" if i % 3 == 0 else f"{word} " for i, word in enumerate(words))[:n].encode()


def files() -> dict[str, bytes]:
    """Name -> content."""
    rng = np.random.default_rng(0)
    contents = {}
    for part, n in (("train", 5030), ("t10k", 33)):
        contents[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        contents[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, n).astype(np.uint8))
    for kind in sentence.SETS.values():
        for file, n in zip((*kind.files, "stsa.binary.train"), (60, 17, 23, 40), strict=False):
            contents[file] = lines(rng, n, kind.classes, kind.encoding)
    contents["stsa.binary.train"] = lines(rng, 40, 2, "utf-8")
    for names in texts.FILES.values():
        for name in names:
            contents[name] = text(rng, 5000)
    for kind in music.SETS.values():
        contents[kind.file] = rolls(rng, {"traindata": 21, "validdata": 5, "testdata": 18})
    counts = {f"data_batch_{i}.bin": 1004 for i in range(1, 6)} | {"test_batch.bin": 33}
    contents["cifar-10-binary.tar.gz"] = archive(rng, counts)
    return contents
