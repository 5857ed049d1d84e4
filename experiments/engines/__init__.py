"""Engines: where the runs of a sweep train. `local`: processes side by side, each on a core of its own.

An engine gets jobs and tells of events; a run's folder holds all else. So whatever dies, the same command
again goes on where it was.
"""

from pathlib import Path
from typing import NamedTuple

from train.config import RunConfig


class Job(NamedTuple):
    """A run to be trained."""

    name: str
    config: RunConfig
    folder: Path

    def message(self, data_dir: str | None) -> dict:
        """What a worker is told, for JSON."""
        folder, data_dir = (path and str(Path(path).absolute()) for path in (self.folder, data_dir))
        return {"name": self.name, "config": self.config.to_dict(), "folder": folder, "data_dir": data_dir}


class Event(NamedTuple):
    """What an engine tells of a job.

    kind: "progress"; "done", with a line of results; "failed", with the error's line, for good; "retried",
      with the reason; "stopped", by a signal.
    """

    job: str
    kind: str
    line: str = ""
    step: int = 0
    steps: int = 0
