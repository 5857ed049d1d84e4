"""Run directories as DataFrames: plots, reports and notebooks never parse files themselves.

A run directory is any folder that holds `summary.json` or `metrics.jsonl`. In every table:

- `seconds` is wall time since training began, compilation excluded, all seeds of a run together;
- a seed that did not reach the threshold is censored: it counts as infinite time, not as missing;
- runs of one task with one label are pooled, and where their options differ, `label` says how; of a grid of
  learning rates each counts as a run. Folds of one set are pooled, as seeds are;
- every option that was varied (`experiments.varied`) is a column after the others: `gap`, `depth`; with its
  section (`task.gap`) where that name is taken.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiments import varied
from experiments.varied import RUN, SEED
from train.files import digest, write_json
from train.record import FOLDERS, read_summary
from train.same_run import flat
from train.summary import Evaluation, Summary

CURVE = tuple(name for name in Evaluation.names() if name != "seed")
FAILED = "failed.json"  # in the folder of a run that raised an error


def find_runs(*dirs) -> list[Path]:
    """Every run directory at or below `dirs`, sorted, each once.

    Raises:
      FileNotFoundError: a directory is missing, or holds no run.
    """
    runs = {}
    for root in map(Path, dirs):
        if not root.is_dir():
            raise FileNotFoundError(f"no such directory: {root}")
        found, failed, begun = _walk(root)
        if not found and not failed and not begun:
            raise FileNotFoundError(f"no runs (summary.json or metrics.jsonl) in {root}")
        runs |= {path.resolve(): path for path in found}
    return sorted(runs.values())


class Found(NamedTuple):
    """The runs in directories."""

    whole: list[Path]  # which can be read
    unfinished: list[str]  # names of those without a summary
    damaged: list[str]  # a line for each that cannot be read

    def told(self) -> list[str]:
        """What is not in the tables, in lines for people."""
        count, names = len(self.unfinished), ", ".join(self.unfinished[:3])
        more = f" and {count - 3} more" if count > 3 else ""
        which = "1 run has" if count == 1 else f"{count} runs have"
        return [*self.damaged, *([f"{which} not finished: {names}{more}"] if count else [])]


def look(*dirs) -> Found:
    """Which runs at or below `dirs` can be read, and what there is to say of the others.

    Raises:
      FileNotFoundError: see `find_runs`.
    """
    runs = find_runs(*dirs)
    begun = {path.resolve() for root in map(Path, dirs) for path in _walk(root)[2]}
    whole, damaged = [], []
    for run in runs:
        try:
            _check(run)
            whole.append(run)
        except ValueError as error:
            damaged.append(str(error))
    begun |= {run.resolve() for run in whole if not (run / "summary.json").exists()}
    root = os.path.commonpath([path.parent for path in begun | {run.resolve() for run in runs}] or ["."])
    return Found(whole, sorted(os.path.relpath(path, root) for path in begun), damaged)


def _check(run: Path) -> None:
    """Refuses a damaged run with a ValueError that names the file."""
    for name in ("config.json", "resolved.json", "environment.json"):
        if (run / name).exists():
            _json(run / name)
    wanted, metrics = None, run / "metrics.jsonl"
    if (run / "summary.json").exists():
        _, wanted = read_summary(run)
        if not metrics.exists():
            raise ValueError(f"{metrics} is missing; the run's command writes it again")
    _lines(metrics, wanted)


def _walk(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The run directories at or below `root`, those of runs that failed, and those that have written nothing
    but their configs yet. What runs keep inside of theirs, such as checkpoints, is not looked through."""
    found, failed, begun = [], [], []
    for folder, below, files in os.walk(root):
        if "summary.json" in files or "metrics.jsonl" in files:
            found.append(Path(folder))
        elif {"config.json", "resolved.json"} <= {*files} and FAILED not in files:
            begun.append(Path(folder))
        if FAILED in files:
            failed.append(Path(folder))
        below[:] = [name for name in below if name not in FOLDERS]
    return found, failed, begun


def load_curves(*dirs) -> pd.DataFrame:
    """One row per run, seed and evaluation, sorted by task, label, run, seed and step.

    Columns: those of the run (`RUN`), `seed`, those of the evaluation (`CURVE`), and `diverged_step` of the
    seed (NaN: it did not, or has not ended). A run without a
    summary (killed, or still going) has the status "unfinished" and what its config tells. Where a run
    that was resumed wrote a step twice, the later line counts.

    Raises:
      FileNotFoundError: see `find_runs`.
      ValueError: a file is not JSON; a torn last line of `metrics.jsonl` is ignored.
    """
    rows = []
    for run in _load(dirs):
        gone = {(row["seed"], row["learning_rate"]): row["diverged_step"] for row in run.seeds}
        lines = _lines(run.path / "metrics.jsonl", run.metrics)
        lines = [row | {"diverged_step": gone.get((row["seed"], row["learning_rate"]))} for row in lines]
        rows += _rows(run.columns, lines)
    curves = _frame(rows, (*CURVE, "diverged_step")).drop_duplicates(
        ["run", "label", "seed", "step"], keep="last"
    )
    return curves.sort_values(["task", "label", "run", "seed", "step"], ignore_index=True)


