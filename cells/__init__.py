"""Recurrent cells as pure functions on pytrees, and the scans that run them over time.

cell = cells.get("lstm", hidden_size=64)
params = cell.init(key, input_size)
carry, ys = cells.scan(cell, params, xs)    # xs (batch, time, features) -> ys (batch, time, hidden)
"""

from cells.attention import Attention
from cells.base import Cell, HandDifferentiated, Linear, Nonlinear, Sequence
from cells.deltanet import DeltaNet
from cells.gru import GRU
from cells.interop import (
    from_flax_linen,
    from_flax_nnx,
    from_keras,
    from_torch,
    stacks,
    to_flax_linen,
    to_flax_nnx,
    to_keras,
    to_torch,
)
from cells.knn import KNN
from cells.lru import LRU
from cells.lstm import LSTM
from cells.mamba2 import Mamba2
from cells.mamba3 import Mamba3
from cells.minimal import MinGRU, MinLSTM
from cells.mlstm import MLSTM
from cells.qrnn import QRNN
from cells.registry import Registry
from cells.rglru import RGLRU
from cells.rnn import RNN
from cells.s5 import S5
from cells.scans import Newton, Report, scan, strategies
from cells.slstm import SLSTM
from cells.sru import SRU, SRUFeedback
from cells.tcn import TCN
from cells.window import Window

CELLS: Registry[Cell] = Registry(
    "cell",
    {
        "rnn": RNN,
        "lstm": LSTM,
        "gru": GRU,
        "sru": SRU,
        "sru_feedback": SRUFeedback,
        "qrnn": QRNN,
        "knn": KNN,
        "mingru": MinGRU,
        "minlstm": MinLSTM,
        "lru": LRU,
        "s5": S5,
        "rglru": RGLRU,
        "slstm": SLSTM,
        "mlstm": MLSTM,
        "mamba2": Mamba2,
        "mamba3": Mamba3,
        "deltanet": DeltaNet,
        "tcn": TCN,
        "window": Window,
        "attention": Attention,
    },
)

get = CELLS.get
names = CELLS.names

__all__ = [
    "CELLS",
    "Cell",
    "HandDifferentiated",
    "Linear",
    "Newton",
    "Nonlinear",
    "Report",
    "Sequence",
    "from_flax_linen",
    "from_flax_nnx",
    "from_keras",
    "from_torch",
    "get",
    "names",
    "scan",
    "stacks",
    "strategies",
    "to_flax_linen",
    "to_flax_nnx",
    "to_keras",
    "to_torch",
]
