"""What all figures share: one look per cell and per strategy, axes, lines with bands, legends, notes."""

import itertools
import textwrap
import zlib

import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import varied

LINES = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1))]
MARKERS = ["P", "*", "<", ">", "h", "p", "d"]
STRATEGIES = {
    "stepwise": "-",
    "sequential": "-",
    "associative": "--",
    "chunked": "-.",
    "chunkwise": "-.",
    "parallel": (0, (1, 1)),
    "newton": (0, (5, 1, 1, 1, 1, 1)),
    "kernel": (0, (3, 1, 1, 1)),
    "cudnn": "-",
}
SPARE = [
    (colour, line, MARKERS[i % len(MARKERS)])
    for i, (line, colour) in enumerate(itertools.product(LINES[1:], ("#BBCC33", "#EE8866", "#CC3311")))
]
INK, MUTED = "#222222", "#595959"


def known() -> dict[str, tuple]:
    """cell -> (colour, line, marker) of every registered cell: its own, or a spare one by its name, the next
    free one if that is taken."""
    import cells

    looks = {name: cells.CELLS.cls(name).style for name in cells.names()}
    return _with_spare({name: look for name, look in looks.items() if look}, looks)


def _with_spare(looks: dict, names) -> dict[str, tuple]:
    for name in sorted(set(names) - set(looks)):
        start = zlib.crc32(name.encode()) % len(SPARE)
        taken = set(looks.values())
        looks[name] = next((s for s in SPARE[start:] + SPARE[:start] if s not in taken), SPARE[start])
    return looks


def styles(frame: pd.DataFrame) -> dict[str, dict]:
    """label -> color, linestyle and marker, for every cell and label of `frame` (columns `cell`, `label`).

    A cell has one colour, line and marker everywhere; a variant of a cell (another label) keeps the colour. A
    label that ends in the name of a strategy has the line of that strategy.
    """
    looks, out = _with_spare(known(), set(frame["cell"])), {}
    for cell, group in frame.groupby("cell"):
        labels = sorted(varied.in_order(group["label"]), key=lambda label: label != cell)
        colour, line, marker = looks[cell]
        lines, markers = ([x, *(y for y in ys if y != x)] for x, ys in ((line, LINES), (marker, MARKERS)))
        for i, label in enumerate(labels):
            line, marker = lines[i % len(lines)], markers[i % len(markers)]
            line = STRATEGIES.get(label.split()[-1], line)
            out[label] = {"color": colour, "linestyle": line, "marker": marker}
    return out


def tidy(ax):
    """Axes as all figures have them."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E5E5E5", lw=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=9)


def panels(lines: int, columns: int, size: tuple[float, float], **shared):
    """A figure of panels, each of a size in inches, and its axes, (lines, columns)."""
    width, height = size
    figure = Figure(figsize=(width * columns + 0.5, height * lines + 0.3), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, **shared)
    for ax in axes.flat:
        tidy(ax)
    return figure, axes


def multiples(count: int, size: tuple[float, float], columns: int = 4):
    """`panels` for so many small ones of shared axes; those that are left over are hidden."""
    columns = min(columns, count)
    figure, axes = panels(-(-count // columns), columns, size, sharex=True, sharey=True)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    for ax in _lowest(axes):
        ax.tick_params(labelbottom=True)
    return figure, axes


def _lowest(axes) -> list:
    """The lowest panel of each column."""
    return [[ax for ax in column if ax.get_visible()][-1] for column in axes.T]


def line(ax, rows: pd.DataFrame, x: str, y: str, look: dict, band=(0, 1), **more):
    """The median of y over the rows of each x, and a band between two quantiles: all of them, or fewer."""
    by = rows.groupby(x)[y]
    middle = by.median()
    low, high = (by.min(), by.max()) if band == (0, 1) else (by.quantile(q) for q in band)
    ax.plot(middle.index, middle, **{"ms": 4.5, "lw": 1.5} | look | more)
    ax.fill_between(low.index, low, high, color=look["color"], alpha=0.15, lw=0)


def title(ax, text: str, strong: bool = False):
    """A panel's title, at its left edge."""
    ax.set_title(text, loc="left", **{"fontsize": 11, "fontweight": "bold"} if strong else {"fontsize": 9})


def ticks(ax, low: float, high: float, count: int = 5):
    """About so many ticks from `low` to `high`, where the data are: none in a zone or at the edge."""
    if ax.get_xscale() == "log":
        locator = ticker.LogLocator(subs=(1, 3) if high / low < 500 else (1,))
    else:
        locator = ticker.MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])
    ax.set_xticks([tick for tick in locator.tick_values(low, high) if low <= tick <= high])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    plain = ticker.FuncFormatter(lambda value, _: f"{value:,.10g}")
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep="") if high >= 1e5 else plain)


def lengths(ax, values):
    """A logarithmic x axis of lengths of sequences."""
    ax.set(xscale="log", xlabel="length T, steps")
    ticks_at(ax, values)


def ticks_at(ax, values, form: str = "{:,}"):
    """Ticks on the x axis at every one of these values and nowhere else."""
    values = sorted(set(values))
    ax.set_xticks(values, [form.format(value) for value in values])
    ax.xaxis.set_minor_locator(ticker.NullLocator())


def log(ax):
    """A logarithmic y axis with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(ticker.NullFormatter())


def names(axes, x: str, y: str):
    """Names the x axis of the lowest panels and the y axis of the leftmost ones, (lines, columns)."""
    for ax in axes.flat:
        ax.set(xlabel="", ylabel="")
    for ax in _lowest(axes):
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)


def legend(figure: Figure, handles, notes: list[str]):
    """A legend below the panels, in lines of equal length, with notes above it; the figure grows by it.

    Args:
      handles: or the axes of which the lines have labels.
    """
    handles = handles if isinstance(handles, list) else handles.get_legend_handles_labels()[0]
    for handle in handles:  # none is wider than the figure
        handle.set_label(textwrap.fill(handle.get_label(), int(11 * figure.get_figwidth()) - 12))
    longest = max((len(part) for handle in handles for part in handle.get_label().split("\n")), default=1)
    fit = int(figure.get_figwidth() / (0.7 + 0.08 * longest)) or 1
    lines = max(1, -(-len(handles) // fit))
    columns = max(1, -(-len(handles) // lines))  # so that lines are of equal length
    across = int(15 * figure.get_figwidth())  # letters of 8 points
    notes = [part for note in notes for line in note.split("\n") for part in textwrap.wrap(line, across)]
    deep = max((handle.get_label().count("\n") for handle in handles), default=0) + 1
    figure.set_figheight(figure.get_figheight() + 0.2 * (lines * deep + len(notes)))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9,
        title="\n".join(notes), title_fontproperties={"size": 8},
    )  # fmt: skip


def handle(label: str, **look) -> Line2D:
    return Line2D([], [], label=label, **look)
