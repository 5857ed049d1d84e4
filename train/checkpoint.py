"""Checkpoints by orbax: the whole state of a run, written atomically, the last two kept.

A checkpoint knows the configuration of its run, and what its content must be: one that was damaged, however
little, is not believed.
"""

import contextlib
import errno
import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.files import digest, plain, set_aside

OLD = {"seconds", "solved_seconds", "last_rows"}  # what older versions saved as progress, and no digest


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be read."""


class Damaged(Exception):
    """A checkpoint is not what was saved."""


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      directory: made if it does not exist.
      config: what the run is, a nested dict for JSON; kept in every checkpoint.
      check: is told the config in a checkpoint that is about to be restored, and raises an error if that is
        another run's.
      say: is told, in a line, what is wrong and goes on all the same.
      own: is called before anything that was there is moved.
      reads: nothing is written, nor moved: a damaged checkpoint is passed over.
    """

    def __init__(
        self,
        directory: Path,
        config: dict | None = None,
        check: Callable[[dict], None] = lambda config: None,
        say: Callable[[str], None] = lambda line: None,
        own: Callable[[], None] = lambda: None,
        reads: bool = False,
    ):
        import orbax.checkpoint as ocp  # a second to import: only where checkpoints are wanted

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # errors are raised; no need to print them too
        _quiet_threads()
        self._ocp, self._config, self._check, self._say, self._own = ocp, config or {}, check, say, own
        self.directory, self._reads = Path(directory).absolute(), reads
        if not reads:
            self.directory.mkdir(parents=True, exist_ok=True)
        here = jax.process_index()  # of several processes this one alone, see `train.hosts`
        alone = ocp.options.MultiprocessingOptions(
            primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if reads else 2,
                create=False,
                read_only=reads,
                multiprocessing_options=alone,
            ),
        )

    def save(self, step: int, arrays: dict[str, Any], progress: dict) -> None:
        """Starts writing pytrees of arrays by name, and `progress` (JSON), as of `step`; returns early."""
        args = self._ocp.args
        content = {"config": self._config, "progress": plain(progress)}
        content |= {name: digest_of(tree) for name, tree in arrays.items()}
        items = {name: args.StandardSave(tree) for name, tree in arrays.items()}
        items["progress"] = args.JsonSave(content | {"digest": digest([step, content])})
        with self._one_clear_error():
            self._manager.save(step, args=args.Composite(**items))

    def restore(self, likes: dict[str, Any]) -> tuple[int, dict[str, Any], dict] | None:
        """The newest (step, arrays, progress) that is as it was saved; None where nothing was ever saved.

        Newer ones, which are not, are set aside. What an older version did not save is not among the arrays.

        Args:
          likes: by name, pytrees of the same structure, shapes, dtypes and sharding.

        Raises:
          CheckpointError: there are checkpoints, and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        reasons = []
        for step in steps:
            try:
                content = self._content(step)
                if "config" in content:
                    self._check(content["config"])
                arrays = {
                    name: self._arrays(step, content, name, like)
                    for name, like in likes.items()
                    if name in content or content.keys() == OLD and name == "state"
                }
            except Damaged as error:
                reasons.append(str(error))
                continue
            if reasons and not self._reads:
                self._own()
            for newer, reason in zip(steps, reasons, strict=False):
                if self._reads:
                    self._say(f"the checkpoint of step {newer} is damaged ({reason}); this is of step {step}")
                    continue
                place = set_aside(self.directory / str(newer), self.directory.parent)
                self._say(
                    f"the checkpoint of step {newer} is damaged ({reason}) and was moved to {place}; "
                    f"going on from the one of step {step}"
                )
            if reasons and not self._reads:
                self._manager.reload()
            return step, arrays, content.get("progress", content)
        if steps:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read (steps {steps}): {reasons[0]}; "
                "use another --workdir, or --overwrite to start again"
            )
        return None

    def _content(self, step: int) -> dict:
        """What was saved beside the state, if it is what was saved."""
        args = self._ocp.args
        content = self._read(step, progress=args.JsonRestore()).progress
        if not isinstance(content, dict):
            raise Damaged("no record in it")
        if content.keys() != OLD:
            wanted = {name: value for name, value in content.items() if name != "digest"}
            if content.get("digest") != digest([step, wanted]):
                raise Damaged("its record is not what was saved")
        return content

    def _arrays(self, step: int, content: dict, name: str, like):
        """Arrays, if they are what was saved."""
        shapes = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
        arrays = self._read(step, **{name: self._ocp.args.StandardRestore(shapes)})[name]
        if name in content and content[name] != digest_of(arrays):
            raise Damaged("its arrays are not what was saved")
        return arrays

    def _read(self, step: int, **items):
        try:
            return self._manager.restore(step, args=self._ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
            raise Damaged(_first_line(error)) from error

    def wait(self) -> None:
        """Until what was started is written."""
        with self._one_clear_error():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """`wait`, and ends the threads that write."""
        self.wait()
        with self._one_clear_error():
            self._manager.close()

    @contextlib.contextmanager
    def _one_clear_error(self):
        """What goes wrong while writing, perhaps only told at the next save, as OSError or one line."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            if os.strerror(errno.ENOSPC) in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory)) from error
            reason = _first_line(error)
            raise CheckpointError(f"cannot write a checkpoint to {self.directory}: {reason}") from error


def digest_of(state) -> str:
    """The SHA-256 of a pytree of arrays: names, shapes, dtypes and values."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(jax.device_get(state))[0]:
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _quiet_threads() -> None:
    """After a first error, which is raised, orbax drops its other reads, and closes the event loop to which
    tensorstore's threads report: Python prints a traceback or a warning for each."""
    warnings.filterwarnings("ignore", r"coroutine 'Store\._get_array_metadatas' was never", RuntimeWarning)
    before = sys.unraisablehook
    if getattr(before, "quiet", False):
        return

    def hook(unraisable):
        said = str(unraisable.exc_value)
        if not any(told in said for told in ("loop is closed", "error while reading array index")):
            before(unraisable)

    hook.quiet = True
    sys.unraisablehook = hook
