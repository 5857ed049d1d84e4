"""Weights in and out: the layouts of `torch.nn`, of the SRU authors' `sru` package, of flax and of Keras.

NumPy arrays come out, so that none of these has to be installed. One cell: the functions here; layers of
cells: those of the same names in `stacks`.
"""

from cells.interop.one import (
    from_flax_linen,
    from_flax_nnx,
    from_keras,
    from_torch,
    to_flax_linen,
    to_flax_nnx,
    to_keras,
    to_torch,
)

__all__ = [
    "from_flax_linen",
    "from_flax_nnx",
    "from_keras",
    "from_torch",
    "to_flax_linen",
    "to_flax_nnx",
    "to_keras",
    "to_torch",
]
