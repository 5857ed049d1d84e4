"""Weights in and out: the layouts of `torch.nn`, of the SRU authors' `sru` package, and of `flax.nnx`.

A layout is a table: foreign name -> our parameters that stand in it, side by side, and how they are
joined. One function packs by it and one unpacks, with three rules:

* a parameter that stands in two places is their sum (torch's two biases): the first
  holds it, the other zeros;
* a place that names a parameter the cell lacks must hold zeros;
* a parameter of the cell that has no place must be zero.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cells.base import Cell, Params
from cells.gru import GRU
from cells.lstm import LSTM
from cells.rnn import RNN
from cells.sru import SRU, SRUFeedback


class Join(NamedTuple):
    """How n arrays (D, H) or (H,) become one, and the way back."""

    pack: Callable[[list[np.ndarray]], np.ndarray]
    unpack: Callable[[np.ndarray, int], list[np.ndarray]]


ROWS = Join(lambda parts: np.concatenate(parts, -1).T, lambda x, n: np.split(x.T, n, -1))
COLUMNS = Join(lambda parts: np.concatenate(parts, -1), lambda x, n: np.split(x, n, -1))
WOVEN = Join(  # (D, H * n), the n projections of a unit side by side
    lambda parts: np.stack(parts, -1).reshape(len(parts[0]), -1),
    lambda x, n: list(np.moveaxis(x.reshape(len(x), -1, n), -1, 0)),
)
Layout = dict[str, tuple[Join, list[str]]]

# The array that shows the input size, and on which axis.
INPUT_AXIS = {"weight_ih_l0": 1, "weight": 0, "weight_proj": 0, "dense_i.kernel": 0, "ii.kernel": 0}

# Options that no layout here has, and what they must be.
WITHOUT = {"peepholes": False, "coupled": False, "reset_gate": True, "layer_norm": False, "diagonal": False}


def _names(letter: str, gates: str) -> list[str]:
    return [f"{letter}_{gate}" for gate in gates] or [letter]


def _torch_nn(gates: str, hidden_bias: list[str] | None = None) -> Layout:
    W, U, b = (_names(letter, gates) for letter in "WUb")
    kinds = {"weight_ih_l0": W, "weight_hh_l0": U, "bias_ih_l0": b, "bias_hh_l0": hidden_bias or b}
    return {key: (ROWS, names) for key, names in kinds.items()}


def _sru(cell, input_size) -> Layout:
    # Behind a bottleneck the package's W_x sees W_q x, ours x: no place for it.
    fourth = cell.highway and input_size != cell.hidden_size and not cell.projection
    projections = ["W", "W_f", "W_r"] + ["W_x"] * fourth
    vectors = {"weight_c": ["v_f", "v_r"], "bias": ["b_f", "b_r"]}
    bottleneck = {"weight_proj": (COLUMNS, ["W_q"])} if cell.projection else {}
    return (
        bottleneck | {"weight": (WOVEN, projections)} | {k: (COLUMNS, names) for k, names in vectors.items()}
    )


def _flax(**dense: str) -> Layout:
    """`name="Ub ifgo"`: the dense layer called `name` has kernel U and bias b of gates i, f, g, o."""
    layout = {}
    for name, (letters, _, gates) in ((name, spec.partition(" ")) for name, spec in dense.items()):
        for field, letter in zip(("kernel", "bias"), letters, strict=False):
            layout[f"{name}.{field}"] = COLUMNS, _names(letter, gates)
    return layout


TORCH = {
    RNN: lambda cell, _: _torch_nn(""),
    LSTM: lambda cell, _: _torch_nn("ifgo"),
    GRU: lambda cell, _: _torch_nn("rzn", hidden_bias=["b_r", "b_z", "c_n"]),
    SRU: _sru,
    SRUFeedback: _sru,
}
FLAX = {
    RNN: lambda cell, _: _flax(dense_i="Wb", dense_h="U"),
    LSTM: lambda cell, _: _flax(
        ii="W i", if_="W f", ig="W g", io="W o", hi="Ub i", hf="Ub f", hg="Ub g", ho="Ub o"
    ),
    GRU: lambda cell, _: _flax(dense_i="Wb rzn", dense_h="U rzn"),
}
FLAX_OPTIMIZED = {LSTM: lambda cell, _: _flax(dense_i="W ifgo", dense_h="Ub ifgo")}
LIBRARIES: dict[str, Mapping[Any, Callable[..., Layout]]] = {
    "torch.nn and the sru package": TORCH,
    "flax.nnx": FLAX,
    "flax.nnx (optimized)": FLAX_OPTIMIZED,
}

# What to use in place of a cell that lacks a parameter.
INSTEAD = {"v_f": "its forget gate sees no state: use sru_feedback", "v_r": "use reset_feedback=True"}


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

    Source: torch 2.13, torch.nn.modules.rnn; sru 2.6.0, sru.modules and sru.ops.
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


def to_flax(cell: Cell, params: Params, optimized: bool = False) -> dict[str, Any]:
    """The parameters of flax's cell as a nested dict: `nnx.update(module, cells.to_flax(cell, params))`.

    RNN: `nnx.SimpleCell` (relu: activation_fn=jax.nn.relu); LSTM: `nnx.LSTMCell`; GRU with reset_after:
    `nnx.GRUCell`, which has no c_n.

    Args:
      params: from `cell.init`; arrays keep their dtype.
      optimized: for an LSTM, the layout of `nnx.OptimizedLSTMCell`.

    Raises:
      ValueError: no counterpart for the cell or its options; params that do not fit the cell; c_n not zero.

    Source: flax 0.12, flax.nnx.nn.recurrent.
    """
    nested: dict[str, dict[str, Any]] = {}
    for key, value in _pack("flax.nnx (optimized)" if optimized else "flax.nnx", cell, params).items():
        layer, field = key.split(".")
        nested.setdefault(layer, {})[field] = value
    return nested


def from_flax(cell: Cell, state: Any, dtype=None) -> Params:
    """The way back from `to_flax`; both LSTM layouts are known by their names.

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


