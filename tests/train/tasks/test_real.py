"""Real tasks: how files are read, and that the real ones are all there."""

import collections
import itertools
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

import made_up_files
from batches import same
from train import tasks
from train.tasks import cifar10, datasets, mnist, music, sentence

SHARED = os.environ.get(datasets.VARIABLE) or Path(__file__).parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not Path(SHARED).is_dir(), reason=f"no folder in {datasets.VARIABLE}")


def test_digits_split_every_image_once_and_evenly(loaded):
    from sklearn.datasets import load_digits

    task, data = loaded("digits", {})
    assert {split: len(part["ys"]) for split, part in data.items()} == dict(train=1257, valid=180, test=360)
    xs, ys = load_digits(return_X_y=True)
    rows = np.concatenate([np.column_stack([part["xs"], part["ys"]]) for part in data.values()])
    count, original = (
        collections.Counter(row.tobytes() for row in table.astype(np.int32))
        for table in (rows, np.column_stack([xs, ys]))
    )
    assert count == original
    for part in data.values():
        shares = np.bincount(part["ys"], minlength=10) / len(part["ys"])
        np.testing.assert_allclose(shares, np.bincount(ys) / len(ys), atol=0.005)
    assert same(data, task.load())


def test_pixels_per_step_only_cuts_the_sequence(loaded):
    slow, data = loaded("digits", {})
    rows, _ = loaded("digits", dict(pixels_per_step=8))
    a, b = slow.eval_batch(data, "test", 0, 9), rows.eval_batch(data, "test", 0, 9)
    assert b.xs.shape == (9, 8, 8) and np.array_equal(a.xs.reshape(9, 8, 8), b.xs)
    assert a.xs.max() == 1
    assert np.array_equal(a.xs[..., 0] * 16, data["test"]["xs"][:9])


def test_mnist_reads_idx_and_permutes_all_images_alike(loaded, folder):
    plain, data = loaded("mnist", dict(pixels_per_step=28))
    _, permuted = loaded("permuted_mnist", dict(pixels_per_step=98))
    assert {split: len(part["ys"]) for split, part in data.items()} == dict(train=30, valid=5000, test=33)
    raw = datasets.read("t10k-images-idx3-ubyte", folder)
    images = np.frombuffer(raw[16:], np.uint8).reshape(33, 784)
    assert np.array_equal(data["test"]["xs"], images)
    assert np.array_equal(mnist.parse(raw).reshape(33, 784), images)
    batch = plain.eval_batch(data, "test", 0, 33)
    np.testing.assert_allclose(batch.xs.reshape(33, 784), images / 255, rtol=1e-6)
    order = np.random.RandomState(0).permutation(784)
    for split in data:
        assert np.array_equal(permuted[split]["xs"], data[split]["xs"][:, order])
        assert np.array_equal(permuted[split]["ys"], data[split]["ys"])
    other = tasks.get("permuted_mnist", permutation_seed=1).load(folder)
    assert not same(other["test"], permuted["test"])


def test_cifar10_reads_colours_by_pixel_and_grey_from_them(loaded, folder):
    task, data = loaded("cifar10", dict(pixels_per_step=32))
    assert {split: len(part["ys"]) for split, part in data.items()} == dict(train=20, valid=5000, test=33)
    with tarfile.open(folder / "cifar-10-binary.tar.gz") as archive:
        raw = archive.extractfile("cifar-10-batches-bin/test_batch.bin").read()
    batch = task.eval_batch(data, "test", 0, 33)
    grey = tasks.get("cifar10", grey=True)
    greys = np.asarray(grey.inputs(cifar10.brightness(data["test"]["xs"])))
    assert batch.xs.shape == (33, 32, 96) and greys.shape == (33, 1024, 1)
    for row in (0, 32):
        record = raw[3073 * row : 3073 * (row + 1)]
        assert record[0] == batch.ys[row]
        for place in (0, 1, 33, 1023):  # top left, its neighbour, one below that, bottom right
            colours = [record[1 + colour * 1024 + place] for colour in range(3)]
            np.testing.assert_allclose(batch.xs[row].reshape(1024, 3)[place] * 255, colours, rtol=1e-5)
            mixed = 0.2989 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]
            assert abs(greys[row, place, 0] * 255 - mixed) <= 0.51


