"""Run directories as DataFrames: plots, reports and notebooks never parse files themselves.

A run directory is any folder that holds `summary.json` or `metrics.jsonl`. In every table:

- `seconds` is wall time since training began, compilation excluded, all seeds of a run together;
- a seed that did not reach the threshold is censored: it counts as infinite time, not as missing;
- runs of one task with one label are pooled, and where their options differ, `label` says how; so it does
  where a run trained with several learning rates. Folds of one set are pooled, as seeds are;
- every field of the configs in which the runs differ is a column after the others: `gap`, `depth`; with its
  section (`task.gap`) where that name is taken.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from train.files import digest, write_json
from train.record import FOLDERS, read_summary
from train.same_run import flat
from train.summary import Evaluation, RunSummary, SeedSummary, Summary

RUN = ("run", *RunSummary.names())
CURVE = tuple(name for name in Evaluation.names() if name != "seed")
SEED = tuple(name for name in SeedSummary.names() if name != "seed")
FAILED = "failed.json"  # in the folder of a run that raised an error
# Fields of a config that do not make another experiment.
_NOT_OPTIONS = {"name", "label", "seed", "seeds", "checkpoint_seconds", "tensorboard", "learning_rates"}
_POOLED = {"fold"}  # other data of the same experiment
_MEASURED = ("cell", "hidden_size", "strategy", "device", "devices")  # what a config left open


def find_runs(*dirs) -> list[Path]:
    """Every run directory at or below `dirs`, sorted, each once.

    Raises:
      FileNotFoundError: a directory is missing, or holds no run.
    """
    runs = {}
    for root in map(Path, dirs):
        if not root.is_dir():
            raise FileNotFoundError(f"no such directory: {root}")
        found, failed = _walk(root)
        if not found and not failed:
            raise FileNotFoundError(f"no runs (summary.json or metrics.jsonl) in {root}")
        runs |= {path.resolve(): path for path in found}
    return sorted(runs.values())


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """The run directories at or below `root`, and those of runs that failed. What runs keep inside of theirs,
    such as checkpoints, is not looked through."""
    found, failed = [], []
    for folder, below, files in os.walk(root):
        if "summary.json" in files or "metrics.jsonl" in files:
            found.append(Path(folder))
        if FAILED in files:
            failed.append(Path(folder))
        below[:] = [name for name in below if name not in FOLDERS]
    return found, failed


def load_curves(*dirs) -> pd.DataFrame:
    """One row per run, seed and evaluation, sorted by task, label, run, seed and step.

    Columns: those of the run (`RUN`), `seed`, and those of the evaluation (`CURVE`). A run without a
    summary (killed, or still going) has the status "unfinished" and what its config tells. Where a run
    that was resumed wrote a step twice, the later line counts.

    Raises:
      FileNotFoundError: see `find_runs`.
      ValueError: a file is not JSON; a torn last line of `metrics.jsonl` is ignored.
    """
    rows = []
    for path, run, _, wanted in _load(dirs):
        rows += _rows(run, _lines(path / "metrics.jsonl", wanted))
    curves = _frame(rows, CURVE).drop_duplicates(["run", "label", "seed", "step"], keep="last")
    return curves.sort_values(["task", "label", "run", "seed", "step"], ignore_index=True)


def load_seeds(*dirs) -> pd.DataFrame:
    """One row per seed of every run that has a summary, sorted by task, label, run and seed.

    Columns: those of the run (`RUN`), `seed`, and those of the seed (`SEED`); `solved_*` and
    `diverged_step` are NaN where it did not happen.

    Raises:
      FileNotFoundError, ValueError: see `load_curves`.
    """
    seeds = _frame([row for _, run, seeds, _ in _load(dirs) for row in _rows(run, seeds)], SEED)
    return seeds.sort_values(["task", "label", "run", "seed"], ignore_index=True)


def seeds_frame(summary: Summary) -> pd.DataFrame:
    """`load_seeds` of one run that was not written to disk: the summary that `train.loop.train` returns."""
    return _frame(_rows({"run": "run"} | summary.run, summary.seeds), SEED)


def load_environments(*dirs) -> pd.DataFrame:
    """One row per run that recorded its environment: `run`, then versions, device, cpu, commit, command."""
    runs = [(path, run) for path, run, *_ in _load(dirs) if (path / "environment.json").exists()]
    return pd.DataFrame([{"run": run["run"]} | _json(path / "environment.json") for path, run in runs])


def mark_failed(folder: Path, error: Exception | str | None, config=None) -> None:
    """Leaves word of a run that failed, for `load_failures`; without an error takes it away.

    Args:
      error: what it raised, or the line that says so.
      config: the run's RunConfig.
    """
    path = Path(folder) / FAILED
    if error is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = {"task": config.to_dict()["task"]["name"], "label": config.label or type(config.cell).__name__}
    text = error if isinstance(error, str) else f"{type(error).__name__}: {str(error).strip()}"
    text = text.splitlines()[0]
    write_json(path, failed | {"error": text})


def load_failures(*dirs) -> pd.DataFrame:
    """One row per run that failed: `task`, `label`, `error`."""
    files = {(folder / FAILED).resolve() for root in map(Path, dirs) for folder in _walk(root)[1]}
    return pd.DataFrame([_json(file) for file in sorted(files)], columns=["task", "label", "error"])


class _Loaded(NamedTuple):
    path: Path
    run: dict  # its columns, with labels told apart
    seeds: list[dict]
    metrics: str | None  # digest of its metrics.jsonl, where it has ended


def _load(dirs) -> list[_Loaded]:
    """Every run."""
    paths = find_runs(*dirs)
    if not paths:
        return []
    root = os.path.commonpath([path.resolve().parent for path in paths])
    loaded, varied, same = [], [], defaultdict(list)
    for path in paths:
        config = _json(path / "config.json") if (path / "config.json").exists() else {}
        wanted = None
        if (path / "summary.json").exists():
            summary, wanted = read_summary(path)
            run, seeds = summary.run.to_dict(), summary.seeds
        else:
            task, cell = (_name(config.get(key)) or path.name for key in ("task", "cell"))
            run, seeds = {"task": task, "cell": cell, "status": "unfinished"}, []
            run["label"] = config.get("label") or cell
        run = {"run": os.path.relpath(path.resolve(), root)} | {key: run[key] for key in RUN if key in run}
        options = flat(config)
        varied.append((run, options))
        options = options | {key: run[key] for key in _MEASURED if key in run}
        loaded.append(_Loaded(path, run, seeds, wanted))
        same[run["task"], run["label"]].append((run, options))
    for group in same.values():
        _tell_apart(group)
    _add_options(varied)
    return loaded


def _rows(run: dict, rows: list[dict]) -> list[dict]:
    """The rows of a run with the run's columns; where it trained a grid, labels say the learning rate."""
    several = len({row.get("learning_rate") for row in rows}) > 1
    tell = {row["learning_rate"]: f" (learning_rate={row['learning_rate']:g})" for row in rows if several}
    # An old run's rows do not have all that its config says.
    rows = ({k: v for k, v in row.items() if v is not None or k not in run} for row in rows)
    return [
        run | row | {"label": run["label"] + tell[row["learning_rate"]]} if several else run | row
        for row in rows
    ]


