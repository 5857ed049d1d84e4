"""Layers of equal size: every cell and strategy, a causal convolution, a feed-forward layer."""

import bisect
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import cells
import configs
from experiments.lab import probes
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
        # The textbook step is what others are faster than.
        strategies = [s for s in cells.strategies(cell) if s not in ("auto", "stepwise")] or ["stepwise"]
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
