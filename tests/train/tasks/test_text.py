"""Laws of text that is read on: by whom, where, and that nothing is left out."""

import jax
import numpy as np
import pytest

from batches import KEY, eval_batch, train_batch
from train import tasks
from train.tasks import DataError, base, text

LENGTH = 8


@pytest.fixture
def own(tmp_path):
    """A text of 3,000 characters, no two places alike, as the task and its data."""
    (tmp_path / "mine.txt").write_bytes(np.random.default_rng(0).integers(65, 91, 3000, np.uint8).tobytes())
    task = tasks.get("text", dataset="own", path=str(tmp_path / "mine.txt"), length=LENGTH)
    return task, task.load()


def test_each_next_character_is_the_answer_and_rows_go_on_where_they_ended(own):
    task, data = own
    rows = 16  # of SIZE
    pieces = (len(data["train"]) - 1) // rows // LENGTH - 1
    batches = [train_batch(task, data, KEY, step) for step in range(2 * pieces)]
    for step, batch in enumerate(batches):
        assert bool(batch.starts.all()) == bool(batch.starts.any()) == (step % pieces == 0)
        np.testing.assert_array_equal(batch.xs[:, 1:], batch.ys[:, :-1])
        assert batch.weights.all()
        if step % pieces:
            np.testing.assert_array_equal(batch.xs[:, 0], batches[step - 1].ys[:, -1])
    parts = np.split(data["train"][: len(data["train"]) // rows * rows], rows)
    for epoch in (batches[:pieces], batches[pieces:]):
        read = np.concatenate([batch.xs for batch in epoch], axis=1)
        for row, part in zip(read, parts, strict=True):
            # A part of the text of its own, all but what is left for where it begins.
            begin = next(i for i in range(2 * LENGTH) if np.array_equal(part[i : i + 40], row[:40]))
            np.testing.assert_array_equal(part[begin : begin + len(row)], row)
            assert len(part) - len(row) < 3 * LENGTH


@pytest.mark.parametrize("split", base.SPLITS)
@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_held_out_text_is_scored_once_and_in_order(own, split, rows):
    task, data = own
    count = -(-task.eval_size(data, split) // rows)
    batches = [eval_batch(task, data, split, index, rows) for index in range(count + 1)]
    xs, ys, scored = (
        np.concatenate([getattr(batch, name) for batch in batches], axis=1).ravel()
        for name in ("xs", "ys", "scored")
    )
    np.testing.assert_array_equal(xs[scored > 0], data[split][:-1])
    np.testing.assert_array_equal(ys[scored > 0], data[split][1:])
    assert [bool(batch.starts.all()) for batch in batches] == [True] + [False] * count


def test_the_alphabet_gives_the_text_back(own):
    task, data = own
    for split, raw in task.splits().items():
        np.testing.assert_array_equal(data["alphabet"][data[split]], raw)


def test_penn_treebank_is_its_words_and_line_ends():
    assert text.lines_stripped(b" no it was n't \n aer <unk> N \n") == b"no it was n't\naer <unk> N\n"


def test_frequencies_by_hand():
    data = {"train": np.array([0, 0, 0, 1]), "valid": np.array([0, 1]), "alphabet": np.array([65, 66])}
    want = -(np.log2(4 / 6) + np.log2(2 / 6)) / 2
    np.testing.assert_allclose(text.frequencies_bits(data), want)


def test_what_is_too_short_or_not_there_is_refused_with_one_line(own, tmp_path):
    task, data = own
    with pytest.raises(ValueError, match="2700 characters are too few for 200 rows of two pieces of 8"):
        jax.eval_shape(lambda: task.train_batch(data, KEY, 0, 200))
    with pytest.raises(DataError, match="no such file or folder: .*missing.txt"):
        tasks.get("text", dataset="own", path=str(tmp_path / "missing.txt")).load()
    (tmp_path / "short.txt").write_text("abc")
    short = tasks.get("text", dataset="own", path=str(tmp_path / "short.txt"))
    with pytest.raises(DataError, match="text, valid: 0 characters"):
        short.check(short.load())
