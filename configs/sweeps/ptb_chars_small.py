"""`ptb_chars` for a quarter of an hour a cell on 2 cores: 500,000 parameters, 2 epochs."""

from configs.sweeps.ptb_chars import CELLS, TASKS
from configs.sweeps.ptb_chars import SHARED as LARGE

__all__ = ["CELLS", "SHARED", "TASKS"]

SHARED = LARGE | {"parameters": 500_000, "train": LARGE["train"] | {"steps": 2_450}}
