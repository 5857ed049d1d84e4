"""From a list of runs to an engine and back: what is left to do, what is told, when to stop."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from rich.live import Live

from experiments import results
from experiments.engines import Job, local
from experiments.engines.board import Board
from train import host, same_run
from train.files import locked
from train.record import check_own, clear, finished

Engine = Callable[[list[Job], Callable, threading.Event], None]  # jobs, tell(event), stop


def left(jobs: list[Job], overwrite: bool) -> tuple[list[Job], Board]:
    """The jobs that have not finished, and how things stand.

    Args:
      overwrite: removes all runs first.

    Raises:
      WorkdirError: a folder holds another run than the job's.
    """
    if overwrite:
        there = [job.folder for job in jobs if job.folder.exists()]
        for folder in there:
            check_own(folder)
        for folder in there:
            with locked(folder):
                clear(folder)
    todo, lost = [], {}
    for job in jobs:
        _check(job)
        summary = finished(job.folder)
        if summary is None:
            todo.append(job)
        elif summary.lost:
            lost[job.name] = results.line(summary)
    state = Board(len(jobs), len(jobs) - len(todo) - len(lost))
    state.failed |= lost
    return todo, state


def _check(job: Job) -> None:
    path = job.folder / "config.json"
    if path.exists() and path.with_name("resolved.json").exists():
        same_run.check_saved(path, job.config.to_dict(), {})


def _mark(job: Job, line: str | None) -> None:
    """Leaves word of a failure in the job's folder, where there can be one."""
    with contextlib.suppress(OSError):
        results.mark_failed(job.folder, line, job.config)


def train(todo: list[Job], state: Board, engine: Engine, console) -> int | None:
    """Trains; what fails leaves word in its folder. Returns the signal that asked for a stop, if one did."""
    for job in todo:
        _mark(job, None)
    stop, received, by_name = threading.Event(), [], {job.name: job for job in todo}

    def ask(number, frame):
        received.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # the second one ends it

    def tell(event):
        state.take(event)
        if event.kind == "failed":
            _mark(by_name[event.job], event.line)
        if event.kind in ("done", "failed", "busy", "retried"):
            console.print(f"{event.job}: {event.kind}: {event.line}")

    old = {number: signal.signal(number, ask) for number in host.stop_signals()}
    live = Live(console=console, refresh_per_second=2, get_renderable=state.table, transient=True)
    try:
        with live if console.is_terminal else contextlib.nullcontext():
            engine(todo, tell, stop)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return received[0] if received else None


def train_here(todo: list[Job], state: Board, workers: int, log: Path, console, data_dir=None) -> None:
    """`train`, by processes of this machine.

    Args:
      log: file that gets what they print.

    Raises:
      SystemExit: Ctrl-C or the like; the same command goes on from there.
    """

    def engine(jobs, tell, stop):
        local.run(jobs, tell, log, data_dir, workers, stop=stop)

    if received := train(todo, state, engine, console):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(128 + received)
