"""Makes tables, figures and a page out of finished runs.

  python -m experiments.report runs/compare
  python -m experiments.report --out=report runs/compare runs/more

Writes curves and seeds (.csv, .parquet), summary.csv, learning_curves.png, time_to_threshold.png and
index.html: the runs are read, never changed, so that it can be repeated at any time.
"""

import base64
import os
from pathlib import Path

import jinja2
import pandas as pd
from absl import flags
from matplotlib.figure import Figure

from experiments import entry, output, plots, results
from train import files

TITLE = "Comparison of recurrent cells"
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
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .9rem; }
pre { overflow-x: auto; padding: .7rem; background: var(--soft); border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ cells | join(", ") }}: {{ tasks | length }} task{{ "s" if tasks | length > 1 }}, seeds of each cell:
{{ seeds }}.</p>
{% for task in tasks %}
<h3>{{ task.name }}</h3>
<p>{{ task.caption }}.</p>
<div class="scroll"><table>
<thead><tr>{% for name in task.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in task.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% endfor %}
{% if failed %}<h3>failed</h3>
<ul>
{% for run in failed %}<li>{{ run.label }} on {{ run.task }}: {{ run.error }}</li>
{% endfor %}</ul>{% endif %}
<h2>How to read it</h2>
<ul>
<li>Steps and seconds are what half of all seeds needed to reach the threshold on validation data, in brackets
what the first quarter and the first three quarters needed. A seed that never reached it counts as longer than
the budget, or than its run where that was cut short (“&gt;”), and so does the median where fewer than half of
the seeds did.</li>
<li>Seconds are wall time since training began, all seeds of a run training together, compilation excluded.
They belong to the hardware below; steps do not.</li>
<li>“test” is the median over seeds, in brackets the quartiles, on data that neither training nor stopping
saw; a seed that diverged counts with its last finite parameters,
and as the worst of all where those give no number. “at best” is the same for
the parameters with the best validation result.</li>
</ul>
{% for figure in figures %}
<figure>
<img src="data:image/png;base64,{{ figure.png }}" alt="{{ figure.caption }}">
<figcaption>{{ figure.caption }}</figcaption>
</figure>
{% endfor %}
<h2>Hardware and versions</h2>
<dl>{% for name, value in environment.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% if command %}<h2>To repeat it</h2>
<pre>{{ command }}</pre>{% endif %}
</body>
</html>
"""


def page(
    title: str,
    figures: dict[str, Figure],
    aggregated: pd.DataFrame,
    environment: dict,
    command: str,
    failed: pd.DataFrame | None = None,
) -> str:
    """A page of HTML that needs no other file.

    Args:
      title: heading of the page.
      figures: caption -> figure, in order.
      aggregated: `results.aggregate`.
      environment: what to say of hardware and versions, name -> value.
      command: what repeats the runs; may be empty.
      failed: `results.load_failures`.
    """
    strings = results.text(aggregated)
    tasks = []
    for task, group in aggregated.groupby("task"):
        rows = strings.loc[group.index].drop(columns="task")
        tasks.append(
            {
                "name": task,
                "caption": results.caption(group),
                "columns": list(rows.columns),
                "rows": rows.to_numpy().tolist(),
            }
        )
    low, high = aggregated["seeds"].min(), aggregated["seeds"].max()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    return template.render(
        title=title,
        cells=sorted(set(aggregated["label"])),
        seeds=f"{low}" if low == high else f"{low} to {high}",
        tasks=tasks,
        figures=[
            {"caption": caption, "png": base64.b64encode(output.png(figure)).decode()}
            for caption, figure in figures.items()
        ],
        environment=environment,
        command=command,
        failed=[] if failed is None else failed.to_dict("records"),
    )


def write(workdir, out_dir=None, title: str = TITLE, command: str | None = None) -> dict[str, Path]:
    """Writes tables, figures and the page for all runs below `workdir`.

    Args:
      workdir: one directory or several.
      out_dir: where to write; `workdir` if that is one directory.
      title: of the page.
      command: what repeats the runs; by default what they recorded.

    Returns:
      The path of each file, by its name.

    Raises:
      FileNotFoundError, ValueError: no runs, none that has finished, a damaged file, or several
        directories without `out_dir`.
    """
    dirs = [workdir] if isinstance(workdir, str | os.PathLike) else list(workdir)
    if out_dir is None and len(dirs) != 1:
        raise ValueError("several directories need an explicit place to write to (--out)")
    out_dir = Path(dirs[0] if out_dir is None else out_dir)
    seeds, curves, environments = (
        load(*dirs) for load in (results.load_seeds, results.load_curves, results.load_environments)
    )
    if seeds.empty:
        raise ValueError(f"no finished run (summary.json) in {', '.join(map(str, dirs))}")
    figures = {
        "learning_curves.png": plots.learning_curves(curves),
        "time_to_threshold.png": plots.time_to_threshold(seeds),
    }
    captions = [
        "Validation during training. A seed that has solved the task keeps its last value; a cross marks "
        "where one diverged.",
        "Optimiser steps to the threshold, seed by seed.",
    ]
    environment = _environment(environments, curves)
    if command is None:
        command = "\n".join(environments["command"].unique()) if "command" in environments else ""
    paths = results.write_tidy(dirs, out_dir)
    for name, figure in figures.items():
        paths[name] = out_dir / name
        output.write_figure(paths[name], figure)
    paths["index.html"] = out_dir / "index.html"
    shown = dict(zip(captions, figures.values(), strict=True))
    html = page(title, shown, results.aggregate(seeds), environment, command, results.load_failures(*dirs))
    files.write(paths["index.html"], html)
    return paths


def _environment(environments: pd.DataFrame, curves: pd.DataFrame) -> dict[str, str]:
    """What the runs ran on; where they differ, every value once."""
    about = {}
    for key, name in ABOUT.items():
        if key in environments:
            values = environments[key].dropna().map(_join)
            if key == "git_commit" and "git_dirty" in environments:
                dirty = environments["git_dirty"].map({True: " with local changes"}).fillna("")
                values = pd.Series([f"{values[i][:12]}{dirty[i]}" for i in values.index], dtype=object)
            about[name] = values.min() if key == "started" else ", ".join(dict.fromkeys(values))
    unfinished = curves.loc[curves["status"] == "unfinished", "run"].unique()
    if len(unfinished):
        about["not in the tables"] = f"no summary yet: {', '.join(unfinished)}"
    return about


def _join(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def main(dirs: list[str]) -> int:
    """Writes the report; returns the exit code."""
    if not dirs:
        raise ValueError("name a directory of runs: python -m experiments.report DIR...")
    for path in write(
        [Path(name).expanduser() for name in dirs], flags.FLAGS.out, flags.FLAGS.title
    ).values():
        print(path)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Directory to write to; by default the directory of the runs.")
    flags.DEFINE_string("title", TITLE, "Title of the page.")
    entry.run(main, __doc__)
