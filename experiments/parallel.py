"""What can run in parallel over time: the longest chain of operations, and measured time, against length.

  python -m experiments.parallel
  python -m experiments.parallel --preset=full --config.batch=1
  python -m experiments.parallel --cells=lstm,sru --config.times=256,1024,4096

Every cell and strategy next to a causal convolution and a feed-forward layer of equal size: as many
parameters as an SRU of `width` units, all on `width` features; hidden sizes follow from that. Each weight is
used once a step, so the work of the matmuls is equal too. The critical path is counted in the program
(jaxpr): it is what time would be on a machine without end; Newton's method has none, its iterations depend on
the numbers. Measured time also has the work, and how the machine does it: on few CPU cores that decides.
"""

import bisect
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
import configs
from experiments import plots
from experiments.lab import statistics, study
from experiments.lab.study import Verdict
from experiments.speed import layers
from experiments.speed import measure as timing

PASSES = layers.PASSES
WINDOW = 3  # of the convolution: its size is then an SRU's
MATCH = 2  # as fast as: at most so many times as slow
SHARE = 0.5  # of a layer's time
OTHERS = {  # in black, which no cell has
    "convolution": {"color": "#000000", "linestyle": "-", "marker": "P"},
    "feed_forward": {"color": "#000000", "linestyle": "--", "marker": "*"},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback")
    width: int = 64
    batch: int = 4
    path_times: tuple = (16, 64, 256, 1024, 4096, 16384)
    times: tuple = (128, 512, 2048)
    rounds: int = 7  # each the median of `repeats` runs
    repeats: int = 3


PRESETS = {
    "quick": Settings(
        cells=("lstm", "sru"),
        width=4,
        batch=2,
        path_times=(4, 16, 64),
        times=(8, 16),
        rounds=2,
        repeats=1,
    ),
    "fast": Settings(),
    "full": Settings(
        path_times=tuple(2**k for k in range(4, 15)),
        times=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
        rounds=20,
        repeats=5,
    ),
}


class Layer(NamedTuple):
    """Something that maps (batch, time, width) to (batch, time, hidden_size)."""

    label: str
    cell: str  # the name that gives the colour
    part: str  # "layer"; "projection": only what needs no state; "same width": a cell as wide as the LSTM
    hidden_size: int
    params: Any
    run: Callable  # (params, xs) -> ys
    independent: bool  # no state dimension sees another one's past within the layer


# --- the longest chain of operations

# What only moves numbers: no operation.
MOVES = {
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "expand_dims"),
    *("dynamic_update_slice", "gather", "optimization_barrier", "pad", "reshape", "rev", "slice", "split"),
    *("squeeze", "stack", "stop_gradient", "tile", "transpose", "unstack"),
}
NEVER = -np.inf  # the length of no path


def critical_path(function: Callable, *args) -> int:
    """The longest chain of operations, each of which needs the last one's result, in the program of
    `function`; `args` are arrays, or their shapes.

    An operation is one primitive on whole arrays, a matmul, convolution or sum among them; moving numbers is
    none. Arrays count as wholes: where only a part of one is late, all of it is, a bound from above.
    """
    program = jax.make_jaxpr(function)(*args)
    return int(max(0, _paths(program.jaxpr, {}).max(initial=0)))


def _paths(jaxpr, known: dict):
    """The longest path from each input to each output, (outputs, inputs); NEVER where there is none.

    All of it is linear in the algebra of max and +, so a scan is a power of its body's matrix.
    """
    if id(jaxpr) in known:
        return known[id(jaxpr)][0]
    size = len(jaxpr.invars)
    at = {v: np.full(size, NEVER) for v in jaxpr.constvars}
    at |= dict(zip(jaxpr.invars, _identity(size), strict=True))

    def read(v):
        return np.full(size, NEVER) if hasattr(v, "val") else at[v]  # a number in the program is always there

    for eqn in jaxpr.eqns:
        ins = np.array([read(v) for v in eqn.invars]).reshape(len(eqn.invars), size)
        for v, path in zip(eqn.outvars, _times(_equation(eqn, known), ins), strict=True):
            at[v] = path if 0 not in getattr(v.aval, "shape", ()) else np.full(size, NEVER)
    found = np.array([read(v) for v in jaxpr.outvars]).reshape(len(jaxpr.outvars), size)
    known[id(jaxpr)] = found, jaxpr  # kept, so that no other gets its id
    return found


