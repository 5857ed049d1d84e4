"""Rows of the benchmark to tables, goals and figures; nothing here measures."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.lab import style
from experiments.speed import rivals
from experiments.speed.layers import UNLIKE

SIZE = ["batch", "time", "hidden_size"]
SHOWN = {"ours": "this", "torch": "PyTorch", "linen": "Flax linen", "nnx": "Flax nnx"}
SHOWN |= {"equinox": "Equinox", "keras": "Keras"}
TIMES_PYTORCH = {"rnn": 2.0, "gru": 1.6, "lstm": 1.1, "sru": 4.0}
TIMES_FLAX, OF_BOUND, WITHIN_BOUND = 1.8, 0.65, 1.5


def with_bounds(rows: pd.DataFrame, bounds: dict) -> pd.DataFrame:
    """Adds to our rows `gflops_per_s`, `bound_ms` (their matmuls at the measured rate), `fraction` of it."""
    rows["gflops_per_s"] = 1e3 * rows["gflop"] / rows["ms"]
    rows["bound_ms"] = 1e3 * rows["gflop"] / bounds["matmul_gflops"]
    rows["fraction"] = rows["bound_ms"] / rows["ms"]
    return rows


def best(layers: pd.DataFrame) -> pd.DataFrame:
    """The fastest row of each size, pass, library and cell, over strategies and numbers of devices."""
    timed = layers.dropna(subset="ms").sort_values("ms")
    return timed.drop_duplicates([*SIZE, "pass", "library", "cell"]).sort_values([*SIZE, "pass", "cell"])


def layer_tables(layers: pd.DataFrame, short: bool = False) -> dict[str, pd.DataFrame]:
    """A table per pass and size, by title: milliseconds here; a rival's, and how many times ours that is.

    Args:
      short: only how many times, to fit a terminal.
    """
    fastest, tables = best(layers), {}
    for _, row in fastest[fastest["library"] == "ours"].iterrows():
        out = {
            "cell": row["cell"],
            "this": _number(row["ms"]),
            "how": row["strategy"].replace("sequential", "") + f" x{row['devices']}",
            "bound": f"{100 * row['fraction']:.0f}%",
        }
        for library in rivals.NAMES:
            if library in set(layers["library"]):
                other = _other(fastest, row, library)
                out[SHOWN[library]] = _versus(other, row["ms"], short)
        title = "{pass}, batch {batch}, time {time}, hidden {hidden_size}, ms".format(**row)
        tables.setdefault(title, []).append(out)
    return {title: pd.DataFrame(rows) for title, rows in tables.items()}


def _versus(other: float | None, ours: float, short: bool) -> str:
    if other is None:
        return "–"
    ratio = f"{other / ours:.2f}x" if other < 10 * ours else f"{other / ours:.0f}x"
    return ratio if short else f"{_number(other)} ({ratio})"


def _other(fastest: pd.DataFrame, row, library: str) -> float | None:
    """A library's best time for the same size, pass and cell (or what stands beside it)."""
    same = (fastest[[*SIZE, "pass"]] == row[[*SIZE, "pass"]]).all(axis=1) & (fastest["library"] == library)
    found = fastest[same & (fastest["cell"] == UNLIKE.get(row["cell"], row["cell"]))]
    return None if found.empty else float(found["ms"].iloc[0])


def layer_goals(layers: pd.DataFrame) -> pd.DataFrame:
    """What was asked for, what was measured, and whether that meets it; for the gradient pass."""
    fastest, rows = best(layers[layers["pass"] == "gradient"]), []
    for _, row in fastest[fastest["library"] == "ours"].iterrows():
        cell, size = row["cell"], "{batch}, {time}, {hidden_size}".format(**row)
        if cell not in TIMES_PYTORCH:
            continue
        torch = _other(fastest, row, "torch")
        if torch is not None:
            versus = f"times PyTorch's {UNLIKE.get(cell, cell)}"
            rows.append(goal(size, cell, versus, torch / row["ms"], TIMES_PYTORCH[cell]))
        flax = [ms for name in ("linen", "nnx") if (ms := _other(fastest, row, name)) is not None]
        if flax and cell not in UNLIKE:
            rows.append(goal(size, cell, "times Flax's layer", min(flax) / row["ms"], TIMES_FLAX))
        if cell in UNLIKE:
            rows.append(goal(size, cell, "times its bound", 1 / row["fraction"], WITHIN_BOUND, most=True))
        elif row["hidden_size"] == 256:
            rows.append(goal(size, cell, "share of its bound", row["fraction"], OF_BOUND))
    return pd.DataFrame(rows)


