"""A page of HTML that needs no other file: tables, figures that can be read, and how it was made."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from matplotlib import colors

from cells import registry
from experiments import describe, rates, results, varied
from experiments.lab import panels, style
from train.tasks import TASKS

FOLDER = Path(__file__).parent
PAPER = {"light": "#ffffff", "dark": "#161616"}
# What is no colour of a cell, in the dark.
IN_THE_DARK = {
    "#000000": "#e8e8e8",
    style.INK: "#e8e8e8",
    style.MUTED: "#b4b4b4",
    "#e5e5e5": "#333333",
    panels.GREY.lower(): "#555555",
    "#cccccc": "#444444",
    "#ffffff": PAPER["dark"],
}
CONTRAST = 4.5  # of a cell's colour in the dark, as WCAG asks of text


class Group(NamedTuple):
    """Figures of one kind: a heading, a note on how they are read, a panel or more for each task."""

    name: str
    note: str
    panels: list[panels.Panel]
    look: dict[str, dict]  # label -> `lab.style.styles`
    legend: bool = True  # whether names stand above the panels


def render(
    title: str,
    groups: list[Group],
    seeds: pd.DataFrame,
    environment: dict[str, str],
    command: str,
    failed: pd.DataFrame | None = None,
    configs: pd.DataFrame | None = None,
    files: tuple[str, ...] = (),
    missing: list[str] = (),
) -> str:
    """The page.

    Args:
      title: its heading.
      groups: the figures, in order.
      seeds: `results.load_seeds`.
      environment: what to say of hardware and versions, name -> value.
      command: what repeats the runs; may be empty.
      failed: `results.load_failures`. configs: `results.load_configs`.
      files: that lie beside it, to be linked.
      missing: lines that say which runs are not in it.
    """
    aggregated = results.aggregate(seeds)
    points = []
    tasks = [
        _task(task, rows, seeds[seeds["task"] == task], groups, points, configs)
        for task, rows in aggregated.groupby("task")
    ]
    low, high = aggregated["seeds"].min(), aggregated["seeds"].max()
    options = results.options_of(aggregated)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    names = {panels.key(label): label for group in groups for label in group.look}
    data = json.dumps({"names": names, "panels": points}, ensure_ascii=False, separators=(",", ":"))
    return template.from_string((FOLDER / "page.html").read_text()).render(
        title=title,
        css=_css(tasks),
        js=(FOLDER / "page.js").read_text(),
        points=data.replace("<", "\\u003c"),  # a script has no tags
        cells=varied.in_order(varied.without(label, *options) for label in aggregated["label"]),
        seeds=f"{low}" if low == high else f"{low} to {high}",
        tasks=tasks,
        rates_note=rates.NOTE,
        tuned=any(task["tables"] for task in tasks),
        files=files,
        missing=missing,
        environment=environment,
        command=command,
        failed=[] if failed is None else failed.to_dict("records"),
    )


def _task(task: str, aggregated: pd.DataFrame, seeds: pd.DataFrame, groups, points: list, configs) -> dict:
    """What the page says of a task; the points of its panels are added to those there are."""
    rows = _narrow(results.text(aggregated).drop(columns="task"), results.options_of(aggregated))
    found = seeds["learning_rate"].dropna().unique()
    protocol = {} if configs is None else _protocol(configs[configs["task"] == task])
    return {
        "name": task,
        "asks": _asks(task, protocol) if task in TASKS.table else "",
        "caption": results.caption(aggregated),
        "rates": [varied.text(float(rate)) for rate in sorted(found)],
        "columns": list(rows.columns),
        "rows": rows.to_numpy().tolist(),
        "tables": rates.text(rates.by_rate(seeds)),
        "groups": [_group(group, own, points) for group in groups if (own := _of(group, task))],
        "protocol": protocol,
    }


def _narrow(rows: pd.DataFrame, options: list[str]) -> pd.DataFrame:
    """With several options in one column, where the results behind them would not fit beside theirs."""
    there = [name for name in options if name in rows]
    if len(there) < 3:
        return rows
    joined = [
        ", ".join(f"{name} {value}" for name, value in row.items() if value != "")
        for row in rows[there].to_dict("records")
    ]
    place = rows.columns.get_loc(there[0])
    rows = rows.drop(columns=there)
    rows.insert(place, "options", joined)
    return rows


def _asks(task: str, protocol: dict[str, str]) -> str:
    """What a task asks, and its options that were not the default: "(gap = 20)"."""
    defaults = {f"task.{name}": field.default for name, field in registry.options(TASKS.table[task]).items()}
    own = [
        f"{name.removeprefix('task.')} = {value}"
        for name, value in protocol.items()
        if name in defaults and name != "task.eval_examples" and value != varied.text(defaults[name])
    ]
    said = describe.sentence(TASKS.table[task]).replace("`", "")
    return f"{said} ({', '.join(own)})" if own else said


def _of(group: Group, task: str) -> list[panels.Panel]:
    return [panel for panel in group.panels if panel.task == task]


def _group(group: Group, own: list[panels.Panel], points: list) -> dict:
    shown = []
    for panel in own:
        svg, there = panels.svg(panel)
        legend = [
            {"key": panels.key(label), "name": label, "swatch": panels.swatch(group.look[label])}
            for label in (panel.labels if group.legend else ())
        ]
        title = "" if panel.labels == (panel.title,) else panel.title
        shown.append({"number": len(points), "title": title, "svg": svg, "legend": legend})
        points.append([[point.x, point.y, panels.key(point.label), point.text] for point in there])
    return {"name": group.name, "note": group.note, "small": own[0].small, "panels": shown}


def _protocol(configs: pd.DataFrame) -> dict[str, str]:
    """Every setting of the runs of a task, as they ran, with all values that it has."""
    found = {}
    for name in configs.columns.drop(["run", "task"]):
        values = [varied.text(value) for value in configs[name] if not _missing(value)]
        if values and name not in ("label", "cell.name", "task.name"):
            found[name] = " or ".join(varied.in_order(values))
    return found


def _missing(value) -> bool:
    return value is None or isinstance(value, float) and math.isnan(value) or value in ("", [])


def _css(tasks: list[dict]) -> str:
    """The style sheet, with every colour of the figures as it is in the light and in the dark."""
    used = set(re.findall(r"var\(--c-([0-9a-f]{6})\)", json.dumps(tasks, default=str)))
    colours = {kind: " ".join(f"--c-{c}: {shade(f'#{c}', kind)};" for c in sorted(used)) for kind in PAPER}
    text = (FOLDER / "page.css").read_text()
    return text.replace("{{ light }}", colours["light"]).replace("{{ dark }}", colours["dark"])


def shade(colour: str, kind: str) -> str:
    """A colour as the page shows it in the "light" or the "dark": there lighter, until it can be read."""
    if kind == "light":
        return colour
    if colour in IN_THE_DARK:
        return IN_THE_DARK[colour]
    rgb, share = colors.to_rgb(colour), 0.0
    while contrast(lighter := colors.to_hex([x + share * (1 - x) for x in rgb]), PAPER["dark"]) < CONTRAST:
        share += 0.05
    return lighter


def contrast(one: str, other: str) -> float:
    """Of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colors.to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
