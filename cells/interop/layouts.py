"""The layouts of other libraries as tables: foreign name -> our parameters that stand in it, side by side,
and how they are joined.

Source: torch 2.13, torch.nn.modules.rnn; sru 2.6.0, sru.modules and sru.ops; flax 0.12, flax.nnx.nn.recurrent
and flax.linen.recurrent; keras 3.15, keras.src.layers.rnn.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cells.base import Cell
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
TWO_ROWS = Join(  # vectors, half of them in each row
    lambda parts: np.concatenate(parts).reshape(2, -1), lambda x, n: np.split(x.ravel(), n)
)
Layout = dict[str, tuple[Join, list[str]]]

# The array that shows the input size, and on which axis.
INPUT_AXIS = {"weight_ih_l0": 1, "weight": 0, "weight_proj": 0, "dense_i.kernel": 0, "ii.kernel": 0}
INPUT_AXIS |= {"i.kernel": 0, "ir.kernel": 0, "kernel": 0}

# Options that no layout here has, and what they must be.
WITHOUT: dict[str, bool | int] = {"peepholes": False, "coupled": False, "reset_gate": True}
WITHOUT |= {"layer_norm": False, "diagonal": False, "negative_eigenvalues": False, "heads": 1}


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


def _keras(gates: str, bias: tuple[Join, list[str]] | None = None) -> Layout:
    letters = {"kernel": "W", "recurrent_kernel": "U", "bias": "b"}
    layout = {key: (COLUMNS, _names(letter, gates)) for key, letter in letters.items()}
    return layout | ({"bias": bias} if bias else {})


def _keras_gru(cell, _) -> Layout:
    if not cell.reset_after:
        return _keras("zrn")
    return _keras("zrn", (TWO_ROWS, ["b_z", "b_r", "b_n", "b_z", "b_r", "c_n"]))


TORCH = {
    RNN: lambda cell, _: _torch_nn(""),
    LSTM: lambda cell, _: _torch_nn("ifgo"),
    GRU: lambda cell, _: _torch_nn("rzn", hidden_bias=["b_r", "b_z", "c_n"]),
    SRU: _sru,
    SRUFeedback: _sru,
}
NNX = {
    RNN: lambda cell, _: _flax(dense_i="Wb", dense_h="U"),
    LSTM: lambda cell, _: _flax(
        ii="W i", if_="W f", ig="W g", io="W o", hi="Ub i", hf="Ub f", hg="Ub g", ho="Ub o"
    ),
    GRU: lambda cell, _: _flax(dense_i="Wb rzn", dense_h="U rzn"),
}
NNX_OPTIMIZED = {LSTM: lambda cell, _: _flax(dense_i="W ifgo", dense_h="Ub ifgo")}
LINEN = {
    RNN: lambda cell, _: _flax(i="Wb", h="U"),
    LSTM: lambda cell, _: _flax(
        **{"ii": "W i", "if": "W f", "ig": "W g", "io": "W o"}, hi="Ub i", hf="Ub f", hg="Ub g", ho="Ub o"
    ),
    GRU: lambda cell, _: (
        _flax(**{"ir": "Wb r", "iz": "Wb z", "in": "Wb n"}, hr="U r", hz="U z", hn="U n")
        | {"hn.bias": (COLUMNS, ["c_n"])}
    ),
}
KERAS = {
    RNN: lambda cell, _: _keras(""),
    LSTM: lambda cell, _: _keras("ifgo"),
    GRU: _keras_gru,
}
LIBRARIES: dict[str, Mapping[Any, Callable[..., Layout]]] = {
    "torch.nn and the sru package": TORCH,
    "flax.nnx": NNX,
    "flax.nnx (optimized)": NNX_OPTIMIZED,
    "flax.linen": LINEN,
    "Keras": KERAS,
}

# What to use in place of a cell that lacks a parameter, and of a library that does.
INSTEAD = {"v_f": "its forget gate sees no state: use sru_feedback", "v_r": "use reset_feedback=True"}
ELSEWHERE = {"c_n": "flax.linen, torch.nn and Keras have it", "W_x": "set highway=False, or projection=0"}


def of(library: str, cell: Cell, input_size: int) -> Layout:
    """The table for `cell`.

    Raises:
      ValueError: there is none, with the option, or the library, that has one.
    """
    table = LIBRARIES[library]
    kind = type(cell).plain or type(cell)
    name = kind.__name__
    if kind not in table:
        there = ", ".join(c.__name__ for c in table)
        there += "; the sru package has it: to_torch" if kind in (SRU, SRUFeedback) else ""
        raise ValueError(f"no {name} in {library}; there: {there}")
    for option, wanted in WITHOUT.items():
        if (got := getattr(cell, option, wanted)) != wanted:
            raise ValueError(f"{name} with {option}={got} has no layout in {library}: set {option}={wanted}")
    if table is not KERAS and not getattr(cell, "reset_after", True):
        raise ValueError(f"GRU in {library} resets after the product, U h' + c_n: set reset_after=True")
    return table[kind](cell, input_size)
