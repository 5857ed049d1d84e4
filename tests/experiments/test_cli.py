"""The commands, run as a user runs them."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import commands
import configs
from experiments import cli, entry

ROOT = Path(__file__).parents[2]
TINY = [
    "--config.cell.hidden_size=6",
    "--config.parameters=0",
    "--config.task.gap=2",
    "--config.task.eval_examples=32",
    "--config.train.batch_size=8",
    "--config.train.eval_every=10",
]
COMMANDS = commands.SHARED


def run(module, *flags, **env):
    return COMMANDS.run(f"experiments.{module}", *flags, JAX_NUM_CPU_DEVICES="1", **env)


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
    """A run that fails costs no other its results; a second time nothing is trained."""
    flags = ["--cells=gru,sru:highway=false", "--tasks=delayed_recall", "--seeds=3", "--steps=20", *TINY]
    flags += ["--config.model.strategy=associative", f"--workdir={tmp_path}"]
    first = run("compare", *flags)
    assert first.returncode == 1, first.stderr
    assert "gru: failed: ValueError: GRU cannot use strategy" in first.stdout
    (row,) = (line.split() for line in first.stdout.splitlines() if line.startswith("gru"))
    assert row == ["gru", "failed"]
    (line,) = (line for line in first.stdout.splitlines() if line.startswith("[2/2]") and "solved it" in line)
    (row,) = (line.split() for line in first.stdout.splitlines() if line.startswith("sru"))
    assert f"test accuracy {row[-2]}," in line  # the table's statistic
    for name in ("curves.csv", "seeds.csv", "summary.csv", "learning_curves.png", "time_to_threshold.png"):
        assert (tmp_path / name).stat().st_size > 100
    page = (tmp_path / "index.html").read_text()
    assert "gru on delayed_recall: ValueError: GRU cannot" in page and "<svg" in page
    saved = tmp_path / "runs" / "delayed_recall-sru_highway=false" / "summary.json"
    assert [seed["seed"] for seed in json.loads(saved.read_text())["seeds"]] == [0, 1, 2]
    written = saved.stat().st_mtime_ns
    found = run("compare", *flags, "--quiet").stdout
    assert "sru:highway=false" in found and found.startswith("cell ")  # the table alone
    assert saved.stat().st_mtime_ns == written
    changed = refused(run("compare", *flags, "--cells=sru:highway=false", "--config.task.gap=3"))
    assert "holds another run" in changed and "task.gap 2 there, 3 now" in changed


def refusal(f, *args):
    """The line with which `f` ends where `cli.run` calls it."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), pytest.raises(SystemExit) as ended, entry.one_clear_line():
        f(*args)
    assert ended.value.code == 2
    (line,) = told.getvalue().splitlines()
    return line


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: configs.sweep("compare", ["grue"], None, {}), "unknown cell 'grue'; did you mean 'gru'?"),
        (lambda: configs.sweep("compare", None, ["adding", "diggits"], {}), "did you mean 'digits'?"),
        (
            lambda: configs.sweep("compare", None, None, {"optim.learnin_rate": "1"}),
            "did you mean 'learning_rate'?",
        ),
        (lambda: configs.load("configs/sruu.py"), "did you mean 'sru'?"),
        (lambda: configs.freeze(configs.apply(configs.load("sru"), {"task.gap": "0"})), "gap must be"),
    ],
    ids=["cell", "task", "field", "config", "value"],
)
def test_bad_flags_get_one_line(make, told):
    assert told in refusal(make)


@pytest.mark.parametrize(
    ("module", "flags", "told"),
    [
        ("train", ["extra"], "unexpected argument 'extra'"),
        ("train", ["--config=lstm", "--config.model.strategy=associative"], "LSTM cannot use strategy"),
        ("compare", ["--tasks=adding,diggits"], "did you mean 'digits'?"),
        ("train", ["--config.task.name=mnist", "--data_dir=nowhere"], "nowhere"),
    ],
)
def test_commands_refuse_in_one_line(module, flags, told):
    result = run(module, *flags)
    assert told in refused(result)
    assert result.stdout == "" or result.stdout.startswith("nothing of this run will be kept")


