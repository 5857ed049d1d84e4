"""Kept training runs of which other code than today's made the rest: does today's begin them alike?

Code changes more often than what it computes. A run whose first evaluation comes out again is kept; what was
measured on it, and all else that other code has made, is measured again.
"""

import contextlib
import json
import math
import os
import signal
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.lab import freshness, store
from train.config import RunConfig
from train.environment import environment
from train.loop import train
from train.record import finished
from train.summary import Evaluation

# Relative difference of losses that is rounding, after up to a hundred steps which make it grow.
SAME = 1e-3
WORDS = FRESH, SAME_TO_THE_BIT, SAME_BUT_ROUNDING, DIFFERENT, ELSEWHERE = (
    "fresh", "the same", "but for rounding", "different", "elsewhere",
)  # fmt: skip


class Found(NamedTuple):
    """Of one kept run.

    Attributes:
      word: FRESH (it was not begun again), SAME_TO_THE_BIT, SAME_BUT_ROUNDING, DIFFERENT, or ELSEWHERE (nor
        was this one: it was trained on another number of devices).
      step: of its first evaluation.
      difference: the largest relative one between losses there.
    """

    name: str
    word: str
    step: int = 0
    difference: float = 0.0
    devices: int = 0  # on which it was trained, if not on as many


def confirm(workdir: Path, experiment: str, data_dir: str | None = None) -> Iterable[Found]:
    """Begins each kept run of an experiment again, where other code has trained it, and notes it where it
    comes out the same; then deletes what other code has measured. Rows of runs stay.

    Args:
      workdir: the experiment's; nobody else has it.
      experiment: its name.

    Raises:
      SystemExit: Ctrl-C or the like.
    """
    workdir, today = Path(workdir), freshness.code_of(experiment)
    for folder in sorted(workdir.glob("runs/*")):
        if finished(folder) is not None:
            yield _confirm(workdir, folder, today, experiment, data_dir)
    for path in sorted(workdir.glob("done/*.json")):
        piece = json.loads(path.read_text())
        said, is_of_run = piece.get("code", {}), piece["settings"].keys() == {"config"}
        rows_of_run = is_of_run and freshness.of_runs(said) == said
        if not rows_of_run and not _is(said, today):
            path.unlink()


def devices_of(folder: Path) -> int:
    """On how many devices a run was trained, which, with the cores, decides how its sums were rounded."""
    try:
        return len(json.loads((folder / "environment.json").read_text())["devices"])
    except (OSError, ValueError, KeyError, TypeError):
        return jax.local_device_count()  # it does not say


def on_one_core() -> None:
    """What engines' workers are, and a process with one device should be, before JAX does anything."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _is(said: dict[str, str], today: dict[str, str]) -> bool:
    """Whether it is today's code. What it does not name has no part in it: what calls that would differ."""
    return bool(said) and all(today.get(path) == digest for path, digest in said.items())


def _confirm(workdir, folder, today, experiment, data_dir) -> Found:
    config = RunConfig.from_dict(json.loads((folder / "config.json").read_text()))
    name, labels, piece = folder.name, store.labels_of(config), {}
    with contextlib.suppress(OSError, ValueError):
        piece = json.loads((workdir / "done" / f"{name}.json").read_text())
    trained, _ = store.made_with(piece, store.read_note(workdir, name))
    if _is(trained, today):
        return Found(name, FRESH)
    if devices_of(folder) != jax.local_device_count():
        return Found(name, ELSEWHERE, devices=devices_of(folder))
    kept = first_rows(folder)
    with tempfile.TemporaryDirectory() as again:
        begin(config, Path(again), data_dir)
        step, difference = kept[0].step, apart(kept, first_rows(Path(again)))
    if difference > SAME:
        store.write_note(workdir, name, trained)  # so that it stays of that code, whoever measures it again
        return Found(name, DIFFERENT, step, difference)
    here, own = environment(), freshness.code_of(experiment, labels)
    commit = (here["git_commit"] or "unknown") + (" with changes" if here["git_dirty"] else "")
    told = {"step": step, "difference": difference, "commit": commit, "date": here["started"][:10]}
    code = freshness.of_labels(freshness.of_runs(own), labels)
    store.write_note(workdir, name, code, confirmed=told)
    return Found(name, SAME_BUT_ROUNDING if difference else SAME_TO_THE_BIT, step, difference)


class _Enough(Exception):
    pass


def begin(config: RunConfig, folder: Path, data_dir: str | None = None) -> None:
    """Trains a run until its first evaluation.

    Raises:
      SystemExit: Ctrl-C or the like.
    """
    before = signal.getsignal(signal.SIGINT)
    watched = threading.current_thread() is threading.main_thread() and before is not signal.SIG_IGN

    def watch(progress):
        if progress.step:
            # The loop gives the handler back when it has had a signal.
            if watched and signal.getsignal(signal.SIGINT) is before:
                raise SystemExit(128 + signal.SIGINT)
            raise _Enough

    with contextlib.suppress(_Enough):
        result = train(config, folder, data_dir, watch=watch)
        if result.signal is not None:
            raise SystemExit(128 + result.signal)


def first_rows(folder: Path) -> list[Evaluation]:
    """The first evaluation of a run: a row for each seed and learning rate."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [Evaluation.from_dict(json.loads(line)) for line in lines]
    return [row for row in rows if row.step == rows[0].step]


def apart(kept: list[Evaluation], again: list[Evaluation]) -> float:
    """The largest relative difference of losses; infinite where the rows are not of the same seeds, rates,
    steps."""
    whose = [[(row.seed, row.learning_rate, row.step) for row in rows] for rows in (kept, again)]
    if whose[0] != whose[1]:
        return math.inf
    found = 0.0
    for one, other in zip(kept, again, strict=True):
        for a, b in ((one.train_loss, other.train_loss), (one.valid_loss, other.valid_loss)):
            a, b = (math.nan if x is None else x for x in (a, b))  # None: of a seed that has diverged
            if a == b or math.isnan(a) and math.isnan(b):
                continue
            both = math.isfinite(a) and math.isfinite(b)
            found = max(found, abs(a - b) / max(abs(a), abs(b)) if both else math.inf)
    return found


def summary(notes: dict[str, dict]) -> dict:
    """Of the runs of an experiment: how many were confirmed so, after how many steps, and how far apart."""
    steps = [note["step"] for note in notes.values()]
    return {
        "runs": len(notes),
        "steps": [min(steps), max(steps)],
        "difference": max(note["difference"] for note in notes.values()),
        "commits": sorted({note["commit"] for note in notes.values()}),
    }
