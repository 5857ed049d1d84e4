"""What a run writes of itself: configs, environment, metrics as append-only lines, summary, events."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from train import same_run
from train.environment import environment
from train.files import SET_ASIDE, WorkdirError, digest, plain, set_aside, write, write_json
from train.sinks import SENT, Logger, TensorBoard
from train.summary import Evaluation, Summary

# What a run writes into its directory. Everything else there is somebody else's.
FILES = (
    "config.json", "resolved.json", "model.json", "environment.json", "metrics.jsonl", "summary.json",
    "failed.json", SENT,
)  # fmt: skip
FOLDERS = ("checkpoints", "tensorboard", SET_ASIDE)


def check_own(directory: Path) -> None:
    """Refuses to clear a directory whose files are no run's.

    Raises:
      WorkdirError: one of them is another program's.
    """
    there = [name for name in (*FILES, *FOLDERS) if (directory / name).exists()]
    checkpoints = directory / "checkpoints"
    other = checkpoints.exists() and not _holds_checkpoints(checkpoints)
    sure = _is_of_a_run(directory / "config.json") or (directory / "resolved.json").exists()
    sure |= (
        checkpoints.exists() or (directory / "failed.json").exists() or _has_rows(directory / "metrics.jsonl")
    )
    if there and (other or not sure):
        raise WorkdirError(
            f"{directory} holds {', '.join(there)}, but no run: nothing is overwritten; use another --workdir"
        )


def clear(directory: Path) -> None:
    """Removes the run in a directory; other files there stay.

    Raises:
      WorkdirError: one of its files is no run's: nothing is removed.
    """
    directory = Path(directory)
    check_own(directory)
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
        (directory / f"{name}.part").unlink(missing_ok=True)
    for name in FOLDERS:
        folder = directory / name
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def _is_of_a_run(config: Path) -> bool:
    try:
        saved = json.loads(config.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and {"task", "cell", "train"} <= saved.keys()


def _holds_checkpoints(folder: Path) -> bool:
    """Nothing but steps that orbax wrote, or was writing."""
    inside = list(folder.iterdir()) if folder.is_dir() else [folder]
    return all(path.is_dir() and path.name.split(".")[0].isdigit() for path in inside)


def _has_rows(path: Path) -> bool:
    try:
        first = _text(path).splitlines()[0]
        Evaluation.from_dict(json.loads(first))
    except (IndexError, ValueError, OSError):
        return False
    return True


class Record:
    """The files of one run directory. What has finished is only read, until `begin`.

    Args:
      directory: made if it does not exist.
      asked, resolved: the config as asked for and as it runs, nested dicts: config.json, resolved.json.
      tensorboard: also write TensorBoard events. logger: also send them to one, see `train.sinks`.
      say: is told, in a line, what cannot be trusted and was set aside.
      model: of `train.saved_model`: model.json.
      ignored: fields in which the run may differ from what is there.

    Raises:
      WorkdirError: the directory holds a run with another config.
    """

    def __init__(
        self,
        directory: Path,
        asked: dict,
        resolved: dict,
        tensorboard: bool = False,
        say: Callable[[str], None] = lambda line: None,
        model: dict | None = None,
        ignored: frozenset = frozenset(),
        logger: str = "",
    ):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._configs = {"resolved.json": resolved, "config.json": asked}
        self._configs |= {"model.json": model} if model else {}
        path = self.directory / "config.json"
        if path.exists():
            same_run.check_saved(path, asked, resolved, ignored)
        self._path = self.directory / "metrics.jsonl"
        self._lines, self._say = [], say
        self._tensorboard, self._logger, self._sinks = tensorboard, logger, []
        self._grid = len(resolved.get("optim", {}).get("learning_rates", ())) > 1

    def write_configs(self, all_of_them: bool = True) -> None:
        """Writes what the run is: its configs and its model's, or those that are missing."""
        for name, content in self._configs.items():
            if all_of_them or not (self.directory / name).exists():
                write_json(self.directory / name, content)

    @property
    def complete(self) -> bool:
        """Whether these are there."""
        return all((self.directory / name).exists() for name in self._configs)

    def begin(self, step: int = 0, more: dict | None = None) -> None:
        """Writes what the run is, and on what it runs; it has not ended from now on.

        Who began it stays on record: who goes on with it, at a step, is added.

        Args:
          more: to be noted, too.
        """
        self._open(step)
        self.write_configs()
        path, now = self.directory / "environment.json", environment() | (more or {})
        try:
            before = json.loads(path.read_text())
            resumed = [*before.get("resumed", ()), {"step": step} | now]
            content = before | {"resumed": resumed}
        except (OSError, ValueError, AttributeError, TypeError):
            content = now
        write_json(path, content)
        (self.directory / "summary.json").unlink(missing_ok=True)

    def _open(self, step: int) -> None:
        """What else evaluations go to, of a run that goes on from a step."""
        asked = self._configs["config.json"]
        if self._tensorboard:
            label = asked.get("label") or asked["cell"]["name"]
            self._sinks.append(TensorBoard(self.directory, label, self._grid, step))
        if self._logger:
            before = [Evaluation.from_dict(json.loads(line)) for line in self._lines]
            self._sinks.append(Logger(self._logger, self.directory, asked, self._grid, before, self._say))

    @property
    def metrics(self) -> str:
        """All lines of metrics.jsonl so far: what a checkpoint keeps of them."""
        return "".join(self._lines)

    def holds(self, metrics: str) -> bool:
        """Whether metrics.jsonl is what the last checkpoint of a finished run kept."""
        return _text(self._path) == metrics

    def resume(self, metrics: str | None, step: int, ended: bool = False) -> None:
        """Makes metrics.jsonl what it was at a checkpoint; the run writes what came after it again.

        A file that did not begin so, or goes on with what is no row, is set aside.

        Args:
          metrics: its lines at the checkpoint; None: from an older version, which did not keep them.
          step: of the checkpoint; 0: there is none.
          ended: nothing came after it.
        """
        there = _text(self._path)
        if metrics is None:
            kept, whole = _up_to(there, step)
            # With a summary, and yet no checkpoint: somebody took the checkpoints away.
            whole &= step > 0 or not (self.directory / "summary.json").exists()
            metrics = "".join(kept)
        elif there.startswith(metrics):
            after = there[len(metrics) :]
            whole = not after if ended else _up_to(after, 0)[1]
        else:
            whole = False
        if not whole and there:
            place = set_aside(self._path, self.directory)
            self._say(f"{self._path} is not what the run wrote: it was moved to {place} and is written again")
        elif not whole:
            self._say(f"{self._path} was gone, and is written again")
        if there != metrics or not whole:
            write(self._path, metrics)
        self._lines = metrics.splitlines(keepends=True)

    def append(self, rows: list[Evaluation]) -> None:
        """Adds one line per row and pushes them to the disk."""
        lines = [json.dumps(plain(row.to_dict()), allow_nan=False) + "\n" for row in rows]
        with self._path.open("a") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        self._lines += lines
        for sink in self._sinks:
            sink.append(rows)

    def summary(self, summary: Summary) -> None:
        """Writes summary.json, with digests of itself and of metrics.jsonl."""
        content = summary.to_dict()
        digests = {"summary": digest(content), "metrics": digest(self.metrics)}
        write_json(self.directory / "summary.json", content | {"sha256": digests})

    def close(self) -> None:
        """Closes what else evaluations went to."""
        for sink in self._sinks:
            sink.close()


def read_summary(directory: Path) -> tuple[Summary, str | None]:
    """The summary of the run in a directory, and the digest of its metrics (None: an older version's).

    Raises:
      OSError: there is none. ValueError: it is damaged, in a line that names the file.
    """
    path = Path(directory) / "summary.json"
    try:
        content = json.loads(path.read_text())
        summary = Summary.from_dict(content)
        digests = content.get("sha256") or {}
        own = {name: content[name] for name in ("run", "seeds")}
        if digests and digests.get("summary") != digest(own):
            raise ValueError("it is not what the run wrote")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}; the run's command writes it again") from None
    return summary, digests.get("metrics")


def finished(directory: Path) -> Summary | None:
    """The summary of the run in a directory, if it has finished."""
    try:
        summary, _ = read_summary(directory)
    except (OSError, ValueError):
        return None
    return summary if summary.run.status == "finished" else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _up_to(text: str, step: int) -> tuple[list[str], bool]:
    """The lines up to a step, and whether all of them can be read; the last one may be torn."""
    kept, lines = [], text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            if Evaluation.from_dict(json.loads(line)).step <= step:
                kept.append(line)
        except ValueError:
            if number < len(lines):
                return kept, False
    return kept, True
