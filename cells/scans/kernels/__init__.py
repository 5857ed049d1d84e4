"""Time inside a kernel: elementwise recurrences in one pass over memory, on a GPU or a TPU.

`recurrence` is what the two backends have in common: a body of one step, of which every number of the state
and of the outputs depends on the same place of the inputs alone, is run over time, with the state in
registers. `gpu` writes it in Pallas' Mosaic GPU, `tpu` in Pallas for TPUs, `plain` as a `lax.scan`.

`linear` runs c_t = a_t c_{t-1} + b_t so, `fused` all of a cell's step, which reads the projections once.
"""

from cells.scans.kernels.fused import fusible, run
from cells.scans.kernels.linear import solve
from cells.scans.kernels.recurrence import available, way

__all__ = ["available", "fusible", "run", "solve", "way"]
