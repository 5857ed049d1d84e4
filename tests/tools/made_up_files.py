"""Made-up files for all real tasks, with the traps of the real ones, and data as a user's own."""

import io
import tarfile
import types

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


def table(rng, n=60):
    """A table of n sequences of 3 to 8 steps, its lines in any order."""
    rows = []
    for i in range(n):
        for step in range(3 + i % 6):
            rows.append([i, (7 * i) % n, step, -step, i % 3, i % 2, *rng.random(2).round(3)])
    header = "sequence,other,step,back,target,kind,x,y"
    return "\n".join([header, *(",".join(map(str, rows[i])) for i in rng.permutation(len(rows)))]).encode()


def arrays(rng, n=60):
    """Padded sequences with lengths and classes as the bytes of a .npz."""
    file = io.BytesIO()
    lengths, ys = 3 + np.arange(n) % 6, np.array(["a", "b", "c"])[np.arange(n) % 3]
    np.savez(file, xs=rng.random((n, 8, 2)), ys=ys, lengths=lengths)
    return file.getvalue()


def aeon_datasets():
    """What takes the place of the module `aeon.datasets`, which tests do not need."""

    def load(name, split):
        rng = np.random.default_rng(len(name) + len(split))
        xs = [rng.random((2, 3 + i % 6)) for i in range(40)]  # (features, time)
        return xs, np.array(["1", "2", "3"])[np.arange(40) % 3]

    return types.SimpleNamespace(load_classification=load, load_regression=load)


def files() -> dict[str, bytes]:
    """Path in the folder -> content."""
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
    contents |= {"own.csv": table(rng), "own.npz": arrays(rng)}
    for i in range(80):
        words = rng.choice(["Good", "good", "film", "plot"], i % 6)
        contents[f"texts/{'pos' if i % 2 else 'neg'}/{i}.txt"] = " ".join(words).encode()
        contents[f"notes/{'a' if i % 3 else 'b'}/{i}.txt"] = b"A note"
    return contents