def test_a_misspelt_flag_names_the_nearest():
    result = run("compare", "--sedes=3")
    assert result.returncode != 0
    assert "Unknown command line flag 'sedes'. Did you mean: seeds" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["train", "compare"])
def test_help_lists_the_choices_and_commands_that_run(module):
    told = run(module, "--help").stdout
    for word in ("sru_feedback", "delayed_recall", "--workdir", "--config.X", "python -m experiments."):
        assert word in told
    printed = re.findall(rf"^ *python -m experiments\.{module}(.*)$", told, re.MULTILINE)
    assert printed
    for flags in printed:
        config, overrides, rest = cli.split_config_flags(flags.split())
        if module == "train":
            configs.freeze(configs.apply(configs.load(config or "sru"), overrides))
        else:
            given = dict(flag.lstrip("-").split("=", 1) for flag in rest)
            chosen = (given[name].split(",") if name in given else None for name in ("cells", "tasks"))
            for one in configs.sweep(config or "compare", *chosen, overrides).values():
                configs.freeze(one)


def test_train_shows_its_config_and_diverges_clearly(tmp_path):
    shown = run("train", "--config=gru", "--show_config")
    assert "reset_after: false" in shown.stdout
    flags = ["--config=rnn", "--config.cell.activation=relu", "--config.optim.optimizer=sgd", *TINY]
    flags += ["--config.optim.learning_rate=1e30", "--config.optim.clip_norm=0", f"--workdir={tmp_path}"]
    result = run("train", *flags)
    assert result.returncode == 1
    assert "not finite" in result.stderr and "Traceback" not in result.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["run"]["status"] == "diverged"


def test_a_run_goes_on_begins_another_and_is_exported(tmp_path):
    first, other, program = (str(tmp_path / name) for name in ("first", "other", "model.bin"))
    assert (
        run("train", *TINY, "--config=gru", "--config.train.steps=10", f"--workdir={first}").returncode == 0
    )
    more = ["--config.train.steps=20", "--config.train.stop_when_solved=false"]
    on = run("train", f"--continue={first}", *more)
    assert on.returncode == 0 and "goes on from step 10, with 20 steps in place of 10" in on.stderr
    new = run(
        "train", *TINY, "--config=gru", "--config.train.steps=10", f"--init={first}", f"--workdir={other}"
    )
    assert new.returncode == 0 and f"arrays begin as in {first}" in new.stderr
    done = run("export", f"--run={other}", f"--out={program}", "--platforms=cpu")
    assert done.returncode == 0 and "outputs: float32 (batch, 8), logits of 8 classes" in done.stdout
    assert Path(program).stat().st_size > 1000


LONG = [*TINY, "--config=gru", "--config.train.stop_when_solved=false", "--config.train.steps=100"]
LONG += ["--config.train.checkpoint_seconds=0"]


def metrics(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Programs compiled once for the runs that are killed."""
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """The metrics of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = run("train", *LONG, f"--workdir={folder}", JAX_COMPILATION_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    return metrics(folder)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, whole, cache, signum):
    env = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *LONG, f"--workdir={tmp_path}"],
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "metrics.jsonl").exists() and len(metrics(tmp_path)) >= 12:
            break
        time.sleep(0.02)
    process.send_signal(signum)
    process.communicate(timeout=200)
    assert process.returncode == (130 if signum == signal.SIGINT else -9)
    resumed = run("train", *LONG, f"--workdir={tmp_path}", JAX_COMPILATION_CACHE_DIR=cache)
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(tmp_path) == whole


def test_nothing_is_imported_that_starts_a_backend():
    """Commands set the number of devices before."""
    program = (
        "import jax; from experiments import claims; from jax._src import xla_bridge\n"
        "claims.help_text(); assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
