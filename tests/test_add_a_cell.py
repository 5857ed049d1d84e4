"""The recipe of cells/README.md, word for word, in a copy of the repository: one file, one entry."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import SHARED

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "cells" / "README.md").read_text()
CPU = {"JAX_PLATFORMS": "cpu"}
BLOCKS = re.findall(r"```python\n(# cells/mgu\.py\n.*?)```", PAGE, re.S)  # the recipe, then its faster form


FORMS = [pytest.param(0, id="step alone"), pytest.param(1, id="faster", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=FORMS)
def copy(request, tmp_path_factory):
    """The repository with the new cell."""
    root = tmp_path_factory.mktemp("copy") / "repository"
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "runs", "__pycache__", "*.egg-info", "build", ".pytest_cache"
    )
    shutil.copytree(ROOT, root, ignore=ignored)
    (root / "cells" / "mgu.py").write_text(BLOCKS[request.param])
    registry = root / "cells" / "__init__.py"
    text = registry.read_text()
    line, entry = re.search(r"`(from cells\.mgu import MGU)`.*?`(\"mgu\": MGU,)`", PAGE, re.S).groups()
    text = text.replace("from cells.mlstm import", f"{line}\nfrom cells.mlstm import", 1)
    text = re.sub(r"^( +)\"window\": Window,\n", rf"\g<0>\g<1>{entry}\n", text, flags=re.M)
    assert line in text and entry in text
    registry.write_text(text)
    return root


@pytest.fixture(scope="module")
def run(copy):
    return lambda module, *flags: SHARED.run(f"experiments.{module}", *flags, cwd=copy, **CPU)


def pytest_in(copy, *flags):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags]
    return subprocess.run(
        command,
        cwd=copy, env=environment | CPU | {"PYTHONPATH": str(copy)}, capture_output=True, text=True,
        timeout=3000,
    )  # fmt: skip


def test_the_page_has_a_recipe():
    assert len(BLOCKS) == len(FORMS) and "def step" in BLOCKS[0] and "def project" not in BLOCKS[0]


@pytest.mark.slow
def test_it_is_compared(run, tmp_path):
    tiny = [
        "--config.task.gap=2",
        "--config.train.batch_size=4",
        "--config.task.eval_examples=16",
        "--parameters=500",
    ]
    flags = ["--cells=mgu,rnn", "--tasks=delayed_recall", "--seeds=1", "--steps=4", *tiny]
    done = run("compare", *flags, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^mgu +\d+ +0/1", done.stdout, re.M), done.stdout
    assert "mgu" in (tmp_path / "summary.csv").read_text()
    assert (tmp_path / "learning_curves.png").stat().st_size > 1000


def test_it_is_in_the_table_and_in_the_help(run):
    table = run("cells").stdout
    assert "| [`mgu`](mgu.py) Zhou 2016 | f = sigma(" in table and "2 H (D + H + 1)" in table
    assert "mgu" in run("train", "--help").stdout + run("train", "--help").stderr


def test_it_is_a_config_of_its_own(run):
    done = run("train", "--config=mgu", "--show_config")
    assert done.returncode == 0 and "mgu" in done.stdout, done.stderr


@pytest.mark.slow
def test_it_is_timed(run, tmp_path):
    flags = [
        "--preset=quick",
        "--parts=layers",
        "--cells=mgu",
        "--rivals=",
        "--repeats=1",
        "--passes=forward",
    ]
    done = run("speed", *flags, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "mgu" in (tmp_path / "layers.csv").read_text()


def test_its_laws_hold(copy):
    done = pytest_in(copy, "-k", "mgu", "tests/cells", "tests/experiments/test_cells.py")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10


@pytest.mark.slow
def test_the_whole_suite_passes_with_it(copy):
    done = pytest_in(copy, "-n", "auto", "--deselect", "tests/test_add_a_cell.py")
    assert done.returncode == 0, done.stdout[-3000:]