def load_seeds(*dirs) -> pd.DataFrame:
    """One row per seed of every run that has a summary, sorted by task, label, run and seed.

    Columns: those of the run (`RUN`), `seed`, and those of the seed (`SEED`); `solved_*` and
    `diverged_step` are NaN where it did not happen.

    Raises:
      FileNotFoundError, ValueError: see `load_curves`.
    """
    seeds = _frame([row for run in _load(dirs) for row in _rows(run.columns, run.seeds)], SEED)
    return seeds.sort_values(["task", "label", "run", "seed"], ignore_index=True)


def seeds_frame(summary: Summary) -> pd.DataFrame:
    """`load_seeds` of one run that was not written to disk: the summary that `train.loop.train` returns."""
    parts = _by_rate({"run": "run"} | summary.run, {}, summary.seeds)
    varied.tell_apart(list(parts.values()))
    return _frame(_rows({rate: part.columns for rate, part in parts.items()}, summary.seeds), SEED)


def load_environments(*dirs) -> pd.DataFrame:
    """One row per run that recorded its environment: `run`, then versions, device, cpu, commit, command."""
    paths = {run.path / "environment.json": run.name for run in _load(dirs)}
    return pd.DataFrame([{"run": name} | _json(path) for path, name in paths.items() if path.exists()])


def load_configs(*dirs) -> pd.DataFrame:
    """One row per run: `run`, `task`, and every field of its config as it ran (of older runs as it was asked
    for): `task.gap`, `train.steps`; of a grid `optim.learning_rates` alone."""
    rows = []
    for run in _load(dirs):
        resolved = run.path / "resolved.json"
        fields = run.options | (flat(_json(resolved)) if resolved.exists() else {})
        if fields.get("optim.learning_rates"):
            fields.pop("optim.learning_rate", None)
        rows.append({"run": run.name, "task": next(iter(run.columns.values()))["task"]} | fields)
    return pd.DataFrame(rows)


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
    name: str  # the path below what all have in common
    columns: dict[float | None, dict]  # by learning rate, where it has a grid; labels are told apart
    options: dict  # its config, flat
    seeds: list[dict]
    metrics: str | None  # digest of its metrics.jsonl, where it has ended


def _load(dirs) -> list[_Loaded]:
    """Every run."""
    paths = find_runs(*dirs)
    if not paths:
        return []
    root = os.path.commonpath([path.resolve().parent for path in paths])
    loaded, parts = [], []
    for path in paths:
        config = _json(path / "config.json") if (path / "config.json").exists() else {}
        wanted, name = None, os.path.relpath(path.resolve(), root)
        if (path / "summary.json").exists():
            summary, wanted = read_summary(path)
            run, seeds = summary.run.to_dict(), summary.seeds
        else:
            task, cell = (_name(config.get(key)) or path.name for key in ("task", "cell"))
            run, seeds = {"task": task, "cell": cell, "status": "unfinished"}, []
            run["label"] = config.get("label") or cell
        run, options = {"run": name} | {key: run[key] for key in RUN if key in run}, flat(config)
        by_rate = _by_rate(run, options, seeds)
        columns = {rate: part.columns for rate, part in by_rate.items()}
        loaded.append(_Loaded(path, name, columns, options, seeds, wanted))
        parts += by_rate.values()
    varied.tell_apart(parts)
    return loaded


def _by_rate(run: dict, options: dict, seeds) -> dict[float | None, varied.Run]:
    """A run, or what each learning rate of its grid makes."""
    rates = options.get("optim.learning_rates") or sorted({row["learning_rate"] for row in seeds} - {None})
    if len(rates) < 2:
        return {None: varied.Run(run, options)}
    options = {key: value for key, value in options.items() if key != "optim.learning_rates"}
    return {rate: varied.Run(dict(run), options | {"optim.learning_rate": rate}) for rate in rates}


def _rows(columns: dict, rows: list[dict]) -> list[dict]:
    """The rows of a run with its columns."""
    found = []
    for row in rows:
        run = columns.get(row["learning_rate"]) or columns.get(None) or next(iter(columns.values()))
        # An old run's rows do not have all that its config says.
        found.append(run | {key: value for key, value in row.items() if value is not None or key not in run})
    return found


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
