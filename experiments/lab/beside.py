"""Evidence of an experiment from several workdirs, as one: only what is missing is trained."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.lab import runs, trials
from experiments.lab.evidence import load
from experiments.lab.experiment import Frames


class Evidence(NamedTuple):
    """Of an experiment, from elsewhere, that stands beside what is trained here.

    Attributes:
      frames: of its models that are asked for, and tuned as they would be today.
      record: its environment.json.
      settings: all that is asked for.
      missing: those of what is trained here: the cells of which it lacks a model.
      models: the columns that name one, `Experiment.models`.
    """

    frames: Frames
    record: dict
    settings: Any
    missing: Any
    models: dict[str, str]


def read(experiment, settings, folder) -> Evidence:
    """What `folder`, a workdir or what is committed, has of the models that `settings` ask for.

    Raises:
      ValueError: the experiment is one whole; there is no evidence, or it was trained otherwise, or nothing
        is left to train.
    """
    if not experiment.models:
        raise ValueError(f"--beside has no effect: {experiment.name} is one whole")
    try:
        frames, record = load(folder), json.loads((Path(folder) / "environment.json").read_text())
    except FileNotFoundError as error:
        raise ValueError(f"--beside={folder} holds no evidence: {error}") from None
    _check(experiment, settings, record, folder)
    otherwise = trials.others(Path(folder), record["settings"])
    keys, asked, of_models = experiment.models, _asked(experiment, settings), {}
    for name, frame in frames.items():
        if set(keys) <= set(frame):
            is_asked = np.array([model in asked for model in _named(frame, keys)], bool)
            of_models[name] = frame[is_asked & ~frame["label"].isin(otherwise)]
    here = {model for frame in of_models.values() for model in _named(frame, keys)}
    lacking = {model[list(keys).index("label")] for model in asked - here}
    missing = settings
    if not getattr(settings, "only_trained", False):
        if not lacking:
            raise ValueError(f"--beside={folder} has all that is asked for: nothing is left to train")
        cells = tuple(cell for cell in settings.cells if _label(cell) in lacking)
        missing = dataclasses.replace(settings, cells=cells)
    return Evidence(of_models, record, settings, missing, keys)


def joined(evidence: Evidence, frames: Frames, record: dict) -> tuple[Frames, dict]:
    """Frames measured here and their record, with what the evidence has beside; of what both have, ours.

    Frames that do not name models stay as they are.
    """
    found, keys = dict(frames), evidence.models
    order = {_label(cell): place for place, cell in enumerate(evidence.settings.cells)}
    for name, there in evidence.frames.items():
        here = frames.get(name, pd.DataFrame())
        if len(here):
            if not set(keys) <= set(here):
                continue
            had = set(_named(here, keys))
            there = there[[model not in had for model in _named(there, keys)]]
        found[name] = pd.concat([here, there], ignore_index=True).sort_values(
            "label", key=lambda of: of.map(order).fillna(len(order)), kind="stable", ignore_index=True
        )
    its = evidence.record
    told = {key: its[key] for key in ("command", "started", "git_commit", "cpu", "cores", "jax", "python")}
    if "confirmed" in its:
        told["confirmed"] = its["confirmed"]
    code, earlier = dict(record["code"]), its["code"]
    for path, digest in earlier.items():
        code[path] = digest if code.get(path, digest) == digest else "several"
    return found, record | {"code": code, "beside": [told, *its.get("beside", [])]}


def _check(experiment, settings, its: dict, folder) -> None:
    which = {*experiment.models.values(), "only_trained"}  # models there are, not how one is trained
    for name, value in json.loads(json.dumps(dataclasses.asdict(settings))).items():
        if name not in which and its["settings"].get(name) != value:
            raise ValueError(
                f"--beside={folder} was measured with {name} {its['settings'].get(name)}, this with {value}"
            )


def _asked(experiment, settings) -> set[tuple]:
    """The models of an experiment with these settings, as its frames name them."""
    lists = [getattr(settings, setting) for setting in experiment.models.values()]
    models = list(settings.models()) or itertools.product(*lists)
    return {
        tuple(
            _label(value) if column == "label" else value
            for column, value in zip(experiment.models, model, strict=True)
        )
        for model in models
    }


def _named(frame: pd.DataFrame, keys) -> list[tuple]:
    """The model of each row."""
    return list(frame[list(keys)].itertuples(index=False, name=None))


def _label(cell: str) -> str:
    return runs.labels(cell)["label"]
