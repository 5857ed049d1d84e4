"""Runs on disk to tidy DataFrames: plots, reports and notebooks never parse files themselves.

A run directory is any folder that holds `summary.json` or `metrics.jsonl`. In every table here:

- `seconds` is wall time since training began, compilation excluded, all seeds of a run together;
- a seed that did not reach the threshold is censored: it counts as infinite time, not as missing;
- runs of one task with one label are pooled, and where their options differ, `label` says how; so it does
  where a run trained with several learning rates;
- every field of the configs in which the runs differ is a column after the others: `gap`, `depth`; with its
  section (`task.gap`) where that name is taken.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from experiments import output
from train.files import digest, write_json
from train.record import read_summary
from train.summary import Evaluation, RunSummary, SeedSummary, Summary

RUN = ("run", *RunSummary.names())
CURVE = tuple(name for name in Evaluation.names() if name != "seed")
SEED = tuple(name for name in SeedSummary.names() if name != "seed")
FAILED = "failed.json"  # in the folder of a run that raised an error
UNITS = ("step", "examples", "tokens", "seconds")
# Fields of a config that do not make another experiment.
_NOT_OPTIONS = {"name", "label", "seed", "seeds", "checkpoint_seconds", "tensorboard", "learning_rates"}
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
        found = [file.parent for name in ("summary.json", "metrics.jsonl") for file in root.rglob(name)]
        if not found and not any(root.rglob(FAILED)):
            raise FileNotFoundError(f"no runs (summary.json or metrics.jsonl) in {root}")
        runs |= {path.resolve(): path for path in found}
    return sorted(runs.values())


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


def mark_failed(folder: Path, error: Exception | None, config=None) -> None:
    """Leaves word of a run that failed, for `load_failures`; without an error takes it away.

    Args:
      config: the run's RunConfig.
    """
    path = Path(folder) / FAILED
    if error is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = {"task": config.to_dict()["task"]["name"], "label": config.label or type(config.cell).__name__}
    text = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    write_json(path, failed | {"error": text})


def load_failures(*dirs) -> pd.DataFrame:
    """One row per run that failed: `task`, `label`, `error`."""
    files = {file.resolve() for root in map(Path, dirs) for file in root.rglob(FAILED)}
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
        options = _flat(config)
        varied.append((run, options))
        options = options | {key: run[key] for key in _MEASURED if key in run}
        loaded.append(_Loaded(path, run, seeds, wanted))
        same[run["task"], run["label"]].append((run, options))
    for group in same.values():
        _tell_apart(group)
    _add_options(varied)
    return loaded


def _flat(config: dict) -> dict:
    """{"task.gap": 100, ...} of a nested config."""
    return pd.json_normalize(config).to_dict("records")[0] if config else {}


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
    differing = _differing(group)
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


def aggregate(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per task and label, out of `load_seeds`, with the columns of its options.

    `seeds`, `solved` and `diverged` are counts. `solved_step`, `solved_examples`, `solved_tokens` and
    `solved_seconds` are what the first half of all seeds needed to reach the threshold, `*_q25` and `*_q75`
    what the first quarter and the first three quarters needed: always the value of some seed, and infinite
    where too few solved the task. `limit_step` and `limit_seconds` say how long the unsolved seeds were
    watched. `test_metric` and its quartiles are over all seeds; one without a
    score, because it diverged, counts as the worst. `seconds_per_step` and
    `compile_seconds` are medians over runs.
    """
    rows = []
    options = ["learning_rate", *(name for name in seeds.columns if name not in (*RUN, "seed", *SEED))]
    for _, group in seeds.groupby(["task", "label"]):
        runs, run, solved = group.drop_duplicates("run"), group.iloc[0], group["solved"].astype(bool)
        watched = group["budget_steps"].where(group["status"] == "finished", group["steps"])
        row = run[[*RUN[1 : RUN.index("batch_size") + 1]]].to_dict() | {
            "device": run["device"],
            "budget_steps": group["budget_steps"].max(),
            "status": ", ".join(sorted(set(group["status"]))),
            "seeds": len(group),
            "solved": solved.sum(),
            "diverged": group["diverged_step"].notna().sum(),
            "limit_step": watched[~solved].min(),
            "limit_seconds": group["run_seconds"][~solved].min(),
        }
        for unit in UNITS:
            times = group[f"solved_{unit}"].where(solved, np.inf).to_numpy(float)
            row |= _spread(f"solved_{unit}", np.quantile(times, [0.5, 0.25, 0.75], method="inverted_cdf"))
        row |= _spread("test_metric", _quantiles(group["test_metric"], run["higher_is_better"]))
        row |= runs[["seconds_per_step", "compile_seconds"]].median().to_dict()
        same = [name for name in options if name in group and group[name].nunique(dropna=False) == 1]
        rows.append(row | run[same].to_dict())
    return pd.DataFrame(rows)


def _quantiles(scores: pd.Series, higher_is_better: bool) -> np.ndarray:
    """Median and quartiles; a seed without a score is the worst of all."""
    beyond = 1e30  # finite: NumPy makes NaN out of what lies at a number, next to infinity
    found = np.quantile(scores.fillna(-beyond if higher_is_better else beyond), [0.5, 0.25, 0.75])
    return np.where(np.abs(found) > 1e-6 * beyond, np.copysign(np.inf, found), found)


def _spread(name: str, values) -> dict[str, float]:
    return dict(zip((name, f"{name}_q25", f"{name}_q75"), map(float, values), strict=True))


