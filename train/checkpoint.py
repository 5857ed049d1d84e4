"""Checkpoints by orbax: the whole state of a run, written atomically, the last two kept."""

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import Any

import jax


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be read."""


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      directory: made if it does not exist.
    """

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp  # a second to import: only where checkpoints are wanted

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # errors are raised; no need to print them too
        self._ocp = ocp
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        )

    def save(self, step: int, state: Any, progress: dict) -> None:
        """Starts writing `state` (pytree of arrays) and `progress` (JSON) as of `step`; returns early."""
        args = self._ocp.args
        with self._one_clear_error():
            self._manager.save(
                step, args=args.Composite(state=args.StandardSave(state), progress=args.JsonSave(progress))
            )

    def restore(self, like: Any) -> tuple[int, Any, dict] | None:
        """The newest readable (step, state, progress); None where nothing was ever saved.

        Args:
          like: a state of the same structure, shapes, dtypes and sharding.

        Raises:
          CheckpointError: there are checkpoints, and none can be read.
        """
        args = self._ocp.args
        steps = sorted(self._manager.all_steps(), reverse=True)
        reason = None
        for step in steps:
            try:
                restored = self._manager.restore(
                    step,
                    args=args.Composite(
                        state=args.StandardRestore(jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)),
                        progress=args.JsonRestore(),
                    ),
                )
                # A damaged checkpoint must not stop the next save of the same step.
                for newer in steps[: steps.index(step)]:
                    self._manager.delete(newer)
                return step, restored.state, restored.progress
            except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
                reason = reason or f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        if steps:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read (steps {steps}): {reason}; "
                "use another --workdir, or --overwrite to start again"
            )
        return None

    def close(self) -> None:
        """Waits until what was started is written."""
        with self._one_clear_error():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextlib.contextmanager
    def _one_clear_error(self):
        """What goes wrong while writing, perhaps only told at the next save, as OSError or one line."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            if os.strerror(errno.ENOSPC) in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory)) from error
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            raise CheckpointError(f"cannot write a checkpoint to {self.directory}: {reason}") from error
