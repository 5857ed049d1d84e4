"""Tasks with made-up data."""

import hashlib
import sys

import pytest

import made_up_files
from train import tasks
from train.tasks import datasets


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of made-up files for all real tasks."""
    path = tmp_path_factory.mktemp("data")
    for name, content in made_up_files.files().items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def made_up(folder, monkeypatch):
    """Takes the made-up files for the right ones; the folder."""
    paths = (path for path in folder.iterdir() if path.is_file())
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    files = {name: datasets.File("", sha256, ()) for name, sha256 in sums.items()}
    monkeypatch.setattr(datasets, "FILES", files)
    monkeypatch.setitem(sys.modules, "aeon", sys)  # anything: what is in it is looked for below
    monkeypatch.setitem(sys.modules, "aeon.datasets", made_up_files.aeon_datasets())
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
