"""Where else evaluations go: TensorBoard, and loggers that have the interface of wandb."""

import importlib
import importlib.util
import json
import math
import queue
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from train.files import WorkdirError, write_json
from train.summary import Evaluation

LOGGERS = ("", "trackio", "wandb")
PROJECT = "recurrent-cells"
SENT = "logger.json"  # in a run's folder: which run of the logger it is, and the last step that was sent
PATIENCE = 20.0  # seconds that a logger has at the end
CURVES = ("train_loss", "valid_loss", "valid_metric")


def lane(row: Evaluation, grid: bool) -> str:
    """The name of a row's curve: "seed_3", of a grid "seed_3_learning_rate_0.02"."""
    return f"seed_{row.seed}" + (f"_learning_rate_{row.learning_rate:g}" if grid else "")


class TensorBoard:
    """Events in `tensorboard/LABEL_seed_0/`: a folder for each seed, so that a metric is one chart.

    Args:
      directory: of the run.
      label: of the run.
      grid: whether it trains with several learning rates.
      step: the last one that stays: of a run that goes on, what was written after it is void.

    Raises:
      WorkdirError: the package tensorboardX is missing.
    """

    def __init__(self, directory: Path, label: str, grid: bool, step: int):
        _require("train.tensorboard", "tensorboardX", "tensorboard")
        self._name = re.sub(r"[^\w.=-]+", "_", label)
        self._folder, self._grid, self._step, self._writers = directory / "tensorboard", grid, step, {}

    def append(self, rows: list[Evaluation]) -> None:
        """Writes evaluations."""
        from tensorboardX import SummaryWriter

        for row in rows:
            name = f"{self._name}_{lane(row, self._grid)}"
            if name not in self._writers:
                self._writers[name] = SummaryWriter(str(self._folder / name), purge_step=self._step + 1)
            for curve in CURVES:
                self._writers[name].add_scalar(curve, row[curve], row.step)
            self._writers[name].flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


class Logger:
    """Sends evaluations to a logger in a thread of its own: training neither waits for it nor ends by it.

    A run that goes on sends what has not been sent, to the same run of the logger; at most one evaluation is
    there twice, where the process was killed between sending and noting it.

    Args:
      kind: "trackio" or "wandb".
      directory: of the run.
      asked: its config, which the logger gets.
      grid: whether it trains with several learning rates.
      before: evaluations that there were before this process.
      say: is told, in a line, that the logger failed.

    Raises:
      WorkdirError: its package is missing.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        asked: dict,
        grid: bool,
        before: list[Evaluation],
        say: Callable[[str], None],
    ):
        _require(f"train.logger={kind!r}", kind, kind)
        self._kind, self._asked, self._grid, self._say = kind, asked, grid, say
        self._file, self._rows, self._failed = directory / SENT, queue.SimpleQueue(), False
        self._known = _sent(self._file, kind)
        for step in sorted({row.step for row in before}):
            self.append([row for row in before if row.step == step])
        self._thread = threading.Thread(target=self._work, daemon=True, name=kind)
        self._thread.start()

    def append(self, rows: list[Evaluation]) -> None:
        """Hands over the evaluations of one step."""
        if rows and not self._failed and rows[0].step > self._known["step"]:
            values = {f"{curve}/{lane(row, self._grid)}": row[curve] for row in rows for curve in CURVES}
            self._rows.put((rows[0].step, {key: x for key, x in values.items() if math.isfinite(x)}))

    def close(self) -> None:
        """Waits, not long, until everything was sent."""
        self._rows.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._say(
                f"train.logger: {self._kind} did not end within {PATIENCE:g} s; the run goes on without"
            )

    def _work(self):
        try:
            known, cell, task = dict(self._known), self._asked["cell"]["name"], self._asked["task"]["name"]
            title = f"{task}-{self._asked['label'] or cell}-{known['id']}"
            more = {"id": known["id"]} if self._kind == "wandb" else {}  # trackio goes on by the name
            module = importlib.import_module(self._kind)
            run = module.init(
                project=PROJECT, name=title, group=task, config=self._asked, resume="allow", **more
            )
            for step, values in iter(self._rows.get, None):
                run.log(values, step=step)
                write_json(self._file, known | {"step": step})
            run.finish()
        except (Exception, SystemExit) as error:
            self._failed = True
            line = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            self._say(f"train.logger: {self._kind} failed, training goes on without it: {line}")


def _sent(file: Path, kind: str) -> dict:
    """What a run has sent: the logger, its name there, and the last step."""
    try:
        known = json.loads(file.read_text())
        if known["logger"] == kind and isinstance(known["step"], int):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"logger": kind, "id": uuid.uuid4().hex[:8], "step": 0}


def _require(option: str, package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise WorkdirError(f"{option} needs the package {package}: pip install 'recurrent-cells[{extra}]'")
