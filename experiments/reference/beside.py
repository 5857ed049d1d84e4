"""Ours beside what is published: from runs to rows, from rows to tables, a figure and files to commit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

import configs
from experiments import output, results
from experiments.lab import style
from experiments.reference.published import Result
from train import files

FIGURES = Path(__file__).parents[1] / "figures"
FILES = ("seeds.csv", "summary.csv", "environment.json", "published.png")
ABOUT = (
    "python", "jax", "backend", "device_kind", "cpu", "cores", "git_commit", "git_dirty", "started",
    "command",
)  # fmt: skip


def recorded(result: Result) -> Path | None:
    """The folder of the newest committed runs of a result."""
    return max(FIGURES.glob(f"{result.name}-????-??-??"), default=None)


def committed(result: Result) -> pd.DataFrame | None:
    """The seeds of committed runs: of each label those of the newest folder that has it."""
    folders = sorted(FIGURES.glob(f"{result.name}-????-??-??"), reverse=True)
    found = []
    for folder in folders:
        seeds = pd.read_csv(folder / "seeds.csv")
        found.append(seeds[~seeds["label"].isin([label for frame in found for label in frame["label"]])])
    return pd.concat(found, ignore_index=True) if found else None


def rows(result: Result, seeds: pd.DataFrame | None) -> pd.DataFrame:
    """One row per published number and, after those, per label of ours that nothing published stands beside.

    `published`, `ours` (mean over seeds of the test at the best validation metric), `at_end` (at the end) and
    `difference` (ours - published) have the result's unit; `each` is a tuple of the seeds of `ours`. Of
    several learning rates the one counts whose seeds are best on validation. NaN: nothing published, not run,
    or a seed diverged.

    Args:
      seeds: `results.load_seeds`, or as committed.
    """
    finished = None if seeds is None else seeds[seeds["status"] == "finished"]
    ours = {} if finished is None or finished.empty else _ours(result, finished)
    found = []
    for number in result.published:
        row = {"source": str(number.source), "model": number.model, "cell": number.cell}
        row["published"] = number.value
        mine = [label for label, run in ours.items() if result.stands_for(number.cell, label, run["of"])]
        found += [row | ours[label] | {"cell": label} for label in mine] or [row]
    beside = {row["cell"] for row in found}
    found += [{"cell": label} | run for label, run in ours.items() if label not in beside]
    columns = ["source", "model", "cell", "published", "ours", "at_end", "each", "parameters", "steps"]
    frame = pd.DataFrame(found).reindex(columns=[*columns, "seconds", "learning_rate", "device"])
    frame.insert(5, "difference", frame["ours"].astype(float) - frame["published"].astype(float))
    return frame


def _ours(result: Result, seeds: pd.DataFrame) -> dict[str, dict]:
    """What our runs gave, by label."""
    check(result, seeds)
    # The evaluation with the best metric is no choice where the loss is what counts.
    best = "test_loss" if result.metric == "loss" else "best_test_metric"
    name = "loss" if result.metric == "loss" else "metric"
    seeds = seeds.assign(label=seeds["label"].str.replace(r" \(learning_rate=[^)]*\)$", "", regex=True))
    found = {}
    for label, group in seeds.groupby("label", sort=False):
        valid = group.groupby("learning_rate")["best_valid_metric"].mean()
        rate = valid.idxmax() if group["higher_is_better"].iloc[0] else valid.idxmin()
        chosen = group[group["learning_rate"] == rate]
        run, each = chosen.iloc[0], result.scale * chosen[best].to_numpy(float)
        found[label] = {
            "of": run["cell"],
            "ours": each.mean(),
            "at_end": result.scale * chosen[f"test_{name}"].astype(float).mean(skipna=False),
            "each": tuple(each),
            "parameters": run["parameters"],
            "steps": run["budget_steps"],
            "seconds": run["run_seconds"],
            "learning_rate": rate,
            "device": run["device"],
        }
    return found


def check(result: Result, seeds: pd.DataFrame) -> None:
    """Refuses runs that are not of this result.

    Raises:
      ValueError: another metric, or none that has finished.
    """
    for metric in set(seeds["metric"]):
        if result.metric not in ("loss", metric):
            raise ValueError(f"{result.name} is about {result.metric}; these runs have {metric}")


def show(result: Result, frame: pd.DataFrame, console: Console, folder: Path | None, every=False) -> None:
    """Prints a result for a terminal of 80 columns; `every`: with seeds, protocols and what was checked.

    Args:
      frame: `rows`.
      folder: of the committed runs, where ours are those.
    """
    size = f", {result.parameters:,} parameters" if result.parameters else ""
    console.print(f"{result.name}: {result.about}{size}; {result.unit}", style="bold")
    sources = list(dict.fromkeys(number.source for number in result.published))
    if not every:
        console.print("; ".join(map(str, sources)))
    console.print(table(frame))
    if every and frame["ours"].notna().any():
        console.print(_seeds(frame))
    if missing := not_run(result, frame):
        waits = " (its sweep is not there yet)" if result.pending else ""
        console.print(f"not run: {missing}{waits}", soft_wrap=True)
    if short := shorter(result, frame):
        console.print(f"ours with {short} of the sweep", soft_wrap=True)
    if folder is not None:
        about = json.loads((folder / "environment.json").read_text())
        device = "" if about["backend"] == "cpu" else f"{about['device_kind']}, "
        where = f"{device}{about['cores']} cores of {about['cpu']}, jax {about['jax']}"
        console.print(f"measured {folder.name[-10:]}: {where}; seconds are of all seeds and rates together")
    console.print(f"differs: {result.differs}")
    for source in sources if every else ():
        console.print(f"\n{source}: {source.title}\n{source.protocol}\nchecked: {source.checked}")
    if every:
        console.print(f"\nto run all of ours: {result.command()}", soft_wrap=True)
    console.print()


def shorter(result: Result, frame: pd.DataFrame) -> str:
    """What of the sweep's steps and seeds our runs had; empty: all."""
    ran = frame[frame["each"].notna()]
    if ran.empty or result.pending:
        return ""
    asked = [configs.freeze(run).train for run in result.sweep().values()]
    steps, seeds = (max(getattr(train, name) for train in asked) for name in ("steps", "seeds"))
    had_steps, had_seeds = int(ran["steps"].min()), int(ran["each"].map(len).min())
    parts = [f"{had_steps:,} of {steps:,} steps"] * (had_steps < steps)
    parts += [f"{had_seeds} of {seeds} seeds"] * (had_seeds < seeds)
    return " and ".join(parts)


