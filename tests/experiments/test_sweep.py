"""Sweeps: every run once, whatever dies; the numbers of the run alone."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

import commands
import configs
from experiments.engines import Job, local
from experiments.engines.board import Board, varied
from tiny_runs import config, lines, without_times
from train.loop import train

SLOW = {"steps": "400", "eval_every": "10", "stop_when_solved": "false", "seeds": "1"}


def jobs_in(folder, **by_name):
    return [Job(name, run, folder / name) for name, run in by_name.items()]


def run(jobs, folder, meddle=lambda event: None, **options):
    """All events of a sweep."""
    events = []

    def tell(event):
        events.append(event)
        meddle(event)

    local.run(jobs, tell, folder / "log", **options)
    return [event for event in events if event.kind != "progress"]


def test_a_sweep_from_the_command_line(tmp_path):
    """Finished runs are skipped, one that fails costs no other, and all are in one Parquet file."""
    sweep = tmp_path / "mine.py"
    sweep.write_text(
        'CELLS, TASKS = ("gru", "rnn"), {"delayed_recall": {"task": {"gap": 2, "eval_examples": 32}}}\n'
        'SHARED = {"cell": {"hidden_size": 6}, "train": {"steps": 20, "batch_size": 8, "seeds": 1, '
        '"eval_every": 10}}\nVARY = {"model.strategy": ("auto", "associative")}\n'
    )
    flags = [f"--config={sweep}", f"--workdir={tmp_path / 'out'}", "--cells=gru", "--workers=1"]
    done = commands.SHARED.run("experiments.sweep", *flags)
    assert done.returncode == 1, done.stderr
    assert "GRU cannot use strategy" in done.stdout and "1 of 2 runs done, 1 failed" in done.stdout
    seeds = pd.read_parquet(tmp_path / "out" / "seeds.parquet")
    assert seeds["label"].tolist() == ["gru"] and seeds["status"].tolist() == ["finished"]
    again = commands.SHARED.run("experiments.sweep", *flags, "--vary=model.strategy=auto")
    assert again.returncode == 0, again.stderr
    assert "1 runs, 0 of them to train" in again.stdout
    other = commands.SHARED.run("experiments.sweep", *flags, "--vary=model.strategy=auto", "--steps=40")
    assert other.returncode == 2 and "train.steps 20 there, 40 now" in other.stderr


@pytest.mark.slow
def test_runs_side_by_side_give_the_numbers_of_each_alone(tmp_path):
    """Even where the processes are killed, or stand still, in the middle."""
    runs = {name: config("gru", train=SLOW | {"seed": str(seed)}) for seed, name in enumerate("abc")}
    hurt = {}

    def meddle(event):
        if event.kind == "progress" and event.step >= 100 and len(hurt) < 2 and event.job not in hurt:
            hurt[event.job] = signal.SIGSTOP if hurt else signal.SIGKILL
            os.kill(holder(event.job), hurt[event.job])

    def holder(name):
        return next(w.process.pid for w in WORKERS if w.job and w.job.name == name)

    WORKERS.clear()
    events = run(jobs_in(tmp_path, **runs), tmp_path, meddle, workers=2, patience=20.0)
    assert sorted(event.job for event in events if event.kind == "done") == list("abc")
    assert sorted(hurt.values()) == [signal.SIGKILL, signal.SIGSTOP]
    retried = {event.job: event.line for event in events if event.kind == "retried"}
    assert retried.keys() == hurt.keys()
    for name, number in hurt.items():
        assert ("SIGKILL" if number == signal.SIGKILL else "no progress for 20 s") in retried[name]
    alone = train(runs["b"], tmp_path / "alone")
    assert alone.summary.run.status == "finished"
    assert without_times(lines(tmp_path / "b")) == without_times(lines(tmp_path / "alone"))


WORKERS = []


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    """Notes every worker."""
    before = local.Worker.__init__

    def init(self, *args):
        before(self, *args)
        WORKERS.append(self)

    monkeypatch.setattr(local.Worker, "__init__", init)


@pytest.mark.slow
def test_a_run_whose_process_always_dies_fails_and_is_not_tried_for_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif any('engines.worker' in word for word in sys.orig_argv):\n"
        "    import builtins, os\n    real = builtins.print\n"
        "    import train.loop\n    train.loop.train = lambda *a, **k: os._exit(9)\n"
    )
    (event, *rest) = run(jobs_in(tmp_path, a=config()), tmp_path, workers=1, retries=1)
    assert event.kind == "retried" and "exit code 9" in event.line
    assert [(event.kind, event.line) for event in rest] == [
        ("failed", "the worker died (exit code 9), 2 times")
    ]


@pytest.mark.slow
def test_a_stop_keeps_checkpoints_and_the_same_sweep_goes_on(tmp_path):
    runs, stop = {"a": config("gru", train=SLOW), "b": config("rnn", train=SLOW)}, threading.Event()

    def meddle(event):
        if event.kind == "progress" and event.step >= 50:
            stop.set()

    events = run(jobs_in(tmp_path, **runs), tmp_path, meddle, workers=1, stop=stop)
    assert [(event.job, event.kind) for event in events] == [("a", "stopped")]
    assert "goes on from here" in events[0].line
    assert not (tmp_path / "b").exists()
    kept = len(lines(tmp_path / "a"))
    assert 0 < kept < 40
    events = run(jobs_in(tmp_path, **runs), tmp_path, workers=1)
    assert [(event.job, event.kind) for event in events] == [("a", "done"), ("b", "done")]


@pytest.mark.slow
def test_a_sweep_whose_process_is_killed_leaves_no_worker_and_goes_on(tmp_path):
    flags = [
        "--config=rates",
        "--cells=gru",
        "--tasks=delayed_recall",
        "--config.train.stop_when_solved=false",
    ]
    flags += ["--config.train.checkpoint_seconds=0", "--config.train.steps=3000", f"--workdir={tmp_path}"]
    command = [sys.executable, "-m", "experiments.sweep", *flags, "--vary=train.seed=0,1,2"]
    process = subprocess.Popen(command, cwd=commands.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not any(tmp_path.glob("runs/*/checkpoints/*/commit*")):
        time.sleep(0.1)
    process.kill()
    process.communicate()
    time.sleep(20)
    running = subprocess.run(["pgrep", "-f", "engines.worker"], capture_output=True, text=True).stdout
    assert not running
    done = subprocess.run(command, cwd=commands.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 runs done" in done.stdout
    for folder in (tmp_path / "runs").iterdir():
        assert json.loads((folder / "summary.json").read_text())["run"]["steps"] == 3000


def test_jobs_that_share_programs_go_to_one_worker():
    a, b = config("gru"), config("rnn")
    jobs = [Job(str(i), run, None) for i, run in enumerate((a, a, b, b))]
    waiting = list(jobs)
    first = local._next(waiting, None, [])
    second = local._next(waiting, None, [first])
    assert (first.name, second.name) == ("0", "2")
    assert local._next(waiting, first, [second]).name == "1"
    assert local._next(waiting, first, [second]).name == "3"


def test_the_board_says_how_long_it_will_take(monkeypatch):
    from experiments.engines import Event

    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    board = Board(6, 1)
    board.take(Event("a", "progress", step=3, steps=10))
    assert board.text() == "1 of 6 runs done (1 before), 0 failed, 1 running, 0:00, eta 0:00"
    now[0] = 30.0
    board.take(Event("a", "done"))
    board.take(Event("b", "failed", "why"))
    assert board.text() == "2 of 6 runs done (1 before), 1 failed, 0 running, 0:30, eta 0:45"


def test_what_varies_is_read_from_flags():
    assert varied(["optim.learning_rate=0.1,0.2", "train.seed=1"]) == {
        "optim.learning_rate": ["0.1", "0.2"],
        "train.seed": ["1"],
    }
    runs = configs.sweep("rates", ["gru"], ["adding"], {}, vary={"train.seed": ["7"]})
    assert list(runs) == ["adding-gru-learning_rate=0.003-seed=7", "adding-gru-learning_rate=0.01-seed=7"]


# --- clusters


SBATCH = """#!{python}
# A stand-in: runs the tasks of an array in turn; the first one is warned in the middle, and run again.
import os, re, signal, subprocess, sys, time
script = sys.argv[1]
last = int(re.search(r"--array=0-(\\d+)", open(script).read())[1])
for task in range(last + 1):
    env = os.environ | {{"SLURM_ARRAY_TASK_ID": str(task)}}
    process = subprocess.Popen(["bash", script], env=env, stdout=subprocess.DEVNULL)
    if task == 0:
        time.sleep({warn})
        process.send_signal(signal.SIGTERM)
        print("task 0 exits with", process.wait(), file=sys.stderr)
        process = subprocess.Popen(["bash", script], env=env, stdout=subprocess.DEVNULL)
    process.wait()
