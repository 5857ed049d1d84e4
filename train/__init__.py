"""One training loop for every cell; what it trained, read again: `train.load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.trained import TrainedRun

__all__ = ["load"]


def load(folder: str | Path, data_dir: str | None = None) -> TrainedRun:
    """A trained run: its configuration, curves and parameters, predictions, a look inside.

    The folder, of a finished or an interrupted run, is only read. See `train.trained`.
    """
    from train.trained import load  # imports jax, before which a process may still prepare it

    return load(folder, data_dir)
