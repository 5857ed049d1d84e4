"""Texts and series of one's own, and runs on them."""

import numpy as np
import pytest

from train import tasks
from train.files import WorkdirError
from train.tasks import DataError
from train.tasks.own.splits import PARTS
from train.workdir import Workdir


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(name, **options):
    task = tasks.get(name, **options)
    data = task.load()
    task.check(data)
    return task, data


def test_documents_have_class_weights(here):
    for i in range(20):
        place = here / "texts" / ("b" if i % 3 else "a") / f"{i}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("one two")
    weights = {}
    for given in ("balanced", "1,3"):
        task = tasks.get("documents", path="texts", class_weights=given)
        part = task.load()["train"]
        weights[given] = np.bincount(part["ys"], part["weights"]) / np.bincount(part["ys"], minlength=2)
        batch = task._batch(part, np.arange(3), np.ones(3))
        assert batch.scored.tolist() == [1, 1, 1]
    assert weights["1,3"].tolist() == [1, 3]
    np.testing.assert_allclose(weights["balanced"], [14 / 2 / 5, 14 / 2 / 9], rtol=1e-5)
    with pytest.raises(DataError, match="documents: max_length=2 has no effect: the longest text has 2"):
        tasks.get("documents", path="texts", max_length=2).load()
    with pytest.raises(ValueError, match="class_weights must be empty, balanced, or numbers of 0 or more"):
        tasks.get("documents", path="texts", class_weights="2,2")


def test_a_text_of_ones_own_is_looked_for_in_the_folder_of_data(here):
    (here / "data").mkdir()
    (here / "data" / "a.txt").write_bytes(b"some text, and more of it")
    task = tasks.get("text", dataset="own", path="a.txt")
    assert sum(map(len, task.splits(here / "data").values())) == 25
    with pytest.raises(DataError, match="text: no such file or folder: a.txt"):
        task.splits()


def test_documents_are_words_characters_or_bytes(here):
    for i in range(20):
        place = here / "texts" / ("b", "a")[i % 2] / f"{i}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("" if i < 2 else "Ä b", encoding="utf-8")
    sizes = {}
    for level in ("words", "characters", "bytes"):
        task, data = loaded("documents", path="texts", level=level)
        sizes[level] = data["train"]["xs"].shape[1], task.spec(data).input_size
        lengths = np.concatenate([data[part]["lengths"] for part in PARTS])
        assert (lengths == 0).sum() == 2 and data["read"]["classes"].sum() == 14
    assert sizes == {"words": (2, 4), "characters": (3, 5), "bytes": (4, 6)}


def test_the_series_of_aeon_are_there():
    pytest.importorskip("aeon")
    task, data = loaded("series", dataset="JapaneseVowels")
    assert [len(data[part]["ys"]) for part in PARTS] == [230, 40, 370]
    assert task.spec(data).output_size == 9 and data["test"]["xs"].shape[1:] == (29, 12)


def test_without_aeon_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aeon.datasets", None)
    with pytest.raises(DataError, match=r"^series: install the extra 'series'"):
        tasks.get("series").load()


def test_a_run_does_not_go_on_with_other_data(here, tiny):
    def folder(data):
        return Workdir(here / "run", config := tiny("rnn"), config, data=data)

    state = {"state": {"w": np.ones(2)}}
    for data in ("one", "one"):
        directory = folder(data)
        directory.begin(state)
        directory.save(1, state, {})
        directory.close()
    directory = folder("two")
    with pytest.raises(
        WorkdirError, match="holds a run on other data: what its task reads has changed since"
    ):
        directory.begin(state)
    directory.close()
