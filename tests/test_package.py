"""What a package has beside its code: a citation, types that hold, API pages, a wheel that is whole."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("cells", "configs", "experiments", "train")
SCRIPT = '''
"""What a user's script does."""

from typing import assert_type

import jax
import jax.numpy as jnp

import cells
import train as training
from cells.lstm import LSTM
from train.config import RunConfig
from train.loop import Progress, Result, train
from train.summary import Summary

cell = cells.get("lstm", hidden_size=64)
assert_type(cell, cells.Cell)
params = cell.init(jax.random.key(0), input_size=8)
xs = jnp.zeros((2, 5, 8))
carry, ys = cells.scan(cell, params, xs)
assert_type(ys, jax.Array)
carry, ys, report = cells.scan(LSTM(64, peepholes=True), params, xs, strategy="newton", report=True)
assert_type(report, cells.Report)
names: list[str] = cells.names()
trained = training.load("runs/x")
config: RunConfig = trained.config


def watch(progress: Progress) -> None:
    print(progress.step)


def run(config: RunConfig) -> Result:
    result = train(config, watch=watch)
    summary: Summary = result.summary
    assert_type(summary.run.parameters, int)
    assert_type(summary.seeds[0].solved, bool)
    return result
'''


def run(*command, cwd=ROOT, path=ROOT, **env):
    """What a command prints; it must end with 0."""
    env = os.environ | {"PYTHONPATH": str(path), "MYPYPATH": str(path)} | env
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert [citation[name] for name in ("title", "version", "license")] == [
        PROJECT[name] for name in ("name", "version", "license")
    ]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_says_that_it_has_types():
    assert [name for name in PACKAGES if (ROOT / name / "py.typed").exists()] == [*PACKAGES]
    assert "Typing :: Typed" in PROJECT["classifiers"]


@pytest.mark.slow
def test_types_hold(tmp_path):
    """The files that pyproject.toml names, and a user's script by the strictest rules."""
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT)
    cache = f"--cache-dir={tmp_path / 'cache'}"
    run("mypy", cache)
    run("mypy", cache, "--strict", "--follow-imports=silent", tmp_path / "script.py", cwd=tmp_path)


@pytest.mark.slow
def test_the_api_pages_are_built_without_a_warning(tmp_path):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name)
    shutil.copytree(ROOT / ".docs", tmp_path / "docs", ignore=shutil.ignore_patterns("api"))
    run("sphinx", "-q", "-W", "--keep-going", tmp_path / "docs", tmp_path / "html")
    page = (tmp_path / "html" / "api" / "cells" / "cells.html").read_text()
    assert 'id="cells.scan"' in page and "lengths" in page
    assert 'id="cells.lstm.LSTM"' in (tmp_path / "html" / "api" / "cells" / "cells.lstm.html").read_text()


@pytest.mark.slow
def test_commands_run_from_a_wheel(tmp_path):
    """A wheel made of the source distribution has all that the commands need, wherever they run."""
    pytest.importorskip("build")
    source, elsewhere, site = tmp_path / "source", tmp_path / "elsewhere", tmp_path / "site"
    left = shutil.ignore_patterns(
        ".*", "runs", "data", "build", "dist", "*.egg-info", "__pycache__", "shared"
    )
    shutil.copytree(ROOT, source, ignore=left)
    elsewhere.mkdir()
    run("build", "-o", tmp_path / "dist", source)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run("pip", "install", "-q", "--no-deps", "--target", site, wheel)
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{name}/py.typed" for name in PACKAGES} <= packed
    code = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert code == {name for name in packed if name.endswith(".py")}

    def command(name, *flags):
        return run(f"experiments.{name}", *flags, cwd=elsewhere, path=site)

    assert "--workdir" in command("train", "--help") and "gradients" in command("claims", "--help")
    assert "dataset: ptb" in command("train", "--config=text", "--show_config")
    flags = ["--cells=gru", "--tasks=digits", "--steps=4", "--seeds=1", "--config.train.eval_every=2"]
    assert "gru" in command("compare", *flags, "--quiet")
    assert (elsewhere / "runs" / "compare" / "index.html").stat().st_size > 10_000
    assert "+0.04" in command("reference", "--result=jsb")  # ours, out of the committed figures
    assert len(list((site / "experiments" / "notebooks").glob("*.ipynb"))) >= 2