def _equation(eqn, known):
    """The matrix of one equation."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        body = _paths(params["jaxpr"].jaxpr, known)
        return _scan(body, params["num_consts"], params["num_carry"], params["length"])
    if name == "cond":
        branches = [_paths(branch.jaxpr, known) for branch in params["branches"]]
        rest = np.maximum.reduce(branches)
        return np.concatenate([np.zeros((len(rest), 1)), rest], axis=1)
    if name == "custom_linear_solve":
        lengths, solve = params["const_lengths"], params["jaxprs"].solve
        before = lengths.matvec + lengths.vecmat
        inner = _paths(getattr(solve, "jaxpr", solve), known)  # of its constants and the right-hand side
        found = np.full((len(eqn.outvars), len(eqn.invars)), NEVER)
        found[:, before : before + lengths.solve] = inner[:, : lengths.solve]
        found[:, sum(lengths) :] = inner[:, lengths.solve :]
        return found
    if name == "while":
        raise NotImplementedError("a loop of unknown length has no critical path")
    for inner in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if inner in params:
            return _paths(getattr(params[inner], "jaxpr", params[inner]), known)
    cost = 0 if name in MOVES else 1
    if name.startswith("cum"):  # done in parallel at best
        cost = int(np.ceil(np.log2(max(2, eqn.invars[0].aval.shape[params["axis"]]))))
    return np.full((len(eqn.outvars), len(eqn.invars)), cost)


def _scan(body, num_consts, num_carry, length):
    """The body's matrix -> the scan's; its inputs are constants, carry, sequences."""
    carry = slice(num_consts, num_consts + num_carry)
    rest = np.r_[0:num_consts, num_consts + num_carry : body.shape[1]]
    again, enter = body[:num_carry, carry], body[:num_carry, rest]
    leave, direct = body[num_carry:, carry], body[num_carry:, rest]
    often = np.maximum(again, _identity(num_carry))  # once or not at all
    found = np.full(body.shape, NEVER)
    if length == 0:
        found[:num_carry, carry] = _identity(num_carry)
        return found
    found[:num_carry, carry] = _power(again, length)
    found[:num_carry, rest] = _times(_power(often, length - 1), enter)
    found[num_carry:, carry] = _times(leave, _power(often, length - 1))
    found[num_carry:, rest] = direct
    if length > 1:
        late = _times(leave, _times(_power(often, length - 2), enter))
        found[num_carry:, rest] = np.maximum(direct, late)
    return found


def _identity(size):
    return np.where(np.eye(size, dtype=bool), 0.0, NEVER)


def _times(a, b):
    """The matrix product of max and +."""
    return (a[:, :, None] + b[None]).max(1, initial=NEVER)


def _power(a, n):
    found = _identity(len(a))
    while n:
        found, a, n = _times(found, a) if n % 2 else found, _times(a, a), n // 2
    return found


# --- layers


@functools.cache
def all_layers(cell_texts: tuple, width: int) -> list[Layer]:
    """Every cell and strategy, the two others, and what the LSTM is taken apart with."""
    D, found = width, []
    key = jax.random.key(0)
    wanted = _count(jax.eval_shape(lambda: cells.get("sru", hidden_size=D).init(key, D)))
    for text in cell_texts:
        name, options = configs.with_options(text)
        cell = _equal_size(name, options, D, wanted)
        strategies = [s for s in cells.strategies(cell) if s != "auto"]
        for strategy in strategies:
            plain = strategy == "sequential" and not cell.is_linear  # the way that such a cell has by itself
            label = text if plain else f"{text} {strategy}"
            found.append(_cell_layer(label, cell, D, strategy=strategy))
        if text == "lstm":
            found.append(_cell_layer("lstm projection", cell, D, "projection"))
            rnn = cells.get("rnn", hidden_size=cell.hidden_size)
            found.append(_cell_layer("rnn as wide", rnn, D, "same width"))
    uniform = jax.nn.initializers.lecun_uniform()
    kernel = {"W": uniform(key, (WINDOW, D, D)), "b": jnp.zeros(D)}
    found.append(Layer("convolution", "convolution", "layer", D, kernel, convolution, True))
    middle = round((wanted - D) / (2 * D + 1))
    dense = {"W1": uniform(key, (D, middle)), "b1": jnp.zeros(middle), "W2": uniform(key, (middle, D))}
    dense["b2"] = jnp.zeros(D)
    return [*found, Layer("feed_forward", "feed_forward", "layer", D, dense, feed_forward, True)]


def _equal_size(name, options, width, wanted):
    """The cell with nearest to `wanted` parameters; with as many units as features where that is near."""

    def size(hidden_size):
        cell = cells.get(name, hidden_size=hidden_size, **options)
        return _count(jax.eval_shape(lambda: cell.init(jax.random.key(0), width)))

    unit = cells.CELLS.cls(name).size_multiple(**options)
    # At the input's width SRU needs no projection of x, and is smaller than its neighbours.
    if width % unit == 0 and abs(size(width) - wanted) <= 0.02 * wanted:
        return cells.get(name, hidden_size=width, **options)
    sizes = range(unit, 4 * width + 2 * unit, unit)
    above = bisect.bisect_left(sizes, wanted, key=size)
    near = sizes[max(0, above - 3) : above + 3]  # where the width is among them, the order is broken
    nearest = min(near, key=lambda hidden_size: abs(size(hidden_size) - wanted))
    return cells.get(name, hidden_size=nearest, **options)


def _count(params) -> int:
    return sum(p.size for p in jax.tree.leaves(params))


def _cell_layer(label, cell, width, part="layer", strategy="sequential") -> Layer:
    params = cell.init(jax.random.key(0), width)

    def run(params, xs):
        if part == "projection":
            us, rest = cell.project(params, xs)
            return jnp.concatenate(jax.tree.leaves((us, rest)), axis=-1)
        return cells.scan(cell, params, xs, strategy=strategy)[1]

    weights = jax.tree.leaves(cell.recurrent_weights(params))
    independent = cell.is_linear or bool(weights) and all(w.ndim == 1 for w in weights)
    return Layer(label, cells.CELLS.name_of(cell), part, cell.hidden_size, params, run, independent)


def convolution(params, xs):
    """relu(sum_k x_{t-k} W_k + b), k < WINDOW: xs (batch, time, width)."""
    padding, names = [(WINDOW - 1, 0)], ("NTC", "TIO", "NTC")
    ys = jax.lax.conv_general_dilated(xs, params["W"], (1,), padding, dimension_numbers=names)
    return jax.nn.relu(ys + params["b"])


def feed_forward(params, xs):
    """relu(x W1 + b1) W2 + b2 at every step: xs (batch, time, width)."""
    return jax.nn.relu(xs @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]


# --- measuring


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`path`: operations by layer, pass and time; `time`: ms by layer, pass, time and round."""
    paths, times = [], []
    for time in settings.path_times:
        told = {"cells": settings.cells, "width": settings.width}
        paths += lab.do(f"path-{time}", told, lambda time=time: _count_paths(settings, time))
    for time in settings.times:
        told = {"cells": settings.cells, "width": settings.width, "batch": settings.batch}
        told |= {"rounds": settings.rounds, "repeats": settings.repeats, "backend": jax.default_backend()}
        times += lab.do(f"time-{time}", told, lambda time=time: _time(settings, time))
        lab.console.print(f"{time} steps are measured")
    return {"path": pd.DataFrame(paths), "time": pd.DataFrame(times)}


