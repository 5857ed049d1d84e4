"""Runs in processes of this machine, side by side, each pinned to a core."""

import collections
import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from experiments.engines import Event, Job
from train import host


class Worker:
    """A worker process and the job that it has.

    Args:
      core: that it is pinned to.
      log: file that gets its standard error.
      events: gets (worker, message) for every line that it says, and None when it says no more.
    """

    def __init__(self, core: int | None, log: Path, events: queue.Queue):
        command = [sys.executable, "-m", "experiments.engines.worker"]
        command += [] if core is None else [f"--core={core}"]
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        self.core, self.job, self.heard = core, None, time.monotonic()
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events):
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # torn, by its death
                events.put((self, json.loads(line)))
        events.put((self, None))

    def give(self, job: Job, data_dir: str | None) -> None:
        """Tells it to train."""
        self.job, self.heard = job, time.monotonic()
        try:
            self.process.stdin.write(json.dumps(job.message(data_dir)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died, which its listener tells

    def end(self, number: int) -> None:
        """Sends it a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)


def run(
    jobs: Iterable[Job],
    tell: Callable[[Event], None],
    log: Path,
    data_dir: str | None = None,
    workers: int = 0,
    retries: int = 2,
    patience: float = 900.0,
    stop: threading.Event | None = None,
) -> None:
    """Trains all jobs, and tells of every event; returns when nothing is left to do.

    A worker that dies, or from which nothing was heard for too long, is replaced, and its job goes on from
    its last checkpoint in another one. An error that a run raises would come again, and is not tried again.

    Args:
      jobs: in the order in which they begin.
      log: file that gets what workers print.
      workers: processes; 0: one per core.
      retries: how often a job is given to another worker.
      patience: seconds; longer than a program takes to compile.
      stop: set from outside, asks all workers to keep a checkpoint and end.
    """
    waiting, tries = list(jobs), collections.Counter()
    stop = stop or threading.Event()
    pinned = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if pinned else [None] * host.cores()
    number = min(workers or len(cores), len(waiting))
    events, alive = queue.Queue(), {}

    def start(core):
        worker = Worker(core, log, events)
        alive[worker] = core

    def dead(worker, reason):
        """Its job goes to another worker, or has failed."""
        core, job = alive.pop(worker), worker.job
        worker.end(signal.SIGKILL)
        if job is not None and not stop.is_set():
            tries[job.name] += 1
            if tries[job.name] > retries:
                tell(Event(job.name, "failed", f"{reason}, {tries[job.name]} times"))
            else:
                tell(Event(job.name, "retried", reason))
                waiting.insert(0, job)
        if waiting and not stop.is_set():
            start(core)

    for i in range(number):
        start(cores[i % len(cores)])
    asked = False
    while alive:
        if stop.is_set() and not asked:
            asked = True
            for worker in alive:
                worker.end(signal.SIGTERM if worker.job else signal.SIGKILL)
        try:
            worker, message = events.get(timeout=0.2)
        except queue.Empty:
            for worker in list(alive):
                if worker.job and time.monotonic() - worker.heard > patience:
                    dead(worker, f"no progress for {patience:g} s")
            continue
        if worker not in alive:
            continue
        worker.heard = time.monotonic()
        if message is None:
            code = worker.process.wait()
            if worker.job is None:
                alive.pop(worker)
                if code != 0 and waiting and not stop.is_set():
                    raise ValueError(f"a worker cannot start, exit code {code}; see {log}")
            else:
                dead(worker, f"the worker died ({_cause(code)})")
            continue
        kind = message.pop("kind")
        if kind == "stopped" and not stop.is_set():
            continue  # somebody else's signal: when it has ended, its job goes to another worker
        if kind != "ready":
            tell(Event(worker.job.name, kind, **message))
        if kind != "progress":
            last, worker.job = worker.job, None
            if waiting and not stop.is_set():
                worker.give(_next(waiting, last, [other.job for other in alive if other.job]), data_dir)
            else:
                worker.process.stdin.close()


def _next(waiting: list[Job], last: Job | None, busy: list[Job]) -> Job:
    """Takes the job that begins now: one whose programs the worker has compiled for its last job, else one
    whose programs no other worker is busy with."""

    def program(job):
        return job.config.task.static(), job.config.cell

    at, others = last and program(last), [program(job) for job in busy]
    same = (i for i, job in enumerate(waiting) if program(job) == at)
    new = (i for i, job in enumerate(waiting) if program(job) not in others)
    return waiting.pop(next(itertools.chain(same, new, [0])))


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
