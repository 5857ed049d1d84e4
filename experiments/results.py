"""What runs say together: aggregates of the tables of `experiments.loading`, for people, and on disk."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from experiments import output, varied
from experiments.lab import statistics
from experiments.loading import (
    FAILED,
    find_runs,
    load_configs,
    load_curves,
    load_environments,
    load_failures,
    load_seeds,
    look,
    mark_failed,
    seeds_frame,
)
from experiments.varied import RUN, SEED
from train.summary import Summary
from train.tasks import TASKS

__all__ = [
    "FAILED",
    "RUN",
    "SEED",
    "UNITS",
    "aggregate",
    "caption",
    "find_runs",
    "line",
    "load_configs",
    "load_curves",
    "load_environments",
    "load_failures",
    "load_seeds",
    "look",
    "mark_failed",
    "markdown",
    "options_of",
    "seeds_frame",
    "table",
    "text",
    "write_tidy",
]

QUARTILES = (0.5, 0.25, 0.75)
LEFT_OUT = ("ms/step", "seconds", "state", "params")  # in this order, where a terminal is too narrow
UNITS = ("step", "examples", "tokens", "seconds")
_SPREAD = (*(f"solved_{unit}" for unit in UNITS), "test_metric", "best_test_metric")
_OWN = {"solved", "diverged", "limit_step", "limit_seconds", "folds", "fold_mean", "fold_sd"}
_OWN |= {*RUN, *SEED, "seeds", *(f"{name}{end}" for name in _SPREAD for end in ("_q25", "_q75"))}


def aggregate(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per task and label, out of `load_seeds`, with the columns of its options.

    `seeds`, `solved` and `diverged` are counts. `solved_step`, `solved_examples`, `solved_tokens` and
    `solved_seconds` are what the first half of all seeds needed to reach the threshold, `*_q25` and `*_q75`
    what the first quarter and the first three quarters needed: always the value of some seed, and infinite
    where too few solved the task. `limit_step` and `limit_seconds` say how long the unsolved seeds were
    watched. `test_metric` and its quartiles are over all seeds, at the end, `best_test_metric` at the
    evaluation with the best validation metric. One without a score, because it diverged, counts as the
    worst. `seconds_per_step` and `compile_seconds` are medians over runs.

    Where runs are folds of a cross-validation, `folds` counts them; `fold_mean` and `fold_sd` are of their
    `best_test_metric`, each the mean of its seeds, and NaN where one has no score.
    """
    rows = []
    options = ["learning_rate", *(name for name in seeds.columns if name not in (*RUN, "seed", *SEED))]
    for _, group in seeds.groupby(["task", "label"]):
        runs, run, solved = group.drop_duplicates("run"), group.iloc[0], group["solved"].astype(bool)
        watched = group["budget_steps"].where(group["status"] == "finished", group["steps"])
        row = run[[name for name in RUN[1 : RUN.index("batch_size") + 1] if name in run]].to_dict() | {
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
            row |= _spread(f"solved_{unit}", statistics.reached(times, QUARTILES))
        for name in ("test_metric", "best_test_metric"):
            tests = group[name] if name in group else np.nan * group["test_metric"]  # older runs
            tests = statistics.worst_last(tests, run["higher_is_better"])
            row |= _spread(name, statistics.quantiles(tests, QUARTILES))
        row |= runs[["seconds_per_step", "compile_seconds"]].median().to_dict() | _folds(group)
        same = [name for name in options if name in group and group[name].nunique(dropna=False) == 1]
        rows.append(row | run[same].to_dict())
    order = varied.in_order(row["label"] for row in rows)
    return pd.DataFrame(sorted(rows, key=lambda row: (row["task"], order.index(row["label"]))))


def _folds(group: pd.DataFrame) -> dict[str, float]:
    """Mean and standard deviation over folds, where there are several."""
    if "fold" not in group or group["fold"].nunique() < 2:
        return {}
    scores = group.groupby("fold")["best_test_metric"].agg(lambda scores: scores.mean(skipna=False))
    return {
        "folds": len(scores),
        "fold_mean": scores.mean(skipna=False),
        "fold_sd": scores.std(skipna=False),
    }


def _spread(name: str, values) -> dict[str, float]:
    return dict(zip((name, f"{name}_q25", f"{name}_q75"), map(float, values), strict=True))


def text(aggregated: pd.DataFrame) -> pd.DataFrame:
    """`aggregate`, formatted for people: strings only, one row per task and label, medians with quartiles.

    Options that were varied have a column each, which the column "cell" leaves out. A column "at best" is
    there where some test is another one at the best validation metric, a column "over folds" (mean and
    standard deviation) where there are folds, a column "state" (how many numbers it has) for tasks of recall.
    """
    options = options_of(aggregated)
    found = pd.DataFrame(
        {"task": row["task"], "cell": varied.without(row["label"], *options)}
        | {name: "" if pd.isna(row[name]) else varied.text(row[name]) for name in options}
        | {
            "params": f"{row['parameters']:,}",
            "state": f"{row['state_size']:,.0f}" if (row.get("state_size") or 0) > 0 else "",
            "solved": f"{row['solved']}/{row['seeds']}" + _remark(row),
            "steps to solve": _time(row, "solved_step", row["limit_step"]),
            "seconds": _time(row, "solved_seconds", row["limit_seconds"]),
            "test": _range(row, "test_metric", _number),
            "at best": _range(row, "best_test_metric", _number) if "best_test_metric" in row else "",
            "over folds": _over_folds(row),
            "ms/step": _number(1000 * row["seconds_per_step"]),
        }
        for row in aggregated.to_dict("records")
    )
    recall = (getattr(TASKS.table.get(task), "of_recall", False) for task in aggregated["task"])
    there = {"at best": _differs(aggregated).any(), "over folds": "folds" in aggregated, "state": any(recall)}
    return found.drop(columns=[name for name, shown in there.items() if not shown])


def options_of(aggregated: pd.DataFrame) -> list[str]:
    """The columns of `aggregate` that are options in which rows of one task differ."""
    return varied.columns(aggregated, _OWN)


def _over_folds(row: dict) -> str:
    """Mean and standard deviation over folds; empty where there are none."""
    if np.isnan(row.get("folds", np.nan)):
        return ""
    return f"{_number(row['fold_mean'])} ± {_number(row['fold_sd'])} ({row['folds']:.0f} folds)"


def _differs(aggregated: pd.DataFrame) -> pd.Series:
    """Whether a test is another one at the best validation metric; older runs did not say."""
    if "best_test_metric" not in aggregated:
        return pd.Series(False, aggregated.index)
    best = aggregated["best_test_metric"]
    return np.isfinite(best) & (best.map(_number) != aggregated["test_metric"].map(_number))


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


def table(aggregated: pd.DataFrame, failed: pd.DataFrame | None = None, width: int = 80) -> Table:
    """`aggregate` for a terminal: a section per task, quartiles below medians; below a test that at the best
    validation metric, where it is another one; of folds mean and standard deviation.

    Args:
      failed: `load_failures`, which get a row each.
      width: columns of the terminal; below 80 the table says nothing of time, and where words would be
        broken it leaves out `LEFT_OUT`.
    """
    if width < 80:
        slim = table(aggregated, failed, 80)
        slim.columns = [column for column in slim.columns if column.header not in ("seconds", "ms/step")]
        return slim
    strings = text(aggregated).drop(columns=["task", "at best", "over folds"], errors="ignore")
    strings = strings.replace({r" \((.*)\)": r"\n\1"}, regex=True)
    strings["test"] = aggregated["test_metric"].map(_number)
    if (other := _differs(aggregated)).any():
        strings.loc[other, "test"] += "\nbest " + aggregated["best_test_metric"][other].map(_number)
    for i, row in enumerate(aggregated.to_dict("records")):
        if folds := _over_folds(row):
            strings.iloc[i, strings.columns.get_loc("test")] = folds.replace(" (", "\n(")
    heads = {"test": [*aggregated["metric"]], "cell": [*aggregated["task"]]}
    gap = 2
    if _least(strings, heads, gap) > width:
        strings, gap = strings.replace({r"–(?=\S)": "–\n"}, regex=True), 1
    for name in LEFT_OUT:
        if name in strings and _least(strings, heads, gap) > width:
            strings = strings.drop(columns=name)
    padding = (0, gap - 1, 0, 0)  # the box has a space between columns, too
    out = Table(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
    spare, longest = width - _least(strings, heads, gap), max(map(len, strings["cell"]), default=0)
    for name, least in _widths(strings, heads).items():
        if gap == 1:  # rich would take it from any column
            least += max(0, min(spare, longest - least)) if name == "cell" else 0
        out.add_column(
            Text(name.replace("_", " ")),
            justify="left" if name == "cell" else "right",
            overflow="fold",
            min_width=least,
            width=least if gap == 1 else None,
        )
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


def _least(strings: pd.DataFrame, heads: dict[str, list[str]], gap: int) -> int:
    """How wide a table is at least."""
    return sum(_widths(strings, heads).values()) + gap * len(strings.columns)


def _widths(strings: pd.DataFrame, heads: dict[str, list[str]]) -> dict[str, int]:
    """How wide each column is at least, if no word in it is to be broken but what names a cell."""
    found = {}
    for name in strings.columns:
        cells = [name.replace("_", " "), *heads.get(name, []), *(strings[name] if name != "cell" else [])]
        found[name] = max(len(word) for cell in cells for word in cell.split())
    return found


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
    """Writes `curves`, `seeds` and `summary` (`aggregate`; "inf" is a censored time) as CSV, the first two as
    Parquet too.

    Args:
      dirs: one directory or several.

    Returns:
      The path of each file, by its name.
    """
    dirs = [dirs] if isinstance(dirs, str | os.PathLike) else list(dirs)
    seeds = load_seeds(*dirs)
    frames = {"curves": load_curves(*dirs), "seeds": seeds, "summary": aggregate(seeds)}
    out_dir, paths = Path(out_dir), {}
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        paths[f"{name}.csv"] = out_dir / f"{name}.csv"
        output.write_frame(paths[f"{name}.csv"], frame)
        if name != "summary":
            paths[f"{name}.parquet"] = out_dir / f"{name}.parquet"
            output.write_parquet(paths[f"{name}.parquet"], frame)
    return paths