def _labels(layer: Layer, how, time) -> dict:
    told = {"label": layer.label, "cell": layer.cell, "part": layer.part, "pass": how, "time": time}
    return told | {"hidden_size": layer.hidden_size, "parameters": _count(layer.params)}


def _count_paths(settings, time) -> list[dict]:
    rows = []
    xs = jax.ShapeDtypeStruct((1, time, settings.width), jnp.float32)
    for layer in all_layers(settings.cells, settings.width):
        d_ys = jax.eval_shape(layer.run, layer.params, xs)
        for how in PASSES:
            program, args = layers.program_of(layer.run, layer.params, xs, d_ys, how, devices=1)
            try:
                path = critical_path(program, *args)
            except NotImplementedError:  # it depends on the numbers
                continue
            told = {"independent": layer.independent, "operations": path}
            rows.append(_labels(layer, how, time) | told)
    return rows


def _time(settings, time) -> list[dict]:
    xs = jax.random.normal(jax.random.key(1), (settings.batch, time, settings.width))
    runs, cases = {}, []
    for layer in all_layers(settings.cells, settings.width):
        for how in PASSES:

            def make(layer=layer, how=how):
                if (layer.label, how) not in runs:  # compiled in the first round
                    d_ys = np.ones(jax.eval_shape(layer.run, layer.params, xs).shape, np.float32)
                    args = (layer.run, layer.params, xs, jax.device_put(d_ys))
                    runs[layer.label, how] = layers.jax_run(*args, how, devices=1)
                return runs[layer.label, how]

            cases.append(timing.Case(_labels(layer, how, time), make))
    machine = {"batch": settings.batch, "backend": jax.default_backend(), "cores": os.cpu_count()}
    return [
        row | machine | {"round": number}
        for number in range(settings.rounds)
        for row in timing.interleaved(cases, settings.repeats)
    ]


