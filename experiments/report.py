"""Makes tables, figures and a page out of finished runs.

  python -m experiments.report runs/compare
  python -m experiments.report runs/compare runs/more --out=report
  python -m experiments.report runs/sweep --x=gap,learning_rate --y=solved_step

Prints a table and writes curves and seeds (.csv, .parquet), summary.csv, rates.csv where learning rates
differ, figures (PNG) and index.html, where the values of the figures can be read. The runs are read, never
changed, so that it can be repeated at any time.

--x     numeric options that runs differ in, or parameters, hidden_size, state_size: a figure of the metric
        against each; the learning rate is the one that is best for the other seeds, unless it is drawn
        (default: every numeric option that was varied)
--y     the metric: test_metric, best_test_metric, valid_metric, solved, solved_step, ...
--out   where to write (default: DIR itself, where that is one folder that holds runs; else runs/report)
"""

import os
import sys
from pathlib import Path

import pandas as pd
from absl import flags

from experiments import against, entry, output, page, plots, rates, results, screen, tables, varied
from experiments.lab import style
from train import files

OUT = "runs/report"
TITLE = "Comparison of recurrent cells"
CURVES = (
    "Line: median over seeds. Band: the middle half (of fewer than 4 seeds, lowest to highest). A seed that "
    "has solved the task keeps its last value; a cross marks where one diverged."
)
TIMES = "Bar: median of all seeds. A hollow mark that points onwards: not solved until there; x: diverged."
ABOUT = {  # what the page tells of `environment.json`
    "started": "started (first run)",
    "cpu": "processor",
    "cores": "cores",
    "backend": "backend",
    "devices": "devices",
    "python": "python",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "numpy": "numpy",
    "git_commit": "commit",
}


def write(
    workdir,
    out_dir=None,
    title: str = TITLE,
    command: str | None = None,
    xs: list[str] | None = None,
    y: str = "test_metric",
) -> dict[str, Path]:
    """Writes tables, figures and the page for all runs below `workdir`. Damaged ones, and those that have not
    finished, are left aside; the page says which (`results.look`).

    Args:
      workdir: one directory or several.
      out_dir: where to write; `workdir` if that is one directory, and no run's.
      title: of the page.
      command: what repeats the runs; by default what they recorded.
      xs: options against which the metric `y` is drawn, of `against.options`; by default the numeric ones
        that were varied of the same cell.
      y: of `against.metrics`.

    Returns:
      The path of each file, by its name.

    Raises:
      FileNotFoundError, ValueError: no runs, none that has finished and can be read, an option that is none,
        several directories without `out_dir`, or a run's to write to.
    """
    dirs = [workdir] if isinstance(workdir, str | os.PathLike) else list(workdir)
    if out_dir is None and len(dirs) != 1:
        raise ValueError("several directories need an explicit place to write to (--out)")
    out_dir = Path(dirs[0] if out_dir is None else out_dir)
    refuse_run(out_dir)
    found = results.look(*dirs)
    seeds, curves, environments = (
        load(*found.whole) for load in (results.load_seeds, results.load_curves, results.load_environments)
    )
    if seeds.empty:
        raise ValueError(f"no finished run (summary.json) in {', '.join(map(str, dirs))}")
    if xs is None:
        xs = [name for name in against.options(seeds) if name in varied.columns(seeds)]
        xs = [name for name in xs if against.is_varied(seeds, name)]
    for x in xs:
        against.check(seeds, x, y)
    shown = groups(curves, seeds, xs, y)
    figures = {
        "learning_curves.png": plots.learning_curves(curves, drawn=shown[0].panels),
        "time_to_threshold.png": plots.time_to_threshold(seeds),
    } | {f"{y}_by_{x}.png": against.figure(seeds, x, y) for x in xs}
    paths = results.write_tidy(found.whole, out_dir)
    if len(by_rate := rates.by_rate(seeds)):
        paths["rates.csv"] = out_dir / "rates.csv"
        output.write_frame(paths["rates.csv"], by_rate)
    if command is None:
        command = "\n".join(environments["command"].unique()) if "command" in environments else ""
    html = page.render(
        title,
        shown,
        seeds,
        _environment(environments),
        command,
        results.load_failures(*dirs),
        results.load_configs(*found.whole),
        (*paths, *figures),
        found.told(),
    )
    for name, figure in figures.items():
        paths[name] = out_dir / name
        output.write_figure(paths[name], figure)
    paths["index.html"] = out_dir / "index.html"
    files.write(paths["index.html"], html)
    return paths


def groups(curves: pd.DataFrame, seeds: pd.DataFrame, xs: list[str], y: str) -> list[page.Group]:
    """The figures of the page."""
    look, drawn = style.styles(curves), plots.curve_panels(curves)
    shown = [page.Group("Validation during training", CURVES, drawn, look)]
    drawn = plots.threshold_panels(seeds)
    shown.append(page.Group("Steps to the threshold, seed by seed", TIMES, drawn, look, legend=False))
    for x in xs:
        rows = against.table(seeds, x, y)
        name = f"{y.replace('_', ' ').capitalize()} by {x.replace('_', ' ')}"
        drawn = against.panels_of(rows, x, y)
        shown.append(page.Group(name, against.note(seeds, x, y), drawn, style.styles(rows)))
    return shown


def refuse_run(folder: Path) -> None:
    """Refuses to write into a run's folder.

    Raises:
      ValueError: it is one, or inside of one.
    """
    for place in (folder.resolve(), *folder.resolve().parents):
        if all((place / name).exists() for name in ("config.json", "metrics.jsonl")):
            raise ValueError(f"{folder} is a run's folder, which is only read; name another one (--out)")


def _environment(environments: pd.DataFrame) -> dict[str, str]:
    """What the runs ran on; where they differ, every value once."""
    about = {}
    for key, name in ABOUT.items():
        if key in environments:
            values = environments[key].dropna().map(_join)
            if key == "git_commit" and "git_dirty" in environments:
                dirty = environments["git_dirty"].map({True: " with local changes"}).fillna("")
                values = pd.Series([f"{values[i][:12]}{dirty[i]}" for i in values.index], dtype=object)
            about[name] = values.min() if key == "started" else ", ".join(dict.fromkeys(values))
    return about


def _join(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def main(words: list[str]) -> int:
    """Writes the report; returns the exit code, 1 where a run is damaged."""
    if not words:
        raise ValueError("name a directory of runs: python -m experiments.report DIR...")
    if flags.FLAGS.x == []:
        raise ValueError("--x names no option")
    dirs, out = [Path(name).expanduser() for name in words], flags.FLAGS.out
    runs, found = results.find_runs(*dirs), results.look(*dirs)
    if out is None and (len(dirs) > 1 or dirs[0].resolve() in [run.resolve() for run in runs]):
        out = OUT
    for line in found.told():
        print(line, file=sys.stderr)
    paths = write(dirs, out, flags.FLAGS.title, None, flags.FLAGS.x, flags.FLAGS.y)
    console, seeds = screen.console(), results.load_seeds(*found.whole)
    console.print(results.table(results.aggregate(seeds), results.load_failures(*dirs), console.width))
    for title, frame in rates.text(rates.by_rate(seeds)).items():
        tables.show(console, title, frame)
        console.print(rates.NOTE)
    for path in paths.values():
        print(path)
    return int(bool(found.damaged))


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Directory to write to.")
    flags.DEFINE_string("title", TITLE, "Title of the page.")
    flags.DEFINE_list("x", None, "Options against which the metric is drawn.")
    flags.DEFINE_string("y", "test_metric", "The metric that is drawn against them.")
    entry.run(main, __doc__)