def _differing(group: list[tuple[dict, dict]]) -> list[str]:
    """The options ("task.gap") in which the runs of a group that have them differ."""
    values = defaultdict(set)
    for _, options in group:
        for key, value in options.items():
            values[key].add(repr(value))
    return sorted(key for key in values if len(values[key]) > 1 and key.split(".")[-1] not in _NOT_OPTIONS)


def _tell_apart(group: list[tuple[dict, dict]]):
    """Adds to the label of each run the options in which the runs of this group differ."""
    differing = [key for key in _differing(group) if key.split(".")[-1] not in _POOLED]
    for run, options in group if differing else ():
        own = {key.split(".")[-1]: options[key] for key in differing if key in options}
        run["label"] += f" ({', '.join(f'{key}={value}' for key, value in own.items())})"


def _add_options(group: list[tuple[dict, dict]]):
    """Adds to each run the options in which runs differ: `gap`, or `task.gap` where the name is taken."""
    differing = _differing(group)
    names = [key.split(".")[-1] for key in differing]
    for key, name in zip(differing, names, strict=True):
        if all(run.get(name) == options[key] for run, options in group if key in options):
            continue  # a column says it already
        taken = name in RUN or name in SEED and name != "learning_rate" or names.count(name) > 1
        column = name if not taken else key if "." in key else f"config.{key}"
        for run, options in group:
            if key in options:
                value = options[key]
                run[column] = str(value) if isinstance(value, list) else value


def _name(part) -> str | None:
    return part.get("name") if isinstance(part, dict) else part


def _frame(rows: list[dict], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    known = [*RUN, "seed", *columns]
    frame = frame.reindex(columns=known + [name for name in frame.columns if name not in known])
    nulls = [name for name in columns if name != "solved" and frame[name].dtype == object]
    return frame.astype(dict.fromkeys(nulls, float))


def _json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: no fields in it")
    return content


def _lines(file: Path, wanted: str | None) -> list[Evaluation]:
    text = file.read_text(errors="replace") if file.exists() else ""
    if wanted is not None and digest(text) != wanted:
        raise ValueError(f"{file} is not what the run wrote; the run's command writes it again")
    lines, rows = text.splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Evaluation.from_dict(json.loads(line)))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{file}:{number}: no row of metrics: {error}") from None
    return rows