# --- what follows from the numbers


def growth(times, operations) -> str:
    """How a path grows with time: "constant", or what fits better by least squares, a + b log2 T
    ("logarithmic") or a + b T ("linear")."""
    times, operations = np.asarray(times, float), np.asarray(operations, float)
    if len(set(operations)) == 1:
        return "constant"
    left = {}
    for name, x in (("logarithmic", np.log2(times)), ("linear", times)):
        left[name] = np.square(operations - np.polyval(np.polyfit(x, operations, 1), x)).sum()
    return min(left, key=left.get)


def growths(path: pd.DataFrame) -> pd.DataFrame:
    """One row per layer and pass: how its path grows, its length at the longest time and that over time."""
    rows = []
    for _, group in path.groupby(["label", "pass"], sort=False):
        last = group.sort_values("time").iloc[-1]
        told = {
            name: last[name]
            for name in ("label", "cell", "part", "pass", "independent", "time", "operations")
        }
        told["growth"] = growth(group["time"], group["operations"])
        rows.append(told | {"per_step": last["operations"] / last["time"]})
    return pd.DataFrame(rows)


def _ms(time: pd.DataFrame, label, how, at) -> pd.Series:
    """ms by round."""
    rows = time[(time["label"] == label) & (time["pass"] == how) & (time["time"] == at)]
    return rows.set_index("round")["ms"].sort_index()


def _fastest(time: pd.DataFrame, cell, how, at) -> str:
    """The label of a cell's fastest strategy."""
    rows = time[
        (time["cell"] == cell) & (time["part"] == "layer") & (time["pass"] == how) & (time["time"] == at)
    ]
    return rows.groupby("label")["ms"].median().idxmin()


def ratios(time: pd.DataFrame) -> pd.DataFrame:
    """Ratios of times by pass and length, an Estimate over rounds each: `sru`, its fastest strategy over the
    convolution; `serial`, the share of the LSTM's time outside its projection, taken to cost there what it
    costs alone; `gates`, the LSTM over the RNN."""
    rows, labels = [], set(time["label"])
    for (how, at), _ in time.groupby(["pass", "time"], sort=False):
        row = {"pass": how, "time": at}
        if "sru" in set(time["cell"]):
            row["fastest"] = _fastest(time, "sru", how, at)
            row["sru"] = statistics.median(
                _ms(time, row["fastest"], how, at) / _ms(time, "convolution", how, at)
            )
        if "lstm" in labels:
            lstm = _ms(time, "lstm", how, at)
            row["serial"] = statistics.median(1 - _ms(time, "lstm projection", how, at) / lstm)
            row["gates"] = statistics.median(lstm / _ms(time, "rnn as wide", how, at))
        rows.append(row)
    return pd.DataFrame(rows)


