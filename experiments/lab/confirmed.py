"""Kept training runs of which other code than today's made the rest: does today's begin them alike?

Code changes more often than what it computes. A run whose first evaluation comes out again is kept; what was
measured on it, and all else that other code has made, is measured again.
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.lab import freshness, store
from train.config import RunConfig
from train.environment import environment
from train.loop import train
from train.record import finished
from train.summary import Evaluation

# Relative difference of losses that is rounding, after up to a hundred steps which make it grow.
SAME = 1e-3
WORDS = FRESH, SAME_TO_THE_BIT, SAME_BUT_ROUNDING, DIFFERENT = (
    "fresh", "the same", "but for rounding", "different",
)  # fmt: skip


class Found(NamedTuple):
    """Of one kept run.

    Attributes:
      word: FRESH (it was not trained again), SAME_TO_THE_BIT, SAME_BUT_ROUNDING, DIFFERENT.
      step: of its first evaluation.
      difference: the largest relative one between losses there.
    """

    name: str
    word: str
    step: int = 0
    difference: float = 0.0


def confirm(workdir: Path, experiment: str, data_dir: str | None = None) -> Iterable[Found]:
    """Begins each kept run of an experiment again, and notes it, in `trained/`, where it comes out the same.

    Pieces of work that other code has made are deleted, all but those of runs alone.

    Args:
      workdir: the experiment's; nobody else has it.
      experiment: its name.
    """
    workdir, runs = Path(workdir), set()
    for folder in sorted(workdir.glob("runs/*")):
        if finished(folder) is None:
            continue
        config = RunConfig.from_dict(json.loads((folder / "config.json").read_text()))
        runs.add(folder.name)
        yield _confirm(workdir, folder, config, experiment, data_dir)
    labels = None  # of an experiment that has not come to its end: all
    with contextlib.suppress(OSError, ValueError, KeyError):
        labels = json.loads((workdir / "environment.json").read_text())["labels"]
    for path in sorted(workdir.glob("done/*.json")):
        piece = json.loads(path.read_text())
        said = piece.get("code", {})
        if path.stem in runs and piece["settings"].keys() == {"config"} and freshness.of_runs(said) == said:
            continue  # rows of a run, on which nothing was measured
        own = labels
        if "config" in piece["settings"]:
            own = store.labels_of(RunConfig.from_dict(piece["settings"]["config"]))
        if not _covers(said, freshness.code_of(experiment, own)):
            path.unlink()


def _covers(said: dict[str, str], now: dict[str, str]) -> bool:
    """Whether it was all of this code; beside it there may be that of other cells."""
    return all(said.get(path) == digest for path, digest in now.items())


def _confirm(workdir, folder, config, experiment, data_dir) -> Found:
    name, labels = folder.name, store.labels_of(config)
    now = freshness.of_labels(freshness.of_runs(freshness.code_of(experiment, labels)), labels)
    said = store.read_note(workdir, name).get("code")
    if said is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            piece = json.loads((workdir / "done" / f"{name}.json").read_text())
            said = piece["code"]
    if said and _covers(said, now):
        return Found(name, FRESH)
    kept = first_rows(folder)
    with tempfile.TemporaryDirectory() as again:
        begin(config, Path(again), data_dir)
        step, difference = kept[0].step, apart(kept, first_rows(Path(again)))
    if difference > SAME:
        return Found(name, DIFFERENT, step, difference)
    here = environment()
    commit = (here["git_commit"] or "unknown") + (" with changes" if here["git_dirty"] else "")
    told = {"step": step, "difference": difference, "commit": commit, "date": here["started"][:10]}
    store.write_note(workdir, name, now, confirmed=told)
    return Found(name, SAME_BUT_ROUNDING if difference else SAME_TO_THE_BIT, step, difference)


class _Enough(Exception):
    pass


def begin(config: RunConfig, folder: Path, data_dir: str | None = None) -> None:
    """Trains a run until its first evaluation."""

    def watch(progress):
        if progress.step:
            raise _Enough

    with contextlib.suppress(_Enough):
        train(config, folder, data_dir, watch=watch)


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
            if a != b:
                both = a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
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