def goal(of: str, cell: str, what: str, measured: float, wanted: float, most: bool = False) -> dict:
    """A row: what was wanted, at least or at most, and what was measured."""
    met = measured <= wanted if most else measured >= wanted
    return {
        "of": of,
        "cell": cell,
        "goal": what,
        "wanted": f"{'≤' if most else '≥'} {wanted:g}",
        "measured": f"{measured:.2f}",
        "met": "yes" if met else "NO",
    }


def training_table(training: pd.DataFrame) -> pd.DataFrame:
    """Optimiser steps per second, all seeds together; a straightforward loop's, and how many times that."""
    rows = []
    for row, ratios in _against_loops(training):
        out = {"task": row["task"], "cell": row["cell"], "seeds": row["seeds"]}
        out |= {"this": _number(1e3 / row["ms"]), "compile, s": _number(row["compile_s"])}
        out["bound"] = f"{100 * row['fraction']:.0f}%"
        for library, ratio in ratios.items():
            out[SHOWN[library]] = f"{_number(1e3 / row['ms'] / ratio)} ({ratio:.1f}x)"
        rows.append(out)
    return pd.DataFrame(rows).fillna("–")


def latency_table(latency: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds of one step, a row for each cell and size; PyTorch's, and how many times that is."""
    rows, timed = [], latency.dropna(subset="ms")
    for _, row in timed[timed["library"] == "ours"].iterrows():
        quartiles = f"{_number(row['ms_q25'])}–{_number(row['ms_q75'])}"
        out = {"cell": row["cell"], "batch": row["batch"], "hidden": row["hidden_size"]}
        out["this"] = f"{_number(row['ms'])} ({quartiles})"
        same = timed[(timed["library"] == "torch") & (timed["batch"] == row["batch"])]
        same = same[same["cell"] == UNLIKE.get(row["cell"], row["cell"])]
        same = same[(same["hidden_size"] - row["hidden_size"]).abs() < 16]
        if "torch" in set(timed["library"]):
            other = None if same.empty else float(same["ms"].iloc[0])
            out[SHOWN["torch"]] = _versus(other, row["ms"], short=False)
        rows.append(out)
    return pd.DataFrame(rows)


def training_goals(training: pd.DataFrame) -> pd.DataFrame:
    """As `layer_goals`, for the whole loop."""
    rows = []
    for row, ratios in _against_loops(training):
        wanted = 5 if row["seeds"] == 8 else 2
        for library, ratio in ratios.items():
            of = f"{row['task']}, {row['seeds']} seed{'s' * (row['seeds'] > 1)}"
            rows.append(goal(of, row["cell"], f"times {SHOWN[library]}", ratio, wanted))
    return pd.DataFrame(rows)


def _against_loops(training: pd.DataFrame):
    """(row, {library: how many times its steps per second}) of each case of ours."""
    timed = training.dropna(subset="ms")
    for _, row in timed[timed["library"] == "ours"].iterrows():
        kind = UNLIKE.get(row["cell"], row["cell"])
        same = timed[(timed["task"] == row["task"]) & (timed["cell"] == kind) & (timed["library"] != "ours")]
        yield row, dict(zip(same["library"], same["ms"] / row["ms"], strict=True))


def memory_tables(memory: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table per size, by title: MiB of one gradient."""
    tables = {}
    for _, row in memory.iterrows():
        how = row["strategy"] + (" remat" if row["remat"] else "")
        title = "Memory of a gradient, batch {batch}, time {time}, hidden {hidden_size}, MiB".format(**row)
        tables.setdefault(title, []).append(
            {
                "cell": row["cell"],
                "library": SHOWN[row["library"]],
                "how": how or "–",
                "planned by XLA": _number(row.get("temp_mib")),
                "rise of the process": _number(row.get("peak_mib")),
            }
        )
    return {title: pd.DataFrame(rows) for title, rows in tables.items()}


def _number(value) -> str:
    if value is None or pd.isna(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def layers_figure(layers: pd.DataFrame) -> Figure:
    """Time of the gradient pass of each library, one panel per size, a row per cell; log scale."""
    fastest = best(layers[layers["pass"] == "gradient"])
    sizes = list(dict.fromkeys(map(tuple, fastest[SIZE].to_numpy())))
    cells = [name for name in style.known() if name in set(fastest["cell"])]
    cells += sorted(set(fastest["cell"]) - set(cells))
    figure = Figure(figsize=(4 * len(sizes), 1.4 + 0.6 * len(cells)), layout="constrained")
    panels = figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
    markers = dict(zip(("ours", *rivals.NAMES), "osD^vP", strict=True))
    look = style.styles(pd.DataFrame({"cell": cells, "label": cells}))
    for panel, size in zip(panels, sizes, strict=True):
        rows = fastest[(fastest[SIZE] == list(size)).all(axis=1)]
        for _, row in rows.iterrows():
            ours = row["library"] == "ours"
            panel.plot(
                row["ms"],
                cells.index(row["cell"]),
                markers[row["library"]],
                color=look[row["cell"]]["color"],
                markersize=9 if ours else 6,
                markerfacecolor=None if ours else "none",
            )
            if ours:
                at = cells.index(row["cell"])
                panel.plot([row["bound_ms"]] * 2, [at - 0.3, at + 0.3], color=style.INK, linewidth=1)
        panel.set(xscale="log", title="batch {}, time {}, hidden {}".format(*size))
        style.ticks(panel, *panel.get_xlim())
        panel.set_xlabel("ms, forward and backward")
        panel.grid(axis="x", which="both", alpha=0.25)
    panels[0].set_yticks(range(len(cells)), cells)
    panels[0].invert_yaxis()
    shown = [name for name in markers if name in set(fastest["library"])]
    handles = [
        Line2D(
            [],
            [],
            marker=markers[n],
            ls="",
            color=style.INK,
            mfc=None if n == "ours" else "none",
            label=SHOWN[n],
        )
        for n in shown
    ]
    handles.append(Line2D([], [], marker="|", ls="", color=style.INK, label="bound: its matmuls alone"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def growth_figure(layers: pd.DataFrame, how: str = "gradient") -> Figure:
    """Our time against the length of the sequence, a line per cell and strategy; log scales."""
    rows = layers[(layers["pass"] == how) & (layers["library"] == "ours")].dropna(subset="ms")
    rows = rows.sort_values("ms").drop_duplicates([*SIZE, "cell", "strategy"])
    rows = rows.assign(
        label=rows["cell"] + rows["strategy"].map(lambda s: "" if s == "sequential" else f", {s}")
    )
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panel = figure.subplots()
    look = style.styles(rows)
    for label, line in rows.groupby("label"):
        line = line.sort_values("time")
        panel.plot(line["time"], line["ms"], label=label, **look[label])
    first = rows.iloc[0]
    panel.set(xscale="log", yscale="log", xlabel="steps of the sequence", ylabel=f"ms, {how} pass")
    panel.set_title("batch {batch}, hidden {hidden_size}".format(**first))
    panel.grid(which="both", alpha=0.25)
    style.legend(figure, panel.get_legend_handles_labels()[0], [])
    return figure


def training_figure(training: pd.DataFrame) -> Figure:
    """Optimiser steps per second of the whole loop, one panel per task."""
    timed = training.dropna(subset="ms")
    tasks = list(dict.fromkeys(timed["task"]))
    figure = Figure(figsize=(5 * len(tasks), 4), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        rows = timed[timed["task"] == task].sort_values(["cell", "library", "seeds"])
        names = [
            f"{row['cell']}, {SHOWN[row['library']]}"
            + (f", {row['seeds']} seeds" if row["seeds"] > 1 else "")
            for _, row in rows.iterrows()
        ]
        look = style.styles(pd.DataFrame({"cell": rows["cell"], "label": rows["cell"]}))
        colours = [look[cell]["color"] for cell in rows["cell"]]
        alpha = [1.0 if library == "ours" else 0.45 for library in rows["library"]]
        bars = panel.barh(names, 1e3 / rows["ms"], color=colours)
        for bar, a in zip(bars, alpha, strict=True):
            bar.set_alpha(a)
        panel.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.15)
        panel.set(title=task, xlabel="optimiser steps per second, all seeds together")
    return figure