def _flatten(state, prefix=""):
    if not isinstance(state, Mapping):
        return {prefix: np.asarray(state)}
    return {k: v for name, s in state.items() for k, v in _flatten(s, f"{prefix}.{name}".lstrip(".")).items()}


def _layout(library: str, cell: Cell, input_size: int) -> Layout:
    """The table for `cell`, or the reason why there is none."""
    table = LIBRARIES[library]
    kind = type(cell).plain or type(cell)
    name = kind.__name__
    if kind not in table:
        raise ValueError(f"no {name} in {library}; there: {', '.join(c.__name__ for c in table)}")
    for option, wanted in WITHOUT.items():
        if getattr(cell, option, wanted) != wanted:
            raise ValueError(f"{name} with {option}={not wanted} has no layout here for {library}")
    if not getattr(cell, "reset_after", True):
        raise ValueError(f"GRU in {library} resets after the product, U h' + c_n: set reset_after=True")
    return table[kind](cell, input_size)


def _expected(cell, input_size):
    """Our parameters for that input size, as shapes."""
    return jax.eval_shape(partial(cell.init, input_size=input_size), jax.random.key(0))


def _check(what, cell, got, want):
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
    first = next(iter(_layout(library, cell, 1).values()))[1][0]
    input_size = max(1, len(params[first])) if np.ndim(params.get(first, 0)) else 1
    _check("params", cell, params, _expected(cell, input_size))
    state, left = _join(_layout(library, cell, input_size), cell, params)
    for name, p in left.items():
        if p.any():
            raise ValueError(f"no {name} in the {type(cell).__name__} of {library}, and it is not zero")
    return state


def _unpack(library, cell, state, dtype):
    key = next(iter(_layout(library, cell, 1)))
    if key not in state:
        raise ValueError(
            f"weights do not fit {cell}: {key!r} is missing; there: {', '.join(state) or 'nothing'}"
        )
    input_size = max(1, state[key].shape[INPUT_AXIS[key]]) if np.ndim(state[key]) == 2 else 1
    layout = _layout(library, cell, input_size)
    ours = {name: np.zeros(p.shape) for name, p in _expected(cell, input_size).items()}
    _check("weights", cell, state, _join(layout, cell, ours)[0])
    params = {}
    for key, (join, names) in layout.items():
        for name, part in zip(names, join.unpack(state[key], len(names)), strict=True):
            if name in params:
                part = np.where(part == 0, params[name], params[name] + part)  # so that -0.0 survives
            if name not in ours and part.any():
                raise ValueError(f"{type(cell).__name__} has no {name}, but {key} holds one; {INSTEAD[name]}")
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
