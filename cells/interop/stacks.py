"""Weights of layers of cells, each in one direction or two: `cells.stacks.to_torch(cell, layers)` and so on.

`layers` is a list with {"forward": params} for each layer, or {"forward": params, "backward": params} where
a second cell reads from the end; the outputs of both, side by side, are the next layer's inputs. A trained
model has them in params["layers"], by "0", "1", ...; either is taken.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from cells.base import Cell, Params
from cells.interop import layouts, one
from cells.sru import SRU, SRUFeedback

Layers = list[dict[str, Params]]
ENDS = {"forward": "", "backward": "_reverse"}


def to_torch(cell: Cell, layers: Sequence[Mapping[str, Params]]) -> dict[str, np.ndarray]:
    """The state dict of a `torch.nn.RNN`, `LSTM` or `GRU`, or the `sru` package's `SRU`, of as many layers.

        state = cells.stacks.to_torch(cell, layers)
        module.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})

    Raises:
      ValueError: as `cells.to_torch`, with the layer; two directions of an SRU with a highway, on which the
        package gives each of them half of a layer's inputs, or with a projection, which they share there.
    """
    if _is_sru(cell):
        return _to_sru(cell, layers)
    state: dict[str, np.ndarray] = {}
    for number, direction, part in _parts(cell, layers, one.to_torch):
        state |= {key.replace("_l0", f"_l{number}{ENDS[direction]}"): value for key, value in part.items()}
    return state


def from_torch(cell: Cell, state: Mapping[str, Any], dtype=None) -> Layers:
    """The way back from `to_torch`: `layers = cells.stacks.from_torch(cell, module.state_dict())`.

    Raises:
      ValueError: as `cells.from_torch`, with the layer; names of no layer.
    """
    if _is_sru(cell):
        return _from_sru(cell, state, dtype)
    parts: dict[str, dict] = {}
    for key, value in state.items():
        found = re.search(r"_l\d+(_reverse)?$", key)
        end = found[0] if found else ""
        parts.setdefault(end, {})[key.removesuffix(end) + "_l0" * bool(end)] = value
    depth = _depth(parts, lambda number: f"_l{number}")
    directions = ("forward", "backward") if "_l0_reverse" in parts else ("forward",)
    layers = [{d: parts.pop(f"_l{number}{ENDS[d]}", {}) for d in directions} for number in range(depth)]
    _nothing_left(cell, [key.replace("_l0", end) for end, part in parts.items() for key in part])
    return _read(cell, layers, partial(one.from_torch, dtype=dtype))


def to_flax_nnx(cell: Cell, layers: Sequence[Mapping[str, Params]], optimized: bool = False) -> list[dict]:
    """A nested dict for each layer, of `nnx.RNN` or `nnx.Bidirectional`: `nnx.update(layer, state)`.

    {"cell": as `cells.to_flax_nnx`}, or {"forward_rnn": {"cell": ...}, "backward_rnn": {"cell": ...}}.

    Raises:
      ValueError: as `cells.to_flax_nnx`, with the layer.
    """
    return _to_flax(cell, layers, partial(one.to_flax_nnx, optimized=optimized))


def from_flax_nnx(cell: Cell, layers: Any, dtype=None) -> Layers:
    """The way back from `to_flax_nnx`.

    Args:
      layers: nnx.RNN or nnx.Bidirectional of each layer, in a list, or their states, in a list or by number.

    Raises:
      ValueError: as `cells.from_flax_nnx`, with the layer.
    """
    return _from_flax(cell, layers, partial(one.from_flax_nnx, dtype=dtype))


def to_flax_linen(cell: Cell, layers: Sequence[Mapping[str, Params]]) -> list[dict]:
    """A nested dict for each layer, the parameters of `nn.RNN` or `nn.Bidirectional`, as in `to_flax_nnx`.

    Raises:
      ValueError: as `cells.to_flax_linen`, with the layer.
    """
    return _to_flax(cell, layers, one.to_flax_linen)


def from_flax_linen(cell: Cell, layers: Any, dtype=None) -> Layers:
    """The way back from `to_flax_linen`.

    Raises:
      ValueError: as `cells.from_flax_linen`, with the layer.
    """
    return _from_flax(cell, layers, partial(one.from_flax_linen, dtype=dtype))


def to_keras(cell: Cell, layers: Sequence[Mapping[str, Params]]) -> list[list[np.ndarray]]:
    """What `set_weights` of each layer, or of a `Bidirectional` around it, takes.

    Raises:
      ValueError: as `cells.to_keras`, with the layer.
    """
    return [
        [weight for part in layer.values() for weight in part]
        for layer in _written(cell, layers, one.to_keras)
    ]


def from_keras(cell: Cell, layers: Sequence[Sequence[Any]], dtype=None) -> Layers:
    """The way back from `to_keras`: `cells.stacks.from_keras(cell, [layer.get_weights() for layer in ...])`.

    Raises:
      ValueError: as `cells.from_keras`, with the layer.
    """
    arrays = len(layouts.of("Keras", cell, 1))

    def split(weights):
        if len(weights) != 2 * arrays:
            return {"forward": weights}
        return {"forward": weights[:arrays], "backward": weights[arrays:]}

    return _read(cell, [split(list(weights)) for weights in layers], partial(one.from_keras, dtype=dtype))


# --- in both ways, one cell at a time


def in_order(layers: Any) -> list:
    """Layers by number, or in a list, as a list.

    Raises:
      ValueError: there is none, or one is missing.
    """
    if isinstance(layers, Mapping):
        numbered = {str(name): layer for name, layer in layers.items()}
        if set(numbered) != {str(number) for number in range(len(numbered))}:
            raise ValueError(f"layers must be numbered from 0, got {', '.join(numbered)}")
        layers = [numbered[str(number)] for number in range(len(numbered))]
    if not len(layers):
        raise ValueError("there is no layer")
    return list(layers)


def _parts(cell, layers, convert):
    """(number, direction, what `convert(cell, params)` makes of it) of each cell."""
    layers = in_order(layers)
    for number, layer in enumerate(layers):
        names = set(layer) if isinstance(layer, Mapping) else {type(layer).__name__}
        if not {"forward"} <= names <= set(ENDS) or len(layer) != len(layers[0]):
            got = ", ".join(map(str, sorted(names)))
            raise ValueError(f'layer {number} must have "forward", and all or none "backward", got {got}')
        for direction in ENDS if len(layer) == 2 else ("forward",):  # jax sorts the names of dicts
            try:
                yield number, direction, convert(cell, layer[direction])
            except ValueError as error:
                at = f"layer {number}" + ", backward" * (direction == "backward")
                line = str(error).replace("_l0", f"_l{number}{ENDS[direction]}")
                raise ValueError(f"{at}: {line}") from error


def _written(cell, layers, convert) -> list[dict]:
    written: list[dict] = [{} for _ in in_order(layers)]
    for number, direction, part in _parts(cell, layers, convert):
        written[number][direction] = part
    return written


def _read(cell, layers, convert: Callable) -> Layers:
    """The same, of layers that fit onto each other."""
    read = _written(cell, layers, convert)
    one.check(
        "layer 0, backward: weights", cell, read[0].get("backward", read[0]["forward"]), read[0]["forward"]
    )
    for number, layer in enumerate(read[1:], 1):
        check_takes(cell, number, layer, cell.hidden_size * len(layer))
    return read


def check_takes(cell: Cell, number: int, layer: Mapping[str, Params], size: int) -> None:
    """Refuses a layer that does not take so many inputs.

    Raises:
      ValueError: with the name and shape of what does not fit.
    """
    for params in layer.values():
        one.check(f"layer {number}: weights", cell, params, one.expected(cell, size))


def _depth(parts, name) -> int:
    return next(number for number in range(len(parts) + 1) if name(number) not in parts)


def _nothing_left(cell, names):
    if names:
        raise ValueError(f"weights do not fit layers of {cell}: {names[0]!r} belongs to none")


# --- flax: nnx.RNN and nnx.Bidirectional, likewise in linen


def _to_flax(cell, layers, convert):
    return [
        {f"{direction}_rnn": {"cell": part} for direction, part in layer.items()}
        if len(layer) == 2
        else {"cell": layer["forward"]}
        for layer in _written(cell, layers, convert)
    ]


def _from_flax(cell, layers, convert):
    def directions(layer):
        if not isinstance(layer, Mapping):
            from flax import nnx

            if not isinstance(layer, nnx.Module):
                raise ValueError(
                    f"a layer must be a dict, nnx.State or nnx module, got {type(layer).__name__}"
                )
            layer = nnx.state(layer, nnx.Param)
        if set(layer) == {"cell"}:
            return {"forward": layer["cell"]}
        if set(layer) == {"forward_rnn", "backward_rnn"}:
            return {direction: layer[f"{direction}_rnn"]["cell"] for direction in ENDS}
        raise ValueError(
            f"a layer must have cell, or forward_rnn and backward_rnn, got {', '.join(map(str, layer))}"
        )

    return _read(cell, list(map(directions, in_order(layers))), convert)


# --- the `sru` package: both directions of a layer in the same arrays, (..., 2, H, ...)

# Where the directions stand in each, once the units of one direction, (H,) or (H * k,), are the last axis.
SRU_ROWS = {"weight": -1, "weight_c": 2, "bias": 2}


def _is_sru(cell) -> bool:
    return (type(cell).plain or type(cell)) in (SRU, SRUFeedback)


def _check_two_ways(cell):
    """Refuses two directions of an SRU between which the package shares something."""
    for option in ("highway", "projection"):
        if getattr(cell, option):
            off = type(getattr(cell, option))()
            raise ValueError(
                f"with two directions the sru package has another {option}: set {option}={off}, or "
                "model.bidirectional=False"
            )


def _to_sru(cell, layers):
    state = {}
    for number, layer in enumerate(_written(cell, layers, one.to_torch)):
        if len(layer) == 2:
            _check_two_ways(cell)
            layer = {"both": {k: _woven(k, *(part[k] for part in layer.values())) for k in layer["forward"]}}
        (part,) = layer.values()
        state |= {f"rnn_lst.{number}.{key}": value for key, value in part.items()}
    return state


def _woven(key, forward, backward):
    if key not in SRU_ROWS:
        return forward
    shape = (SRU_ROWS[key] if SRU_ROWS[key] > 0 else len(forward), -1)
    both = np.stack([forward.reshape(shape), backward.reshape(shape)], axis=1)
    return both.reshape(len(forward), -1) if forward.ndim == 2 else both.ravel()


def _from_sru(cell, state, dtype):
    parts: dict[str, dict] = {}
    for key, value in state.items():
        number, name = re.fullmatch(r"(?:rnn_lst\.(\d+)\.)?(.*)", key).groups()
        parts.setdefault(number or "", {})[name] = value
    layers = [parts.pop(str(number)) for number in range(_depth(parts, str))]
    _nothing_left(cell, [f"rnn_lst.{n}.{key}" if n else key for n, part in parts.items() for key in part])
    return _read(cell, [_directions(cell, layer) for layer in layers], partial(one.from_torch, dtype=dtype))


def _directions(cell, part):
    part = {key: np.asarray(value) for key, value in part.items()}
    if np.shape(part.get("bias")) != (4 * cell.hidden_size,):
        return {"forward": part}
    _check_two_ways(cell)
    split = {}
    for key, both in part.items():
        rows = SRU_ROWS.get(key)
        if rows is None:
            split[key] = both, both
            continue
        halves = np.moveaxis(both.reshape(rows if rows > 0 else len(both), 2, -1), 1, 0)
        split[key] = [half if both.ndim == 2 else half.ravel() for half in halves]
    return {name: {key: value[i] for key, value in split.items()} for i, name in enumerate(ENDS)}
