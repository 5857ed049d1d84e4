"""Panels: pictures that say where their points are, put together as one figure, or each an SVG of its own."""

import re
import zlib
from collections.abc import Callable
from io import StringIO
from typing import NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import varied
from experiments.lab import style

AT_MOST = 6  # lines of a panel; more make small ones, each with the others in grey
GREY = "#C8C8C8"
WIDE, SMALL = 4.5, 2.6  # inches


class Point(NamedTuple):
    """What can be read of a panel: where (in the coordinates of its axes), of which label, in words."""

    x: float
    y: float
    label: str
    text: str


class Panel(NamedTuple):
    """One picture.

    Args:
      task: what it belongs to.
      title: says what of it.
      labels: what it shows in colour, in order.
      height: in inches.
      draw: draws into axes; returns the points that can be read.
      small: one of several of the same.
    """

    task: str
    title: str
    labels: tuple[str, ...]
    height: float
    draw: Callable[[Axes], list[Point]]
    small: bool = False


def groups(frame: pd.DataFrame) -> list[tuple[str, tuple[str, ...]]]:
    """(title, labels) of the panels of one task: one of all labels, or where those are many, one or more for
    each cell."""
    labels = varied.in_order(frame["label"])
    if len(labels) <= AT_MOST:
        return [("", tuple(labels))]
    found = []
    for cell, group in frame.groupby("cell"):
        own = [label for label in labels if label in set(group["label"])]
        parts = -(-len(own) // AT_MOST)
        size = -(-len(own) // parts)
        for i in range(0, len(own), size):
            few = tuple(own[i : i + size])
            more = f" ({i // size + 1}/{parts})" if parts > 1 else ""
            found.append((few[0] if len(few) == 1 else cell + more, few))
    return found


def key(label: str) -> str:
    """The class of a label's marks in an SVG."""
    return f"of-{zlib.crc32(label.encode()):08x}"


def figure(panels: list[Panel]) -> Figure:
    """One figure of all panels; small ones four to a line, others two."""
    lines = []
    for panel in panels:
        fit = 4 if panel.small else 2
        if lines and (lines[-1][0].task, lines[-1][0].small) == (panel.task, True) and len(lines[-1]) < fit:
            lines[-1].append(panel)
        elif lines and not panel.small and not lines[-1][0].small and len(lines[-1]) < fit:
            lines[-1].append(panel)
        else:
            lines.append([panel])
    heights = [max(panel.height for panel in line) for line in lines]
    small, most = any(panel.small for panel in panels), max(map(len, lines))
    columns = 4 if small and not all(panel.small for panel in panels) else most
    width = SMALL * columns if small else WIDE * columns + 2 * (len(panels) == 1)
    out = Figure(figsize=(width, sum(heights) + 0.2), dpi=150, layout="constrained")
    out.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    grid = out.add_gridspec(len(lines), columns, height_ratios=heights)
    for i, line in enumerate(lines):
        below = len(lines[i + 1]) if i + 1 < len(lines) and lines[i + 1][0].task == line[0].task else 0
        for j, panel in enumerate(line):
            span = 2 if small and not panel.small else 1
            ax = out.add_subplot(grid[i, j * span : j * span + span])
            first = not i or lines[i - 1][0].task != panel.task
            _name(ax, panel, told=j == 0 and first)
            panel.draw(ax)
            if panel.small and j:
                ax.set_ylabel("")
            if panel.small and j < below:
                ax.set_xlabel("")
    return out


def _name(ax: Axes, panel: Panel, told: bool) -> None:
    """The title, of the first of several small ones below that of the task; axes."""
    style.tidy(ax)
    task = panel.task.replace("_", " ")
    if not panel.small:
        style.title(ax, f"{task}: {panel.title}" if panel.title else task, strong=True)
        return
    style.title(ax, panel.title)
    if told:
        above = {"xytext": (0, 22), "textcoords": "offset points", "annotation_clip": False}
        ax.annotate(task, (0, 1), xycoords="axes fraction", fontsize=11, fontweight="bold", **above)


def svg(panel: Panel) -> tuple[str, list[Point]]:
    """A panel as an SVG for a page, which has its title, and its points in the units of its viewBox.

    Colours are variables of CSS, `--c-0072b2`, and what belongs to a label has the class `key(label)`.
    """
    out = Figure((SMALL if panel.small else WIDE, panel.height), dpi=72, layout="constrained")
    ax = out.add_subplot()
    style.tidy(ax)
    points = panel.draw(ax)
    out.draw_without_rendering()
    out.set_layout_engine("none")  # it is laid out
    height = out.get_figheight() * 72
    placed = [(ax.transData.transform((point.x, point.y)), point) for point in points]
    placed = [point._replace(x=round(x, 1), y=round(height - y, 1)) for (x, y), point in placed]
    buffer, salt = StringIO(), f"{panel.task} {panel.title} {panel.height}"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        out.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Type"))
        )
    return _for_page(buffer.getvalue()), placed


def _for_page(text: str) -> str:
    """An SVG to stand in a page: of any width, in its colours and letters."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' id="(of-[0-9a-f]{8})"', r' class="\1"', text)
    text = re.sub(r' id="[a-z]+[A-Za-z0-9.]*_\d+"', "", text)
    text = re.sub(r": #([0-9a-f]{6})\b", r": var(--c-\1)", text)
    return re.sub(r"font: ([\d.]+px|[\w ]*[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)


def swatch(look: dict) -> str:
    """A line and marker as an SVG for a legend."""
    out = Figure((0.42, 0.2), dpi=72)
    ax = out.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.plot([0, 1, 2], [0, 0, 0], markevery=[1], ms=6, lw=1.8, **look)
    buffer = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": str(look)}):
        out.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Type"))
        )
    return _for_page(buffer.getvalue())