def not_run(result: Result, frame: pd.DataFrame) -> str:
    """The command that trains what is published and has no number of ours; empty: there is none."""
    named = frame[frame["cell"].ne("")]
    cells = list(dict.fromkeys(named["cell"][named["each"].isna()]))
    texts = {cell: result.cell_texts(cell) for cell in cells}
    if not cells:
        return ""
    if named["each"].isna().all() and (result.pending or all(texts.values())):
        return result.command()
    return result.command(tuple(text for cell in cells for text in texts[cell] or [cell]))


def table(frame: pd.DataFrame) -> Table:
    """`rows` for a terminal: "–" where nothing is, "not run" where ours could be."""
    out = _table("published", "cell", "there", "ours", "differs by", "params", "steps", "seconds")
    for row in frame.to_dict("records"):
        run = isinstance(row["each"], tuple)
        out.add_row(
            row["model"] if isinstance(row["model"], str) else "–",
            row["cell"] or "–",
            number(row["published"]),
            number(row["ours"]) if run else "not run" if row["cell"] else "–",
            number(row["difference"], "+", row["published"]),
            *(f"{row[name]:,.0f}" if run else "–" for name in ("parameters", "steps", "seconds")),
        )
    return out


def _seeds(frame: pd.DataFrame) -> Table:
    out = _table("cell", "rate", "each seed", "mean", "at the end")
    for row in frame.drop_duplicates("cell").to_dict("records"):
        if isinstance(row["each"], tuple):
            each = "  ".join(map(number, row["each"]))
            out.add_row(
                row["cell"], f"{row['learning_rate']:g}", each, number(row["ours"]), number(row["at_end"])
            )
    return out


def _table(*names: str) -> Table:
    out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in names:
        left = name in ("published", "cell")
        out.add_column(name, justify="left" if left else "right", overflow="fold")
    return out


def number(value: float, sign: str = "", like: float | None = None) -> str:
    """As papers print it; a difference with the decimals of what it is `like`."""
    if not np.isfinite(value):
        return "–"
    size = abs(value if like is None else like)
    if 0 < size < 1e-3:
        return f"{value:{sign}.1e}"
    decimals = 4 if size < 0.1 else 3 if size < 1 else 2 if size < 10 else 1
    return f"{value:{sign}.{decimals}f}"