@pytest.mark.parametrize("what", ["nothing", "another file", "an empty archive"])
def test_an_archive_without_images_is_refused_in_one_line(what):
    empty = made_up_files.archive(np.random.default_rng(0), {})
    content = {"nothing": b"", "another file": b"no archive"}.get(what, empty)
    with pytest.raises(datasets.DataError, match=r"^cifar-10-binary.tar.gz: no .* in it") as refusal:
        cifar10.parse(content)
    assert "\n" not in str(refusal.value)


def test_lines_end_at_newlines_and_words_at_spaces_only():
    raw = "1 a\x85b  c\xa0d É \n0 \n0\n2 x\n".encode("latin-1")
    rows = [(1, ["a\x85b", "c\xa0d", "É"]), (0, []), (0, []), (2, ["x"])]
    assert sentence.parse(raw, "latin-1", lower=False) == rows
    assert sentence.parse(raw, "latin-1", lower=True)[0][1][-1] == "é"


def test_the_vocabulary_holds_frequent_training_words_by_frequency():
    rows = [(0, ["b", "a", "c"]), (1, ["a", "b", "a"]), (1, [])]
    assert sentence.vocabulary(rows, 1)[2:] == ["a", "b", "c"]
    assert sentence.vocabulary(rows, 2)[2:] == ["a", "b"]


