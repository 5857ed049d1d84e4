"""Every command that a README or a `--help` prints: its flags are resolved; with -m slow, it runs."""

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

import configs
import made_up_files
from commands import SHARED
from experiments import cli
from experiments.claims import EXPERIMENTS
from experiments.lab import experiment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/README.md"))]
# Absl takes the last of a flag's values: these shorten whatever was asked.
TINY = {"train.steps": 2, "train.eval_every": 2, "train.batch_size": 4, "train.eval_batch_size": 8}
TINY = [f"--config.{name}={value}" for name, value in TINY.items()]
SHORT = {
    "compare": [*TINY, "--seeds=1", "--config.cell.hidden_size=4"],
    "train": [*TINY, "--config.train.seeds=1", "--config.cell.hidden_size=4"],
    "sweep": ["--engine=slurm", "--dry-run"],  # test_sweep.py lets them train
    "speed": [
        "--sizes=2x6x4",
        "--repeats=1",
        "--rivals=",
        "--parts=layers",
        "--cells=sru",
        "--passes=forward",
    ],
    "claims": ["--preset=quick", "--only=identities"],
    "compiled": ["--cells=sru", "--sizes=1x4x4", "--targets=here"],
    "cells": [],
}
SETTINGS = {
    "gradients": {"time": 12},
    "horizon": {"gaps": "2,4"},
    "tracking": {"groups": "z2"},
    "depth": {"depths": 1},
    "atlas": {"columns": "recall_30", "forms": "bare"},
    "parallel": {"times": 32},
    "newton": {"times": 32, "feedback": 1, "scales": 1},
}


class Command(NamedTuple):
    """A line of a page; `name` is the module's."""

    name: str
    flags: tuple

    def __str__(self):
        return " ".join([self.name, *self.flags])


def printed():
    """Every `python -m experiments.NAME ...` of the pages and of the modules' docstrings, once."""
    texts = [page.read_text() for page in PAGES]
    texts += [
        file.read_text().split('"""')[1]
        for file in sorted((ROOT / "experiments").glob("*.py"))
        if file.stat().st_size
    ]
    texts += [
        (ROOT / "experiments" / name / "__main__.py").read_text().split('"""')[1]
        for name in ("reference", "speed")
    ]
    lines = (
        line.split("#")[0].split("`")[0]
        for text in texts
        for line in re.findall(r"python -m\s+experiments\.(\w+[^\n]*)", text)
    )
    commands = {}
    for line in lines:
        name, *flags = shlex.split(line.partition("),")[0])
        if all(flag.startswith("--") or name == "report" for flag in flags) and name != "NAME":
            commands.setdefault(Command(name, tuple(flags)))
    return list(commands)


ALL = printed()


def test_the_pages_print_commands_of_every_kind():
    names = {command.name for command in ALL}
    every = {"compare", "train", "report", "claims", "reference", "speed", "cells", *EXPERIMENTS}
    assert names >= every and len(ALL) > 40


@pytest.mark.parametrize("command", [c for c in ALL if c.name in EXPERIMENTS], ids=str)
def test_the_flags_of_an_experiment_are_settings(command):
    _, overrides, rest = cli.split_config_flags(["prog", *command.flags])
    flags = dict(flag.lstrip("-").split("=", 1) for flag in rest[1:])
    preset = flags.pop("preset", "fast")
    one = experiment.of(command.name)
    assert set(flags) <= {"cells", "seeds", "workdir", "workers", "beside"}
    shared = {name: value for name, value in flags.items() if name in ("cells", "seeds")}
    settings = experiment.settings_of(one, preset, overrides | shared)
    assert settings != one.protocol["fast"] or not overrides and not shared and preset == "fast"


@pytest.mark.parametrize("command", [c for c in ALL if c.name in ("compare", "train")], ids=str)
def test_the_flags_of_training_are_a_config(command):
    config, overrides, rest = cli.split_config_flags(["prog", *command.flags])
    flags = dict(flag.lstrip("-").split("=", 1) for flag in rest[1:] if "=" in flag)
    if command.name == "train":
        if config and config.startswith("runs/"):
            config = "gru"  # what an earlier command would have left there
        assert configs.freeze(configs.apply(configs.load(config or "sru"), overrides))
        return
    given = {"train.seeds": flags.get("seeds"), "train.steps": flags.get("steps")}
    overrides |= {name: value for name, value in given.items() if value is not None}
    cells, tasks = (flags[name].split(",") if name in flags else None for name in ("cells", "tasks"))
    runs = configs.sweep(config or "compare", cells, tasks, overrides)
    assert runs and all(configs.freeze(run) for run in runs.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run: with what they read, and earlier runs that some go on from."""
    root = tmp_path_factory.mktemp("commands")
    (root / "configs").symlink_to(ROOT / "configs")
    for name in ("cells", "train", "experiments"):
        (root / name).symlink_to(ROOT / name)
    files = made_up_files.files()
    files["machines.csv"] = files["own.csv"].replace(b"x,y", b"speed,load")
    files["weather.csv"] = b"step,wind\n" + b"".join(b"%d,%d\n" % (day, day % 7) for day in range(60))
    for name, content in files.items():
        if name in ("machines.csv", "weather.csv") or name.startswith("texts/"):
            path = root / name.replace("texts", "letters")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def run(folder):
    def run(command):
        short = SHORT.get(command.name, [])
        if command.name in EXPERIMENTS:
            short = [f"--config.{name}={value}" for name, value in SETTINGS.get(command.name, {}).items()]
            short = ["--preset=quick", *short, f"--workdir=runs/{abs(hash(command))}"]
        elif command.name == "reference" and any(flag.startswith("--run") for flag in command.flags):
            short = SHORT["compare"]
        elif command.name == "compare":
            short = [*short, "--cells=gru,tcn"] if "--cells=all" in command.flags else short
            short = [*short, f"--workdir=runs/{abs(hash(command))}"]
        elif command.name == "train" and any(flag.startswith("--workdir") for flag in command.flags):
            short = [*short, "--overwrite"]
        without = (
            "--write",
            "--steps",
            "--address",
            "--coordinator",
            "--process",
            "--beside",
        )  # 3 of them: test_hosts.py, test_beside.py
        flags = [flag for flag in command.flags if not flag.startswith(without)]
        return SHARED.run(f"experiments.{command.name}", *flags, *short, cwd=folder, JAX_PLATFORMS="cpu")

    done = run(Command("train", ("--workdir=runs/x",)))
    assert done.returncode == 0, done.stderr
    for name in ("compare", "more"):  # what some of them read
        shutil.copytree(folder / "runs" / "x", folder / "runs" / name)
    return run


def few(commands):
    """One of each kind that takes a moment; the others are slow."""
    seen = set()
    for command in commands:
        quick = command.name == "report" and command.name not in seen
        seen.add(command.name)
        yield pytest.param(command, id=str(command), marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize("command", list(few(ALL)))
def test_it_runs(run, command):
    done = run(command)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