def figure(frames: dict[str, tuple[Result, pd.DataFrame]]) -> Figure:
    """Published (hollow) and ours (a dot for each seed, a bar at their mean) by cell, one panel per result.

    Args:
      frames: by name, the result and its `rows`, some of them ours.
    """
    out, axes = style.panels(len(frames), 1, (6.2, 2.6))
    shapes = dict(zip(_sources(frames), ("D", "s", "^", "v"), strict=False))
    looks = style.known()
    for ax, (name, (result, frame)) in zip(axes.flat, frames.items(), strict=True):
        places = {cell: place for place, cell in enumerate(dict.fromkeys(frame["cell"]))}
        for row in frame.to_dict("records"):
            at = places[row["cell"]]
            colour = looks.get(row["cell"].split(":")[0], (style.INK,))[0]
            if np.isfinite(row["published"]):
                look = dict(marker=shapes[row["source"]], ms=8, mfc="none", color=style.INK, ls="none")
                ax.plot(at - 0.15, row["published"], **look)
            if isinstance(row["each"], tuple):
                spots = at + 0.1 + 0.05 * np.arange(len(row["each"]))
                ax.plot(spots, row["each"], "o", ms=4, color=colour)
                ax.hlines(row["ours"], at + 0.05, spots[-1] + 0.05, color=colour, lw=1.5)
        ax.set_xticks(list(places.values()), [_wrapped(cell) for cell in places])
        ax.set_xlim(-0.5, len(places) - 0.5)
        shown = np.concatenate([frame["published"].astype(float), frame["ours"].astype(float)])
        if np.nanmin(shown) > 0 and np.nanmax(shown) > 30 * np.nanmin(shown):
            ax.set_yscale("log")  # errors that nearly vanish differ by powers of ten
        ax.set(xlabel="cell", ylabel=f"test, {result.unit}")
        style.title(ax, f"{name}: {result.about}", strong=True)
    handles = [
        style.handle(source, marker=shape, ms=8, mfc="none", color=style.INK, ls="none")
        for source, shape in shapes.items()
    ]
    handles.append(style.handle("ours: seeds, mean", marker="o", ms=4, color=style.MUTED))
    style.legend(out, handles, [])
    return out


def _wrapped(cell: str) -> str:
    """A cell with a line for each option, and for its value."""
    return cell.replace(":", "\n").replace("_", "_\n", 1 if ":" in cell else 0) or "none of ours"


def _sources(frames: dict[str, tuple[Result, pd.DataFrame]]) -> list[str]:
    return list(dict.fromkeys(str(n.source) for result, _ in frames.values() for n in result.published))


def record(result: Result, workdir: Path) -> Path:
    """Writes what the finished runs below `workdir` say into a folder to commit, `figures/NAME-DATE`.

    Its date is that of the run that began last; a folder of that name is written anew.

    Raises:
      FileNotFoundError: no runs there.
      ValueError: none that has finished, or runs of something else.
    """
    seeds, about = results.load_seeds(workdir), results.load_environments(workdir)
    seeds = seeds[seeds["status"] == "finished"]
    if seeds.empty:
        raise ValueError(f"no finished run (summary.json) in {workdir}")
    check(result, seeds)
    _check_tasks(result, workdir)
    folder = FIGURES / f"{result.name}-{max(about['started'])[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    output.write_frame(folder / "seeds.csv", seeds)
    output.write_frame(folder / "summary.csv", results.aggregate(seeds))
    if "command" in about:  # the folder there is nobody else's business
        about["command"] = about["command"].str.replace(r" --workdir[= ]\S+", "", regex=True)
    about = {name: list(dict.fromkeys(about[name].dropna())) for name in ABOUT if name in about}
    files.write_json(
        folder / "environment.json", {name: v[0] if len(v) == 1 else v for name, v in about.items()}
    )
    draw(folder / "published.png", {result.name: (result, rows(result, seeds))})
    return folder


def draw(path: Path, frames: dict[str, tuple[Result, pd.DataFrame]]) -> None:
    """Writes `figure` as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    output.write_figure(path, figure(frames), dpi=150)


def _check_tasks(result: Result, workdir: Path) -> None:
    """Refuses runs of another task than the sweep's, or of the same with other options."""
    wanted = [configs.freeze(run).task for run in result.sweep().values()]
    for folder in results.find_runs(workdir):
        run = configs.freeze(configs.load(str(folder)))
        if run.task not in wanted:
            raise ValueError(f"{folder} is a run of {run.task}, {result.name} of {wanted[0]}")
