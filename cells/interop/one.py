"""Weights of one cell, in and out. One function packs by a layout and one unpacks, with three rules:

* a parameter that stands in two places is their sum (torch's two biases): the first
  holds it, the other zeros;
* a place that names a parameter the cell lacks must hold zeros;
* a parameter of the cell that has no place must be zero.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cells.base import Cell, Params
from cells.interop import layouts
from cells.lstm import LSTM


def to_torch(cell: Cell, params: Params) -> dict[str, np.ndarray]:
    """The state dict of a one-layer `torch.nn.RNN`, `LSTM` or `GRU`, or of the `sru` package's `SRUCell`.

        module.load_state_dict({k: torch.from_numpy(v) for k, v in cells.to_torch(cell, params).items()})

    Options that are not weights must agree: `nonlinearity="relu"`, `rescale`, `has_skip_term`, `n_proj`.

    Args:
      cell: an RNN, LSTM, GRU with reset_after, or one of the two SRUs.
      params: from `cell.init`, D input features and H units; arrays keep their dtype.

    Returns:
      torch.nn: weight_ih_l0 (k * H, D), weight_hh_l0 (k * H, H), bias_ih_l0 and bias_hh_l0 (k * H,), the
      gates in torch's order. SRU: weight (D, H * k), weight_c and bias (2 * H,), scale_x (1,); with
      projection also weight_proj (D, projection), and in weight projection in place of D.

    Raises:
      ValueError: no counterpart for the cell or its options; params that do not fit the cell.
    """
    state = _pack("torch.nn and the sru package", cell, params)
    if hasattr(cell, "alpha"):
        state["scale_x"] = np.array([cell.alpha], jnp.promote_types(state["bias"].dtype, "float32"))
    return state


def from_torch(cell: Cell, state: Mapping[str, Any], dtype=None) -> Params:
    """The way back from `to_torch`: `params = cells.from_torch(cell, module.state_dict())`.

    Args:
      state: name -> CPU tensor or array, as `to_torch` returns it; scale_x may be missing.
      dtype: of the parameters; None: the state's common one.

    Raises:
      ValueError: no counterpart for the cell or its options; missing or unexpected keys; wrong shapes;
        feedback weights or a scale_x that the cell's options cannot take.
    """
    state = {name: np.asarray(value) for name, value in state.items()}
    if hasattr(cell, "alpha") and "scale_x" in state:
        first = state.get("weight_proj", state.get("weight", 0))
        _check_scale(cell, state.pop("scale_x"), input_size=len(np.atleast_1d(first)))
    return _unpack("torch.nn and the sru package", cell, state, dtype)


def to_flax_nnx(cell: Cell, params: Params, optimized: bool = False) -> dict[str, Any]:
    """The parameters of flax's cell as a nested dict: `nnx.update(module, cells.to_flax_nnx(cell, params))`.

    RNN: `nnx.SimpleCell` (relu: activation_fn=jax.nn.relu); LSTM: `nnx.LSTMCell`; GRU with reset_after:
    `nnx.GRUCell`, which has no c_n.

    Args:
      params: from `cell.init`; arrays keep their dtype.
      optimized: for an LSTM, the layout of `nnx.OptimizedLSTMCell`.

    Raises:
      ValueError: no counterpart for the cell or its options; params that do not fit the cell; c_n not zero.
    """
    return _nested(_pack("flax.nnx (optimized)" if optimized else "flax.nnx", cell, params))


def from_flax_nnx(cell: Cell, state: Any, dtype=None) -> Params:
    """The way back from `to_flax_nnx`; both LSTM layouts are known by their names.

    Args:
      state: a flax.nnx cell, its `nnx.State`, or a nested dict of arrays or variables.
      dtype: of the parameters; None: the state's common one.

    Raises:
      ValueError: no counterpart for the cell or its options; missing or unexpected keys; wrong shapes.
    """
    if not isinstance(state, Mapping):
        from flax import nnx

        if not isinstance(state, nnx.Module):
            raise ValueError(f"state must be a dict, nnx.State or nnx module, got {type(state).__name__}")
        state = nnx.state(state, nnx.Param)
    optimized = isinstance(cell, LSTM) and "dense_i" in state
    return _unpack("flax.nnx (optimized)" if optimized else "flax.nnx", cell, _flatten(state), dtype)


def to_flax_linen(cell: Cell, params: Params) -> dict[str, Any]:
    """The parameters of flax.linen's cell, a nested dict: `module.apply({"params": it}, ...)`.

    RNN: `nn.SimpleCell`; LSTM: `nn.LSTMCell` and `nn.OptimizedLSTMCell`; GRU with reset_after: `nn.GRUCell`.

    Raises:
      ValueError: no counterpart for the cell or its options; params that do not fit the cell.
    """
    return _nested(_pack("flax.linen", cell, params))


def from_flax_linen(cell: Cell, state: Mapping[str, Any], dtype=None) -> Params:
    """The way back from `to_flax_linen`.

    Raises:
      ValueError: no counterpart for the cell or its options; missing or unexpected keys; wrong shapes.
    """
    return _unpack("flax.linen", cell, _flatten(state), dtype)


def to_keras(cell: Cell, params: Params) -> list[np.ndarray]:
    """The weights of a Keras layer: `layer.set_weights(cells.to_keras(cell, params))`.

    RNN: `SimpleRNN` (relu: activation="relu"); LSTM: `LSTM`; GRU: `GRU`, whose reset_after is the cell's.

    Returns:
      kernel (D, k * H), recurrent_kernel (H, k * H), bias (k * H,), of a GRU with reset_after (2, k * H).

    Raises:
      ValueError: no counterpart for the cell or its options; params that do not fit the cell.
    """
    return list(_pack("Keras", cell, params).values())


def from_keras(cell: Cell, weights: Sequence[Any], dtype=None) -> Params:
    """The way back from `to_keras`: `params = cells.from_keras(cell, layer.get_weights())`.

    Raises:
      ValueError: no counterpart for the cell or its options; too few or too many weights; wrong shapes.
    """
    names = list(layouts.of("Keras", cell, 1))
    if len(weights) != len(names):
        raise ValueError(f"weights do not fit {cell}: {len(weights)} arrays, expected {', '.join(names)}")
    return _unpack("Keras", cell, {n: np.asarray(x) for n, x in zip(names, weights, strict=True)}, dtype)


def _nested(flat):
    nested: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        layer, field = key.split(".")
        nested.setdefault(layer, {})[field] = value
    return nested


def _flatten(state, prefix=""):
    if not isinstance(state, Mapping):
        return {prefix: np.asarray(state)}
    return {k: v for name, s in state.items() for k, v in _flatten(s, f"{prefix}.{name}".lstrip(".")).items()}


def expected(cell, input_size):
    """Our parameters for that input size, as shapes."""
    return jax.eval_shape(partial(cell.init, input_size=input_size), jax.random.key(0))


def check(what, cell, got, want):
    """Refuses the first name in `want` or `got` whose shapes differ."""
    got, want = ({name: np.shape(x) for name, x in arrays.items()} for arrays in (got, want))
    for name in want | got:
        if got.get(name) != want.get(name):
            raise ValueError(
                f"{what} do not fit {cell}: {name!r} is {got.get(name, 'missing')}, "
                f"expected {want.get(name, 'no such name; names: ' + ', '.join(want))}"
            )


def _join(layout, cell, params):
    """`params` by the layout, and those that have no place in it."""
    left, dtype = dict(params), next(iter(params.values())).dtype
    zeros = np.zeros(cell.hidden_size, dtype)  # what is missing or already placed is a vector
    return {
        key: join.pack([left.pop(n, zeros) for n in names]) for key, (join, names) in layout.items()
    }, left


def _pack(library, cell, params):
    params = {name: np.asarray(p) for name, p in params.items()}
    first = next(iter(layouts.of(library, cell, 1).values()))[1][0]
    input_size = max(1, len(params[first])) if np.ndim(params.get(first, 0)) else 1
    check("params", cell, params, expected(cell, input_size))
    state, left = _join(layouts.of(library, cell, input_size), cell, params)
    for name, p in left.items():
        if p.any():
            instead = f": {layouts.ELSEWHERE[name]}" if name in layouts.ELSEWHERE else ""
            raise ValueError(
                f"no {name} in the {type(cell).__name__} of {library}, and it is not zero{instead}"
            )
    return state


def _unpack(library, cell, state, dtype):
    key = next(iter(layouts.of(library, cell, 1)))
    if key not in state:
        raise ValueError(
            f"weights do not fit {cell}: {key!r} is missing; there: {', '.join(state) or 'nothing'}"
        )
    input_size = max(1, state[key].shape[layouts.INPUT_AXIS[key]]) if np.ndim(state[key]) == 2 else 1
    layout = layouts.of(library, cell, input_size)
    ours = {name: np.zeros(p.shape) for name, p in expected(cell, input_size).items()}
    check("weights", cell, state, _join(layout, cell, ours)[0])
    params = {}
    for key, (join, names) in layout.items():
        for name, part in zip(names, join.unpack(state[key], len(names)), strict=True):
            if name in params:
                part = np.where(part == 0, params[name], params[name] + part)  # so that -0.0 survives
            if name not in ours and part.any():
                raise ValueError(
                    f"{type(cell).__name__} has no {name}, but {key} holds one; {layouts.INSTEAD[name]}"
                )
            params[name] = part
    dtype = dtype or jnp.result_type(*state.values(), 1.0)
    return {name: jnp.asarray(params.get(name, zeros), dtype) for name, zeros in ours.items()}


def _check_scale(cell, scale: np.ndarray, input_size: int) -> None:
    """Refuses the factor of a highway x * scale that is not the cell's alpha."""
    if np.size(scale) != 1:
        raise ValueError(f"weights do not fit {cell}: 'scale_x' is {np.shape(scale)}, expected (1,)")
    factor, eps = float(scale.ravel()[0]), float(jnp.finfo(jnp.result_type(scale, 1.0)).eps)
    same = partial(math.isclose, factor, rel_tol=max(1e-6, eps))
    if not cell.highway or input_size != cell.hidden_size or same(cell.alpha):
        return
    fix = "no option of ours gives that"
    if same(1):
        fix = "set rescale=False"
    elif factor > 1:
        fix = f"set rescale=True, highway_bias={math.log((factor**2 - 1) / 2):.7g}"
    raise ValueError(f"scale_x is {factor:.7g}, but the alpha of {cell} is {cell.alpha:.7g}: {fix}")