print("Submitted batch job 7")
"""


@pytest.mark.slow
def test_slurm_runs_the_array_and_the_same_sweep_puts_the_results_together(tmp_path):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH.format(python=sys.executable, warn=6))
    sbatch.chmod(0o755)
    flags = ["--config=rates", "--engine=slurm", "--cells=gru", "--tasks=delayed_recall", "--steps=2000"]
    flags += ["--config.train.stop_when_solved=false", "--vary=train.seed=0,1"]
    flags += ["--vary=optim.learning_rate=0.01", f"--workdir={tmp_path / 'out'}"]
    command = [sys.executable, "-m", "experiments.sweep", *flags]
    env = os.environ | {"PATH": f"{sbatch.parent}:{os.environ['PATH']}"}
    first = subprocess.run(command, cwd=commands.ROOT, env=env, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "2 runs, 2 of them to train" in first.stdout and "Submitted batch job 7" in first.stdout
    second = subprocess.run(command, cwd=commands.ROOT, env=env, capture_output=True, text=True)
    assert "2 of 2 runs done (2 before), 0 failed" in second.stdout, second.stdout + second.stderr
    assert len(pd.read_parquet(tmp_path / "out" / "seeds.parquet")) == 2


def test_the_script_of_an_array(tmp_path):
    flags = ["--config=rates", "--engine=slurm", "--dry-run", "--cells=gru", f"--workdir={tmp_path / 'a b'}"]
    done = commands.SHARED.run("experiments.sweep", *flags, "--workers=3", "--sbatch=--time=1:00:00")
    assert done.returncode == 0, done.stderr
    for line in ("#SBATCH --array=0-15%3", "#SBATCH --time=1:00:00", "#SBATCH --requeue"):
        assert line in done.stdout.splitlines()
    assert re.search(rf"'{tmp_path}/a b/jobs-[\d-]+\.json' \"\$SLURM_ARRAY_TASK_ID\"", done.stdout)
    assert f'#SBATCH --output="{tmp_path}/a b/slurm-%A-%a.txt"' in done.stdout.splitlines()
    assert not any(tmp_path.iterdir())
    checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_ray_gives_the_numbers_of_the_run_alone_though_a_process_is_killed(tmp_path):
    """A local cluster of two nodes."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from experiments.engines import on_ray

    runs = {name: config("gru", train=SLOW | {"seed": str(seed)}) for seed, name in enumerate("abc")}
    runs["bad"] = config(model={"strategy": "associative"})
    cluster, killed, events = Cluster(initialize_head=True, head_node_args={"num_cpus": 1}), [], []
    cluster.add_node(num_cpus=1)

    def kill():
        while not killed:
            time.sleep(0.05)
            there = tmp_path / "a" / "metrics.jsonl"
            if there.exists() and len(lines(tmp_path / "a")) > 5:
                pids = subprocess.run(
                    ["pgrep", "-f", "^ray::a$"], capture_output=True, text=True
                ).stdout.split()
                killed.extend(map(int, pids))
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    try:
        thread.start()
        on_ray.run(jobs_in(tmp_path, **runs), events.append, address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    thread.join(10)
    assert len(killed) == 1
    assert {event.job: event.kind for event in events} == dict.fromkeys("abc", "done") | {"bad": "failed"}
    assert "GRU cannot use strategy" in next(event.line for event in events if event.job == "bad")
    alone = train(runs["a"], tmp_path / "alone")
    assert alone.summary.run.status == "finished"
    assert without_times(lines(tmp_path / "a")) == without_times(lines(tmp_path / "alone"))
