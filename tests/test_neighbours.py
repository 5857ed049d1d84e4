"""A user's own file or folder of one of our names, in the working directory: one line names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["train.py", "cells.py", "configs/__init__.py"])
def test_a_users_own_module_is_named_in_one_line(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and str(tmp_path / name) in done.stderr