def text(aggregated: pd.DataFrame) -> pd.DataFrame:
    """`aggregate`, formatted for people: strings only, one row per task and cell, medians with quartiles."""
    return pd.DataFrame(
        {
            "task": row["task"],
            "cell": row["label"],
            "params": f"{row['parameters']:,}",
            "solved": f"{row['solved']}/{row['seeds']}" + _remark(row),
            "steps to solve": _time(row, "solved_step", row["limit_step"]),
            "seconds": _time(row, "solved_seconds", row["limit_seconds"]),
            "test": _range(row, "test_metric", _number),
            "ms/step": _number(1000 * row["seconds_per_step"]),
        }
        for row in aggregated.to_dict("records")
    )


def line(summary: Summary) -> str:
    """A run in one line: what its rows of the table say, and how long it took."""
    rows = aggregate(seeds_frame(summary)).to_dict("records")
    run, diverged = summary.run, sum(row["diverged"] for row in rows)
    tests = [
        _number(row["test_metric"]) + (f" (learning_rate={row['learning_rate']:g})" if len(rows) > 1 else "")
        for row in rows
    ]
    parts = [
        f"{sum(row['solved'] for row in rows)}/{len(summary.seeds)} seeds solved it",
        *([f"{diverged} diverged"] if diverged else []),
        f"test {run.metric} {', '.join(tests)}",
        f"{run.steps} steps",
        f"{run.run_seconds:.1f} s + {run.compile_seconds:.1f} s to compile",
    ]
    return ", ".join(parts)


def caption(aggregated: pd.DataFrame) -> str:
    """What the rows of one task have in common, in one line: metric, threshold, baseline, budget, batch."""
    row = aggregated.iloc[0]
    sign = "≥" if row["higher_is_better"] else "≤"
    solved = f"solved at {row['metric']} {sign} {row['threshold']:g}" if pd.notna(row["threshold"]) else ""
    baseline = f"baseline {row['baseline']:g}" if pd.notna(row["baseline"]) else ""
    steps, batch = (
        " or ".join(f"{value:,}" for value in sorted(set(aggregated[name])))
        for name in ("budget_steps", "batch_size")
    )
    budget = f"at most {steps} steps of {batch} examples"
    return "; ".join(filter(None, [f"test {row['metric']}", solved, baseline, budget]))


def table(aggregated: pd.DataFrame, failed: pd.DataFrame | None = None) -> Table:
    """`aggregate` for a terminal of 80 columns: a section per task, quartiles below medians (not of test).

    Args:
      failed: `load_failures`, which get a row each.
    """
    strings = text(aggregated).drop(columns="task").replace({r" \((.*)\)": r"\n\1"}, regex=True)
    strings["test"] = aggregated["test_metric"].map(_number)
    out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in strings.columns:
        out.add_column(name, justify="left" if name == "cell" else "right", overflow="fold")
    for task, group in aggregated.groupby("task"):
        row = group.iloc[0]
        goal = f"to {row['threshold']:g}" if pd.notna(row["threshold"]) else ""
        head = {"cell": task, "steps to solve": goal, "test": row["metric"]}
        out.add_row(*(Text(head.get(name, ""), style="bold") for name in strings.columns))
        for cells in strings.loc[group.index].to_numpy():
            out.add_row(*map(Text, cells))
        for label in [] if failed is None else failed["label"][failed["task"] == task]:
            out.add_row(label, "", "failed", *[""] * (len(strings.columns) - 3))
        out.add_section()
    return out


def markdown(aggregated: pd.DataFrame) -> str:
    """`aggregate` as Markdown: for each task a line that describes it and a table."""
    aggregated = aggregated.reset_index(drop=True)
    strings, parts = text(aggregated), []
    for task, group in aggregated.groupby("task"):
        rows = strings.loc[group.index].drop(columns="task")
        align = ["---"] + ["---:"] * (len(rows.columns) - 1)
        lines = [rows.columns, align, *rows.map(lambda cell: cell.replace("|", "\\|")).to_numpy()]
        parts += [f"**{task}**: {caption(group)}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _range(row: dict, name: str, show) -> str:
    middle, *ends = (show(row[key]) for key in (name, f"{name}_q25", f"{name}_q75"))
    return middle if {*ends} == {middle} else f"{middle} ({'–'.join(ends)})"


def _time(row: dict, name: str, limit: float) -> str:
    whole = name.endswith("step")

    def show(value):
        if np.isinf(value):
            return f">{limit:,.0f}" if whole else f">{_number(limit)}"
        return f"{value:,.0f}" if whole else _number(value)

    return _range(row, name, show)


def _remark(row: dict) -> str:
    stopped = ["interrupted"] if "interrupted" in row["status"] else []
    remarks = ([f"{row['diverged']} diverged"] if row["diverged"] else []) + stopped
    return f" ({', '.join(remarks)})" if remarks else ""


def write_tidy(dirs, out_dir) -> dict[str, Path]:
    """Writes `curves.csv`, `seeds.csv` and `summary.csv` (`aggregate`; "inf" is a censored time).

    Args:
      dirs: one directory or several.

    Returns:
      The path of each file, by its name.
    """
    dirs = [dirs] if isinstance(dirs, str | os.PathLike) else list(dirs)
    seeds = load_seeds(*dirs)
    frames = {"curves.csv": load_curves(*dirs), "seeds.csv": seeds, "summary.csv": aggregate(seeds)}
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        output.write_frame(out_dir / name, frame)
    return {name: out_dir / name for name in frames}
