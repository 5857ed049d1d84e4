"""A run's folder, read and never changed."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from train import saved_model
from train.checkpoint import CheckpointError, Checkpoints
from train.config import RunConfig
from train.files import digest
from train.model import Model
from train.record import read_summary
from train.step import Best, State, make_init
from train.summary import Evaluation
from train.tasks.base import Spec
from train.tasks.meaning import Meaning


class Lanes(NamedTuple):
    """The parameters of all seeds and learning rates, which lead, and how good they were."""

    best: Best | None
    last: State
    step: int


def described(folder: Path, data_dir: str | None) -> tuple[RunConfig, RunConfig, Spec, Meaning]:
    """What was asked, what was run, and what the model knows of its task.

    Raises:
      ValueError: it is no run's folder, or damaged.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(_no_run(folder))
    asked = _config(folder / "config.json")
    resolved = folder / "resolved.json"
    config = _config(resolved) if resolved.exists() else asked
    found = saved_model.read(folder)
    if found is None:
        data = config.task.load(data_dir)
        found = config.task.spec(data), config.task.meaning(data)
    return asked, config, *found


def _config(path: Path) -> RunConfig:
    try:
        return RunConfig.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a saved config: {error}") from None


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist"
    below = sorted(str(path.parent) for path in folder.glob("**/config.json"))
    if not below:
        return f"{folder} is no run's folder: it has no config.json, nor has a folder in it"
    more = f", ... ({len(below)} in all)" if len(below) > 6 else ""
    return f"{folder} holds several runs; load one: {', '.join(below[:6])}{more}"


def restored(folder: Path, config: RunConfig, spec: Spec, model: Model) -> Lanes:
    """The last checkpoint that is as it was saved."""
    place = folder / "checkpoints"
    lanes = len(config.lanes)
    numbers = np.zeros(lanes, np.int32), np.zeros(lanes, np.float32)
    like = jax.eval_shape(jax.vmap(make_init(config, spec, model)), *numbers)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
    likes = {"state": like, "best": Best(like.params, like.learning_rate, like.solved_step)}
    if not place.is_dir():
        raise ValueError(f"{folder} has no checkpoint yet")
    try:
        restored = Checkpoints(place, say=warnings.warn, reads=True).restore(likes)
    except CheckpointError as error:
        raise ValueError(str(error)) from None
    if restored is None:
        raise ValueError(f"{folder} has no checkpoint yet")
    step, arrays, _ = restored
    arrays = jax.device_get(arrays)
    return Lanes(arrays.get("best"), arrays["state"], step)


def evaluations(folder: Path, ended: bool) -> list[dict]:
    """The rows of metrics.jsonl; a last line that a kill tore is left out.

    Args:
      ended: the run has a summary, which says what they must be.

    Raises:
      ValueError: they are not what the run wrote.
    """
    path, rows = folder / "metrics.jsonl", []
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    wanted = read_summary(folder)[1] if ended else None
    if wanted is not None and digest("".join(lines)) != wanted:
        raise ValueError(f"{path} is not what the run wrote; the run's command writes it again")
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Evaluation.from_dict(json.loads(line)).to_dict())
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}, line {number}, is damaged: {error}") from None
    return rows