def tables(frames) -> dict[str, pd.DataFrame]:
    """Sizes and paths; times at the longest length; what the verdicts rest on."""
    path, time = frames["path"], frames["time"]
    found, rows = growths(path), []
    for label, group in found.groupby("label", sort=False):
        sizes = path[path["label"] == label].iloc[0]
        row = {"layer": label, "hidden": sizes["hidden_size"], "parameters": sizes["parameters"]}
        for one in group.to_dict("records"):
            row[f"{one['pass']}, operations"] = f"{one['operations']:,}"
            row[f"{one['pass']}, growth"] = one["growth"]
        rows.append(row)
    longest = path["time"].max()
    shown = {f"Critical path: the longest chain of operations at {longest:,} steps": pd.DataFrame(rows)}
    rows = []
    for label, group in time.groupby("label", sort=False):
        row = {"layer": label}
        for how, of in group.groupby("pass", sort=False):
            middle = of.groupby("time")["ms"].median()
            late = middle.iloc[-max(3, (len(middle) + 1) // 2) :]
            end = of[of["time"] == middle.index[-1]]["ms"]
            row[f"{how}, ms"] = f"{statistics.median(end)}"
            row[f"{how}, time ~ T^"] = f"{statistics.slope(np.log(late.index), np.log(late)):.2f}"
        rows.append(row)
    shown[f"Measured time at {time['time'].max():,} steps, {_machine(time)} (median of rounds [95 %])"] = (
        pd.DataFrame(rows)
    )
    names = {
        "sru": "SRU's fastest / convolution",
        "serial": "LSTM: share outside W x",
        "gates": "LSTM / RNN as wide",
    }
    compared = ratios(time).sort_values(["pass", "time"])
    table = compared[["pass", "time"]].rename(columns={"time": "steps"})
    for name, title in names.items():
        if name in compared:
            table[title] = [f"{value:.2f}" for value in compared[name]]
    if "fastest" in compared:
        table["fastest"] = compared["fastest"]
    return shown | {"Ratios of times": table}


def _machine(time) -> str:
    first = time.iloc[0]
    return f"{first['batch']} sequences, {first['backend']}, {first['cores']} CPU cores"


def figures(frames) -> dict[str, Figure]:
    """`critical_path` and `time` against length, by layer; `lstm`: what its time is spent on."""
    path, time = frames["path"], frames["time"]
    layer = path[path["part"] == "layer"]
    made = {
        "critical_path": _lines(
            layer, "operations", "longest chain of dependent operations",
            f"Counted in the program. Layers of about {int(layer['parameters'].median()):,} parameters.",
        ),
        "time": _lines(
            time[time["part"] == "layer"], "ms", "time of one run, ms",
            f"Line: median of {time['round'].nunique()} rounds; band: their middle half. {_machine(time)}; "
            f"layers of about {int(layer['parameters'].median()):,} parameters.",
        ),
    }  # fmt: skip
    if "lstm" in set(time["label"]):
        made["lstm"] = _lstm(time)
    return made


def _axes(figure, count, **how):
    axes = figure.subplots(1, count, squeeze=False, **how)[0]
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_xlabel("length T, steps")
        ax.grid(alpha=0.25)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return axes


def _lines(frame, value, name, note) -> Figure:
    look = plots.styles(frame) | OTHERS
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    axes = _axes(figure, len(PASSES), sharey=True)
    for ax, how in zip(axes, PASSES, strict=True):
        for label, group in frame[frame["pass"] == how].groupby("label", sort=False):
            by = group.groupby("time")[value]
            ax.plot(
                by.median().index, by.median(), label=label.replace("_", " "), ms=4, lw=1.5, **look[label]
            )
            low, high = by.quantile(0.25), by.quantile(0.75)
            ax.fill_between(low.index, low, high, color=look[label]["color"], alpha=0.15, lw=0)
        ax.set_yscale("log")
        ax.set_title({"forward": "forward", "gradient": "forward and gradient"}[how], loc="left", fontsize=10)
    axes[0].set_ylabel(name)
    plots.legend(figure, axes[0].get_legend_handles_labels()[0], [note])
    return figure


def _lstm(time) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = _axes(figure, 2)
    colour = plots.CELLS["lstm"][0]
    for how, line in zip(PASSES, ("-", "--"), strict=True):
        rows = ratios(time).query("`pass` == @how").sort_values("time")
        for ax, name in zip(axes, ("serial", "gates"), strict=True):
            values, low, high = np.array(rows[name].tolist()).T
            ax.plot(rows["time"], values, line, color=colour, marker="s", ms=4, label=how)
            ax.fill_between(rows["time"], low, high, color=colour, alpha=0.15, lw=0)
    axes[0].set(ylabel="share of the LSTM's time", ylim=(min(0, axes[0].get_ylim()[0]), 1))
    axes[0].set_title("outside its input projection W x", loc="left", fontsize=10)
    axes[1].axhline(1, color=plots.MUTED, lw=1, ls=":")
    axes[1].set(ylabel="time of LSTM / time of RNN")
    axes[1].set_ylim(0, None)
    axes[1].set_title("against an RNN of as many units", loc="left", fontsize=10)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8,
        title=f"Line: median of {time['round'].nunique()} rounds; band: its 95 % interval. {_machine(time)}.",
        title_fontproperties={"size": 8},
    )  # fmt: skip
    return figure


def verdicts(frames) -> dict[str, Verdict]:
    """`sru_parallel` has three parts. Path: some strategy of SRU has a path that grows no faster than
    log T, in both passes. Reason: so has every other cell whose state dimensions are independent. Time: at
    the longest length SRU's fastest strategy takes at most MATCH times as long as the convolution of its
    size, the whole interval, in both passes. Holds: all three. Does not hold here: no such path. Else in
    part.

    `lstm_cost` has three parts. Path: the LSTM's grows linearly with T in both passes. Serial: at the longest
    length more than SHARE of its time goes outside the input projection, the whole interval, in both passes.
    Gates: it takes longer than an RNN of as many units, likewise. Holds: all three. Does not hold here: the
    path is not linear, or neither of the others. Else in part.
    """
    found, compared = growths(frames["path"]), ratios(frames["time"])
    last = compared[compared["time"] == compared["time"].max()].set_index("pass")
    machine = f"{_machine(frames['time'])}, {last['time'].iloc[0]:,} steps"
    return {"sru_parallel": _sru(found, last, machine), "lstm_cost": _lstm_cost(frames, found, last, machine)}


def _fast_path(found: pd.DataFrame, cell) -> str | None:
    """The label of a strategy of a cell whose path grows no faster than log T, in both passes."""
    for label, group in found[(found["cell"] == cell) & (found["part"] == "layer")].groupby("label"):
        if set(group["growth"]) <= {"constant", "logarithmic"}:
            return label
    return None


def _told(found: pd.DataFrame, label) -> str:
    rows = found[found["label"] == label].set_index("pass").loc[list(PASSES)]
    lengths = " and ".join(f"{length:,}" for length in rows["operations"])
    return f"{label} {lengths} operations ({', '.join(dict.fromkeys(rows['growth']))})"


def _sru(found, last, machine) -> Verdict:
    if "sru" not in set(found["cell"]) or "sru" not in last:
        return Verdict("not tested here", "no SRU among the cells")
    fast = _fast_path(found, "sru")
    others = found[
        found["independent"].astype(bool) & ~found["cell"].isin(["sru", "convolution", "feed_forward"])
    ]
    slow = sorted(cell for cell in set(others["cell"]) if not _fast_path(found, cell))
    reason = bool(len(others)) and not slow
    matches = all(last.loc[how, "sru"].high <= MATCH for how in PASSES)
    longest = found["time"].max()
    told = f"Path at {longest:,} steps, forward and gradient: "
    shown = [fast or found[found["cell"] == "sru"]["label"].iloc[0], "convolution", *slow]
    told += "; ".join(_told(found, label) for label in shown if label in set(found["label"])) + ". "
    if slow:
        told += (
            f"The state dimensions of {', '.join(slow)} are independent too, and its path is linear in T: it "
            "takes a state that is linear in the last one. "
        )
    elif not len(others):
        told += "No other cell with independent dimensions was there, so the reason is not tested. "
    told += f"Time of SRU's fastest strategy over the convolution's ({machine}): " + ", ".join(
        f"{how} {last.loc[how, 'sru']:.2f} ({last.loc[how, 'fastest']})" for how in PASSES
    )
    told += "."
    if fast and fast not in set(last["fastest"]):
        told += " The strategy of the short path is not the fastest there: the work decides, not the path."
    verdict = "does not hold here" if not fast else "holds" if reason and matches else "holds in part"
    return Verdict(verdict, told)


def _lstm_cost(frames, found, last, machine) -> Verdict:
    if "lstm" not in set(found["label"]) or "serial" not in last:
        return Verdict("not tested here", "no LSTM among the cells")
    linear = set(found[found["label"] == "lstm"]["growth"]) == {"linear"}
    serial = all(last.loc[how, "serial"].low > SHARE for how in PASSES)
    gates = all(last.loc[how, "gates"].low > 1 for how in PASSES)
    told = f"Path at {found['time'].max():,} steps, forward and gradient: {_told(found, 'lstm')}"
    if "rnn as wide" in set(found["label"]):
        told += f"; {_told(found, 'rnn as wide')}"
    for name, words in (
        ("serial", "Share of time outside W x"),
        ("gates", "Time over an RNN of as many units"),
    ):
        told += f". {words} ({machine}): " + ", ".join(f"{how} {last.loc[how, name]:.2f}" for how in PASSES)
    if "lstm newton" in set(frames["time"]["label"]):
        at = frames["time"]["time"].max()
        ms = [[_ms(frames["time"], label, how, at) for label in ("lstm newton", "lstm")] for how in PASSES]
        shown = [f"{how} {statistics.median(a / b):.2f}" for how, (a, b) in zip(PASSES, ms, strict=True)]
        told += ". Time of Newton's method, parallel over time at the cost of iterations, over step by step: "
        told += ", ".join(shown)
    verdict = "holds" if linear and serial and gates else "holds in part"
    return Verdict(verdict if linear and (serial or gates) else "does not hold here", told + ".")


if __name__ == "__main__":
    study.command(sys.modules[__name__])
