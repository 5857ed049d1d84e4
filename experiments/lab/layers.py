"""Layers of equal size: every cell and strategy, a causal convolution, a feed-forward layer."""

import bisect
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import cells
import configs
from experiments.lab import probes, statistics
from experiments.lab.verdicts import ratio
from train.model import count

WINDOW = 3  # of the convolution: its size is then an SRU's
OTHERS = {  # in black, which no cell has
    "convolution": {"color": "#000000", "linestyle": "-", "marker": "P"},
    "feed_forward": {"color": "#000000", "linestyle": "--", "marker": "*"},
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


@functools.cache
def all_layers(cell_texts: tuple, width: int) -> list[Layer]:
    """Every cell and strategy, the two others, and what the LSTM is taken apart with."""
    D, found = width, []
    key = jax.random.key(0)
    wanted = count(jax.eval_shape(lambda: cells.get("sru", hidden_size=D).init(key, D)))
    for text in cell_texts:
        name, options = configs.with_options(text)
        cell = _equal_size(name, options, D, wanted)
        strategies = [s for s in cells.strategies(cell) if s != "auto"]
        for strategy in strategies:
            label = text if _is_plain(cell, strategy) else f"{text} {strategy}"
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


def _is_plain(cell, strategy) -> bool:
    """Whether a cell runs so by itself, step by step."""
    return strategy in ("sequential", "stepwise") and not probes.is_linear(cell)


def _equal_size(name, options, width, wanted):
    """The cell with nearest to `wanted` parameters; with as many units as features where that is near."""

    def size(hidden_size):
        cell = cells.get(name, hidden_size=hidden_size, **options)
        return count(jax.eval_shape(lambda: cell.init(jax.random.key(0), width)))

    unit = cells.CELLS.cls(name).size_multiple(**options)
    # At the input's width SRU needs no projection of x, and is smaller than its neighbours.
    if width % unit == 0 and abs(size(width) - wanted) <= 0.02 * wanted:
        return cells.get(name, hidden_size=width, **options)
    sizes = range(unit, 4 * width + 2 * unit, unit)
    above = bisect.bisect_left(sizes, wanted, key=size)
    near = sizes[max(0, above - 3) : above + 3]  # where the width is among them, the order is broken
    nearest = min(near, key=lambda hidden_size: abs(size(hidden_size) - wanted))
    return cells.get(name, hidden_size=nearest, **options)


@functools.cache
def _params(cell, width):
    return jax.jit(lambda: cell.init(jax.random.key(0), width))()


def _cell_layer(label, cell, width, part="layer", strategy="sequential") -> Layer:
    params = _params(cell, width)

    def run(params, xs):
        if part == "projection":
            us, rest = cell.project(params, xs)
            return jnp.concatenate(jax.tree.leaves((us, rest)), axis=-1)
        return cells.scan(cell, params, xs, strategy=strategy)[1]

    weights = jax.tree.leaves(getattr(cell, "recurrent_weights", lambda params: {})(params))
    independent = probes.is_linear(cell) or bool(weights) and all(w.ndim == 1 for w in weights)
    return Layer(label, cells.CELLS.name_of(cell), part, cell.hidden_size, params, run, independent)


def convolution(params, xs):
    """relu(sum_k x_{t-k} W_k + b), k < WINDOW: xs (batch, time, width)."""
    padding, names = [(WINDOW - 1, 0)], ("NTC", "TIO", "NTC")
    ys = jax.lax.conv_general_dilated(xs, params["W"], (1,), padding, dimension_numbers=names)
    return jax.nn.relu(ys + params["b"])


def feed_forward(params, xs):
    """relu(x W1 + b1) W2 + b2 at every step: xs (batch, time, width)."""
    return jax.nn.relu(xs @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]


def ratios(time: pd.DataFrame) -> pd.DataFrame:
    """Ratios of times by pass and length, an Estimate over rounds each: `sru`, its fastest strategy over the
    convolution; `serial`, the share of the LSTM's time outside its projection, taken to cost there what it
    costs alone; `units` and `size`, the LSTM over RNNs; `newton`, by Newton's method over step by step."""
    rows = []
    for (which, at), here in time.groupby(["pass", "time"], sort=False):
        ms = here.pivot(index="round", columns="label", values="ms").sort_index()
        row, sru = {"pass": which, "time": at}, [label for label in ms if label.split()[0] == "sru"]
        if sru:
            times = ms[sru].to_numpy()
            row["fastest"] = sru[np.median(times, 0).argmin()]
            # Each round has the strategy that was the fastest in the others: none chooses its own.
            others = (np.delete(times, turn, 0) if len(times) > 1 else times for turn in range(len(times)))
            fastest = [np.median(other, 0).argmin() for other in others]
            row["sru"] = ratio(times[np.arange(len(times)), fastest], ms["convolution"])
        if "lstm" in ms:
            row["serial"] = statistics.mean(1 - ms["lstm projection"] / ms["lstm"])
            against = {
                "units": ("lstm", "rnn as wide"),
                "size": ("lstm", "rnn"),
                "newton": ("lstm newton", "lstm"),
            }
            row |= {name: ratio(ms[a], ms[b]) for name, (a, b) in against.items() if {a, b} <= set(ms)}
        rows.append(row)
    return pd.DataFrame(rows)


def ratio_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`ratios` as text."""
    names = {"sru": "SRU's fastest / convolution", "fastest": "fastest", "serial": "LSTM: share outside W x"}
    names |= {"units": "LSTM / RNN of as many units", "size": "LSTM / RNN of as many parameters"}
    names |= {"newton": "LSTM: Newton / step by step"}
    names = {name: text for name, text in names.items() if name in compared}
    table = compared.sort_values(["pass", "time"])[["pass", "time", *names]].copy()
    for name in names.keys() - {"fastest"}:
        table[name] = [f"{value:.2f}" for value in table[name]]
    return table.rename(columns=names | {"time": "steps"})
