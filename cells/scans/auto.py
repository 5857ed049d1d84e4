"""What `strategy="auto"` means: a small table by backend, cell and size.

CPU rows: `python -m experiments.speed --cells=sru`, 2 cores, forward and backward, 2026-11-23. From
(batch, time, hidden) = (1, 128, 32) to (8, 16384, 32) and (16, 2048, 128), "associative" took 0.98 to 1.8
times as long as "sequential", "chunked" 1.07 to 2.1: there the passes over memory count, and the scan makes
the fewest. Rows of accelerators are not measured yet: a step of a scan costs at least the launch of a kernel,
so the O(log T) depth of "associative" should win unless the sequence is very short.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """From `time` steps and a state of `size` = batch * hidden_size floats on: `strategy` (linear cells)."""

    time: int
    size: int
    strategy: str


TABLE = {
    "cpu": (Row(time=1, size=1, strategy="sequential"),),
    "gpu": (Row(time=1, size=1, strategy="sequential"), Row(time=16, size=1, strategy="associative")),
    "tpu": (Row(time=1, size=1, strategy="sequential"), Row(time=16, size=1, strategy="associative")),
}


def choose(is_linear: bool, backend: str, time: int, size: int) -> str:
    """The strategy of the last row that fits; a nonlinear cell can only go step by step.

    Args:
      backend: "cpu", "gpu" or "tpu"; another one counts as a "gpu".
      time: steps of a sequence; size: batch * hidden_size.
    """
    if not is_linear:
        return "sequential"
    fitting = [row for row in TABLE.get(backend, TABLE["gpu"]) if time >= row.time and size >= row.size]
    return fitting[-1].strategy
