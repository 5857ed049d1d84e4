"""The commands, run as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).parents[2]
TINY = [
    "--config.cell.hidden_size=6",
    "--config.parameters=0",
    "--config.task.gap=2",
    "--config.task.eval_examples=32",
    "--config.train.batch_size=8",
    "--config.train.eval_every=10",
]


def command(module, *flags):
    return [sys.executable, "-m", f"experiments.{module}", *map(str, flags)]


def run(module, *flags, **env):
    return subprocess.run(
        command(module, *flags),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **env},
    )


def refused(result):
    """The one line that a command gave before it ended with exit code 2."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_config_flags_are_taken_out_of_the_command_line():
    argv = ["prog", "--config=a.py", "--config.task.length", "4", "--workdir=x", "-config.label=b=c", "rest"]
    assert cli.split_config_flags(argv) == (
        "a.py",
        {"task.length": "4", "label": "b=c"},
        ["prog", "--workdir=x", "rest"],
    )
    with pytest.raises(SystemExit):
        cli.split_config_flags(["prog", "--config.task.length"])


def test_a_comparison_from_the_command_line(tmp_path):
    flags = ["--cells=gru,sru:highway=false", "--tasks=delayed_recall", "--seeds=3", "--steps=20", *TINY]
    first = run("compare", *flags, f"--workdir={tmp_path}")
    assert first.returncode == 0, first.stderr
    assert "sru:highway=false" in first.stdout
    for name in ("curves.csv", "seeds.csv", "summary.csv", "learning_curves.png", "time_to_threshold.png"):
        assert (tmp_path / name).stat().st_size > 100
    page = (tmp_path / "index.html").read_text()
    assert "delayed_recall" in page and "data:image/png" in page
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["delayed_recall-gru", "delayed_recall-sru_highway=false"]
    summary = json.loads((tmp_path / "runs" / runs[0] / "summary.json").read_text())
    assert [seed["seed"] for seed in summary["seeds"]] == [0, 1, 2]
    changed = refused(run("compare", *flags, "--config.task.gap=3", f"--workdir={tmp_path}"))
    assert "holds another run" in changed and "task.gap 2 there, 3 now" in changed


def test_a_run_that_fails_costs_no_other_its_results(tmp_path):
    flags = [
        "--tasks=delayed_recall",
        "--seeds=1",
        "--steps=10",
        *TINY,
        "--config.model.strategy=associative",
    ]
    result = run("compare", "--cells=gru,sru", *flags, f"--workdir={tmp_path}")
    assert result.returncode == 1, result.stderr
    assert "gru: failed: ValueError: GRU cannot use strategy" in result.stdout
    (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith("gru"))
    assert row == ["gru", "failed"]
    assert "gru on delayed_recall: ValueError: GRU cannot" in (tmp_path / "index.html").read_text()
    assert "sru" in (tmp_path / "seeds.csv").read_text()
    told = refused(run("compare", "--cells=gru", *flags, f"--workdir={tmp_path / 'all'}"))
    assert "GRU cannot use strategy" in told


@pytest.mark.parametrize(
    ("module", "flags", "told"),
    [
        ("compare", ["--cells=grue"], "unknown cell 'grue'; did you mean 'gru'?"),
        ("compare", ["--tasks=adding,diggits"], "did you mean 'digits'?"),
        ("compare", ["--config.optim.learnin_rate=1"], "did you mean 'learning_rate'?"),
        ("train", ["--config=configs/sruu.py"], "did you mean 'sru'?"),
        ("train", ["--config.task.gap=0"], "gap must be"),
        ("train", ["--config=lstm", "--config.model.strategy=associative"], "LSTM cannot use strategy"),
        ("train", ["extra"], "unexpected argument 'extra'"),
    ],
)
def test_bad_flags_get_one_line(module, flags, told):
    assert told in refused(run(module, *flags))


def test_a_misspelt_flag_names_the_nearest():
    result = run("compare", "--sedes=3")
    assert result.returncode != 0
    assert "Unknown command line flag 'sedes'. Did you mean: seeds" in result.stderr
    assert "Traceback" not in result.stderr


def test_data_that_is_not_there_gets_one_line(tmp_path):
    told = refused(run("train", "--config.task.name=mnist", f"--data_dir={tmp_path / 'nowhere'}"))
    assert "nowhere" in told


@pytest.mark.parametrize("module", ["train", "compare"])
def test_help_lists_the_choices(module):
    told = run(module, "--help").stdout
    for word in ("sru_feedback", "delayed_recall", "--workdir", "--config.X", "python -m experiments."):
        assert word in told


def test_train_shows_its_config_and_diverges_clearly(tmp_path):
    shown = run("train", "--config=gru", "--show_config")
    assert "reset_after: false" in shown.stdout
    flags = ["--config=rnn", "--config.cell.activation=relu", "--config.optim.optimizer=sgd", *TINY]
    flags += ["--config.optim.learning_rate=1e30", "--config.optim.clip_norm=0", f"--workdir={tmp_path}"]
    result = run("train", *flags)
    assert result.returncode == 1
    assert "not finite" in result.stderr and "Traceback" not in result.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["run"]["status"] == "diverged"


def metrics(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, how):
    flags = [*TINY, "--config=gru", "--config.train.stop_when_solved=false", "--config.train.steps=500"]
    flags += ["--config.train.checkpoint_seconds=0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen(
        command("train", *flags, f"--workdir={killed}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (killed / "metrics.jsonl").exists() and len(metrics(killed)) >= 12:
            break
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=200)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    resumed = run("train", *flags, f"--workdir={killed}")
    assert resumed.returncode == 0, resumed.stderr
    assert run("train", *flags, f"--workdir={whole}").returncode == 0
    assert metrics(whole) == metrics(killed)
