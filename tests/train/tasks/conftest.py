"""Tasks with made-up data."""

import hashlib

import pytest

import made_up_files
from train import tasks
from train.tasks import datasets


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of made-up files for all real tasks."""
    path = tmp_path_factory.mktemp("data")
    for name, content in made_up_files.files().items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def made_up(folder, monkeypatch):
    """Takes the made-up files for the right ones; the folder."""
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    files = {name: datasets.File("", sha256, ()) for name, sha256 in sums.items()}
    monkeypatch.setattr(datasets, "FILES", files)
    return folder


@pytest.fixture(scope="session")
def _seen():
    return {}


@pytest.fixture
def loaded(made_up, _seen):
    """Name and options -> the task and its made-up data, loaded once."""

    def load(name, options):
        place = (name, tuple(options.items()))
        if place not in _seen:
            task = tasks.get(name, **options)
            _seen[place] = task, task.load(made_up)
        return _seen[place]

    return load