def test_sentences_are_cut_at_the_end_and_unknown_words_are_one():
    ids = {"<padding>": 0, "<unknown>": 1, "a": 2, "b": 3}
    data = sentence.encode([(1, ["a", "z", "b", "b"]), (0, []), (0, ["b"])], ids, 3)
    assert data["xs"].tolist() == [[2, 1, 3], [0, 0, 0], [3, 0, 0]]
    assert data["lengths"].tolist() == [3, 0, 1] and data["ys"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("n", [23, 1000])
def test_folds_share_no_row_and_together_test_each_row_once(n):
    folds = [sentence.split_rows(n, fold, with_test=True) for fold in range(10)]
    for rows in folds:
        assert sorted(itertools.chain(*rows.values())) == list(range(n))
    assert sorted(itertools.chain(*(rows["test"] for rows in folds))) == list(range(n))
    rows = sentence.split_rows(n, 0, with_test=False)
    assert sorted(rows["train"] + rows["valid"]) == list(range(n))


# What the data's own description says: rows, longest row, rows of each label, empty rows.
REAL = {
    "cr": (3775, 106, [1368, 2407], 4),
    "mr": (10662, 59, [5331, 5331], 0),
    "subj": (10000, 120, [5000, 5000], 0),
    "mpqa": (10606, 44, [7294, 3312], 3),
    "trec": (5952, 37, [1300, 1344, 95, 1288, 916, 1009], 0),
    "sst2": (79654, 56, [36042, 43612], 0),
}


@needs_data
@pytest.mark.parametrize("dataset", REAL)
def test_real_sentences_are_all_there_and_only_training_words_are_known(dataset):
    count, longest, labels, empty = REAL[dataset]
    task = tasks.get("sentence", dataset=dataset)
    data, splits = task.load(SHARED), task.splits(SHARED)
    parts = [data[split] for split in ("train", "valid", "test")]
    ys = np.concatenate([part["ys"] for part in parts])
    lengths = np.concatenate([part["lengths"] for part in parts])
    assert len(ys) == count and np.bincount(ys).tolist() == labels
    assert lengths.max() == task.spec(data).time == longest and (lengths == 0).sum() == empty
    if dataset in ("trec", "sst2"):
        assert len(data["test"]["ys"]) == {"trec": 500, "sst2": 1821}[dataset]
    else:
        assert abs(len(data["test"]["ys"]) - count / 10) < 1
        assert len(data["valid"]["ys"]) / len(data["train"]["ys"]) == pytest.approx(1 / 9, rel=0.02)
        for part in parts:  # the files are sorted by label, the folds must not be
            assert part["ys"].mean() == pytest.approx(ys.mean(), abs=0.06)

    words = sentence.vocabulary(splits["train"], 1)
    known = {word for _, row in splits["train"] for word in row}
    assert set(words[2:]) == known and len(words) == len(known) + 2 == task.spec(data).input_size
    for split, rows in splits.items():
        for x, length, (_, row) in zip(data[split]["xs"], data[split]["lengths"], rows, strict=True):
            told = [word if word in known else "<unknown>" for word in row]
            assert [words[i] for i in x[:length]] == told and not x[length:].any()
    assert not (data["train"]["xs"] == sentence.UNKNOWN).any()
    assert (data["test"]["xs"] == sentence.UNKNOWN).any()


@needs_data
def test_real_sst2_can_train_on_sentences():
    data = tasks.get("sentence", dataset="sst2", phrases=False).load(SHARED)
    assert [len(data[split]["ys"]) for split in ("train", "valid", "test")] == [6920, 872, 1821]


@needs_data
def test_real_trec_keeps_its_case():
    words = sentence.vocabulary(tasks.get("sentence", dataset="trec").splits(SHARED)["train"], 1)
    assert "What" in words and "what" in words


def test_music_asks_at_every_frame_for_the_next_one(loaded):
    task, data = loaded("music", {})
    batch = task.eval_batch(data, "test", 0, 18)
    for row, (stored, length) in enumerate(zip(*data["test"].values(), strict=True)):
        assert np.array_equal(batch.xs[row, :length], stored[:length])
        assert np.array_equal(batch.ys[row, :length], stored[1 : length + 1])
        assert batch.weights[row].sum() == length and not stored[length + 1 :].any()


def test_the_baseline_of_music_is_the_likelihood_of_each_key_by_itself():
    train, test = np.zeros((2, 1, 4, music.KEYS), np.uint8)
    train[0, 1:3, 7] = 1  # two of three frames; the first one does not count
    test[0, 0] = test[0, 3, 7] = 1
    parts = [{"xs": xs, "lengths": np.array([3])} for xs in (train, test)]
    p, silent = 3 / 5, 1 / 5
    want = -(np.log(p) + 2 * np.log(1 - p)) / 3 - (music.KEYS - 1) * np.log(1 - silent)
    assert music.frequencies_nll(dict(zip(("train", "valid"), parts, strict=True))) == pytest.approx(want)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file", made_up_files.idx(np.zeros(3, np.uint8))])
def test_a_file_without_piano_rolls_is_refused(content):
    with pytest.raises(datasets.DataError, match="no piano rolls in it"):
        music.parse(content)


# What the data's own description says: pieces and frames of each split.
ROLLS = {
    "jsb": ((229, 76, 77), (13807, 4602, 4725)),
    "nottingham": ((694, 173, 170), (176561, 45513, 44463)),
    "piano": ((87, 12, 25), (75911, 8540, 19036)),
    "muse": ((524, 135, 124), (245202, 82755, 64339)),
}


@needs_data
@pytest.mark.parametrize("dataset", ROLLS)
def test_real_music_is_all_there(dataset):
    rolls = music.parse(datasets.read(music.SETS[dataset].file, SHARED))
    pieces, frames = ROLLS[dataset]
    assert tuple(map(len, rolls.values())) == pieces
    assert tuple(sum(map(len, split)) for split in rolls.values()) == frames


@needs_data
def test_real_chorales_have_a_baseline():
    task = tasks.get("music")
    data = task.load(SHARED)
    task.check(data)
    assert 10 < task.spec(data).baseline < 14


@needs_data
def test_real_mnist_is_all_there():
    data = tasks.get("mnist").load(SHARED)
    assert [len(data[split]["ys"]) for split in ("train", "valid", "test")] == [55000, 5000, 10000]
    train = np.bincount(data["train"]["ys"]) + np.bincount(data["valid"]["ys"])
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data["test"]["ys"][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    train, valid = ({row.tobytes() for row in data[split]["xs"]} for split in ("train", "valid"))
    assert train.isdisjoint(valid)
