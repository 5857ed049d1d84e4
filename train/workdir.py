"""A run's directory while it trains: locked, recorded, checkpointed, gone on with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train import files, same_run
from train.checkpoint import Checkpoints
from train.config import RunConfig
from train.files import WorkdirError, digest
from train.record import Record, check_own, clear, finished, read_summary
from train.summary import Evaluation, Summary


class Nowhere:
    """What takes the place of a directory where nothing is to be written."""

    path: Path | None = None

    def finished(self, like: Any) -> tuple[Summary, int, Any] | None:
        """Summary, last step and state of a run that has finished."""
        return None

    def begin(self, likes: dict[str, Any]) -> tuple[int, dict[str, Any], dict] | None:
        """Step, arrays and progress of the last checkpoint that can be trusted; None: none was written."""
        return None

    def append(self, rows: list[Evaluation]) -> None:
        """Records the seeds' evaluations."""

    def save(self, step: int, arrays: dict[str, Any], progress: dict) -> None:
        """Starts writing a checkpoint."""

    def summary(self, summary: Summary) -> None:
        """Records how the run has ended."""

    def close(self) -> None:
        """Waits for what is being written, and lets others have the directory."""


class Workdir(Nowhere):
    """The directory of a run, this process's own from the moment that something may be written.

    Args:
      directory: made if it does not exist.
      asked, resolved: the config as asked for, and as it runs.
      overwrite: removes the run that is there; other files stay.
      say: is told, in a line, what could not be trusted.
      data: digest of what the run trains on; empty: not known.
      model: what a model needs to know of its task, from `train.saved_model`.
      goes_on: the run there may be one with fewer steps (`same_run.GOES_ON`), which goes on; what this gives,
        of the step, is noted in the record, and its "said" told. None: it may not.

    Raises:
      WorkdirError: it holds another run or another program's files, or another process has it.
    """

    def __init__(
        self,
        directory: Path,
        asked: RunConfig,
        resolved: RunConfig,
        overwrite: bool = False,
        say: Callable[[str], None] = lambda line: None,
        data: str = "",
        model: dict | None = None,
        goes_on: Callable[[int], dict] | None = None,
    ):
        self.path, self._held, self._data, self._say = Path(directory), None, data, say
        self._goes_on, ignored = goes_on, frozenset() if goes_on is None else same_run.GOES_ON
        self._asked = asked.to_dict()
        if overwrite:
            check_own(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        if overwrite or finished(self.path) is None:
            self._own()
        config = self._asked
        try:
            if overwrite:
                clear(self.path)
            also = {"tensorboard": asked.train.tensorboard, "logger": asked.train.logger}
            also |= {"say": say, "model": model, "ignored": ignored}
            self._record = Record(self.path, config, resolved.to_dict(), **also)
            self._checkpoints = Checkpoints(
                self.path / "checkpoints",
                config,
                lambda saved: same_run.check(saved, config, self.path, ignored),
                say,
                self._own,
            )
        except BaseException:
            self._release()
            raise

    def _own(self):
        if self._held is None:
            self._held = files.lock(self.path)

    def _release(self):
        if self._held is not None:
            self._held.release()
            self._held = None

    def finished(self, like):
        summary = None if self._has_more_to_do() else finished(self.path)
        restored = self._restored({"state": like}) if summary else None
        if restored is None:
            return None
        step, arrays, progress = restored
        if (metrics := progress.get("metrics")) is not None:
            if read_summary(self.path)[1] != digest(metrics):
                return None  # not the last one, which is damaged: the rest is trained again
            if not self._record.holds(metrics):
                self._own()
                self._record.resume(metrics, step, ended=True)
        if not self._record.complete:
            self._own()
            self._record.write_configs(all_of_them=False)
        return summary, step, arrays["state"]

    def _has_more_to_do(self) -> bool:
        """Whether it goes on with a run whose configuration was another one."""
        if self._goes_on is None:
            return False
        saved = json.loads((self.path / "config.json").read_text())
        return bool(same_run.differences(saved, self._asked))

    def begin(self, likes):
        self._own()
        restored = self._restored(likes)
        step, _, progress = restored or (0, None, {})
        self._record.resume(progress.get("metrics"), step)
        note = self._goes_on(step) if self._goes_on else {}
        if "said" in note:
            self._say(f"{self.path} goes on {note['said']}")
        self._record.begin(step, note)
        return restored

    def _restored(self, likes):
        """From the last checkpoint; refuses one of a run on other data. Older versions did not note them."""
        restored = self._checkpoints.restore(likes)
        if restored and restored[2].get("data", self._data) != self._data:
            raise WorkdirError(
                f"{self.path} holds a run on other data: what its task reads has changed since; "
                "use another --workdir, or --overwrite to start again"
            )
        return restored

    def append(self, rows):
        self._record.append(rows)

    def save(self, step, arrays, progress):
        known = {"metrics": self._record.metrics} | ({"data": self._data} if self._data else {})
        self._checkpoints.save(step, arrays, progress | known)

    def summary(self, summary):
        self._checkpoints.wait()  # a summary says that the last checkpoint is there
        self._record.summary(summary)

    def close(self):
        try:
            self._checkpoints.close()
            self._record.close()
        finally:
            self._release()
