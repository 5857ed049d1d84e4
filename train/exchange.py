"""Whole models in other libraries, and back: embedding or dense input, the layers of cells, the head.

    state = exchange.to_torch(cell, config, params)  # a `ModelConfig`, and params as of `Model.init`
    params = exchange.from_torch(cell, config, state)  # for `Model.apply`

What no layer of torch, flax or Keras has is refused: blocks, connections, norms. How outputs become one
answer (`Spec.pooling`) is no weight: it is left to the code around them. NumPy arrays come out; none of the
libraries has to be installed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cells
from cells import stacks
from train.layers import stack_width
from train.model import ModelConfig

BARE = {"block": "bare", "connection": "none", "layer_norm": "none"}
PARTS = ("embed", "dense", "head")


def to_torch(cell: cells.Cell, config: ModelConfig, params) -> dict[str, np.ndarray]:
    """The state dict of a module that has

    embed: `nn.Embedding`, or dense: `nn.Linear`, or neither, as the model has it;
    rnn: `nn.RNN`, `nn.LSTM`, `nn.GRU` or the sru package's `SRU`, with `num_layers` and `bidirectional`;
    head: `nn.Linear`.

    Raises:
      ValueError: torch has no counterpart for the cell, its options or the model's: one line with the option
        that has.
    """
    params = _arrays(config, params, "torch")
    state = {f"rnn.{key}": value for key, value in stacks.to_torch(cell, params["layers"]).items()}
    if "embed" in params:
        state["embed.weight"] = params["embed"]["embedding"]
    for name in {"dense", "head"} & set(params):
        state |= {f"{name}.weight": params[name]["kernel"].T, f"{name}.bias": params[name]["bias"]}
    return state


def from_torch(cell: cells.Cell, config: ModelConfig, state: Mapping[str, Any], dtype=None) -> dict:
    """The way back from `to_torch`.

    Args:
      state: name -> CPU tensor or array.
      dtype: of the parameters; None: the state's.

    Raises:
      ValueError: missing or unexpected names, shapes or layers that do not fit the cell and config.
    """
    parts = _by_first_word({key: np.asarray(value) for key, value in state.items()})
    _check_names(parts, "rnn", lambda name: f"{name}.weight")
    params = {"layers": stacks.from_torch(cell, parts.pop("rnn"), dtype)}
    for name, part in parts.items():
        if name == "embed":
            params[name] = _renamed(name, part, {"weight": "embedding"})
        else:
            params[name] = _renamed(name, part, {"weight": "kernel", "bias": "bias"})
            params[name]["kernel"] = params[name]["kernel"].T
    return _checked(cell, config, params, dtype)


def to_flax_nnx(cell: cells.Cell, config: ModelConfig, params, optimized: bool = False) -> dict[str, Any]:
    """What `nnx.update(module, state)` takes, of a module that has

    embed: `nnx.Embed`, or dense: `nnx.Linear`, or neither, as the model has it;
    layers: an `nnx.List` of `nnx.RNN`, or of `nnx.Bidirectional`, around its cells;
    head: `nnx.Linear`.

    Args:
      optimized: for an LSTM, the layout of `nnx.OptimizedLSTMCell`.

    Raises:
      ValueError: as `to_torch`.
    """
    params = _arrays(config, params, "flax.nnx")
    layers = stacks.to_flax_nnx(cell, params["layers"], optimized)
    return params | {"layers": dict(enumerate(layers))}


def from_flax_nnx(cell: cells.Cell, config: ModelConfig, state: Any, dtype=None) -> dict:
    """The way back from `to_flax_nnx`: of a module, its `nnx.State`, or nested dicts.

    Raises:
      ValueError: as `from_torch`.
    """
    if not isinstance(state, Mapping):
        from flax import nnx

        if not isinstance(state, nnx.Module):
            raise ValueError(f"state must be a dict, nnx.State or nnx module, got {type(state).__name__}")
        state = nnx.state(state, nnx.Param)
    return _from_flax(cell, config, dict(state), stacks.from_flax_nnx, dtype)


def to_flax_linen(cell: cells.Cell, config: ModelConfig, params) -> dict[str, Any]:
    """The "params" of a linen module whose `setup` makes

    embed: `nn.Embed`, or dense: `nn.Dense`, or neither, as the model has it;
    layers: a list of `nn.RNN`, or of `nn.Bidirectional`, around its cells;
    head: `nn.Dense`.

    Raises:
      ValueError: as `to_torch`.
    """
    params = _arrays(config, params, "flax.linen")
    layers = stacks.to_flax_linen(cell, params.pop("layers"))
    return params | {f"layers_{number}": layer for number, layer in enumerate(layers)}


def from_flax_linen(cell: cells.Cell, config: ModelConfig, state: Mapping[str, Any], dtype=None) -> dict:
    """The way back from `to_flax_linen`.

    Raises:
      ValueError: as `from_torch`.
    """
    found = {name: re.fullmatch(r"layers_(\d+)", name) for name in state}
    numbered = {int(match[1]): state[name] for name, match in found.items() if match}
    rest = {name: part for name, part in state.items() if not found[name]}
    return _from_flax(
        cell, config, rest | ({"layers": numbered} if numbered else {}), stacks.from_flax_linen, dtype
    )


def to_keras(cell: cells.Cell, config: ModelConfig, params) -> list[np.ndarray]:
    """What `model.set_weights` takes, of a Keras model of

    `Embedding`, or `Dense`, or neither, as the model has it;
    `SimpleRNN`, `LSTM` or `GRU`, or `Bidirectional` around them, for each layer, with return_sequences=True;
    `Dense`; in this order. Layers without weights, as those that pool, may stand between them.

    Raises:
      ValueError: as `to_torch`.
    """
    params = _arrays(config, params, "Keras")
    first = next((params[name] for name in ("embed", "dense") if name in params), {})
    layers = stacks.to_keras(cell, params["layers"])
    parts = [_dense_weights(first), *layers, _dense_weights(params["head"])]
    return [weight for part in parts for weight in part]


def from_keras(cell: cells.Cell, config: ModelConfig, weights: Sequence[Any], dtype=None) -> dict:
    """The way back from `to_keras`: of `model.get_weights()`.

    Raises:
      ValueError: as `from_torch`.
    """
    weights = [np.asarray(weight) for weight in weights]
    each = len(cells.interop.layouts.of("Keras", cell, 1)) * (2 if config.bidirectional else 1)
    first, layers = len(weights) - config.depth * each - 2, config.depth * each
    if first not in (0, 1, 2):
        raise ValueError(
            f"{len(weights)} weights do not fit: {layers} of the layers, 2 of a Dense head, in front 1 of "
            "an Embedding or 2 of a Dense; see model.depth and model.bidirectional"
        )
    params: dict[str, Any] = {}
    if first:
        params = {"embed": {"embedding": weights[0]}} if first == 1 else {"dense": _dense(weights[:2])}
    of_layers = [weights[i : i + each] for i in range(first, first + layers, each)]
    params |= {"layers": stacks.from_keras(cell, of_layers, dtype), "head": _dense(weights[-2:])}
    return _checked(cell, config, params, dtype)


def _dense_weights(part):
    return [part[name] for name in ("embedding", "kernel", "bias") if name in part]


def _dense(weights):
    return dict(zip(("kernel", "bias"), weights, strict=True))


def _arrays(config: ModelConfig, params, library: str) -> dict[str, Any]:
    """The parameters as NumPy arrays, of a model whose layers the library has."""
    for option, value in BARE.items():
        if (got := getattr(config, option)) != value:
            raise ValueError(
                f"model.{option}={got} has no counterpart in {library}: train with "
                f"--config.model.{option}={value}"
            )
    return jax.tree.map(np.asarray, dict(params))


def _from_flax(cell, config, state, convert, dtype):
    _check_names(state, "layers", str)
    params = {"layers": convert(cell, state.pop("layers"), dtype)}
    for name, part in state.items():
        names = ("embedding",) if name == "embed" else ("kernel", "bias")
        part = {key: np.asarray(value) for key, value in part.items()}
        params[name] = _renamed(name, part, {key: key for key in names})
    return _checked(cell, config, params, dtype)


def _by_first_word(state):
    parts: dict[str, dict] = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        parts.setdefault(first, {})[rest] = value
    return parts


def _check_names(parts, layers: str, shown):
    """Refuses parts of a model that are not ours."""
    for name in parts:
        if name not in (*PARTS, layers):
            raise ValueError(
                f"the state has {name!r}; a model has {layers}, head and, before them, embed or dense"
            )
    for name in (layers, "head"):
        if name not in parts:
            raise ValueError(f"the state has no {name!r}, only {', '.join(parts) or 'nothing'}")


def _renamed(name, part, names):
    if set(part) != set(names):
        raise ValueError(f"{name} must have {', '.join(names)}, got {', '.join(map(str, part))}")
    return {ours: part[theirs] for theirs, ours in names.items()}


def _checked(cell, config, params, dtype):
    """The parameters as `Model.init` has them, where they fit the config and each other."""
    layers = params["layers"]
    directions = 2 if config.bidirectional else 1
    if len(layers) != config.depth:
        raise ValueError(f"the state has {len(layers)} layers: set model.depth={len(layers)}")
    if len(layers[0]) != directions:
        raise ValueError(
            f"the state has {len(layers[0])} directions: set model.bidirectional={directions == 1}"
        )
    width = stack_width(cell.hidden_size, config)
    for name, part in params.items():
        if name == "layers":
            continue
        weight = part["embedding" if name == "embed" else "kernel"]
        if weight.ndim != 2 or "bias" in part and part["bias"].shape != weight.shape[1:]:
            shapes = ", ".join(f"{key} {x.shape}" for key, x in part.items())
            raise ValueError(f"{name} does not fit: {shapes}")
        if name == "head" and len(weight) != width:
            raise ValueError(f"head takes {len(weight)} numbers, the last layer gives {width}")
        if name != "head":
            stacks.check_takes(cell, 0, layers[0], weight.shape[1])
    params = {**params, "layers": {str(number): layer for number, layer in enumerate(layers)}}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
