"""Evidence of an experiment from several workdirs, as one."""

import dataclasses
import json
from pathlib import Path

import pandas as pd

from experiments.lab import runs
from experiments.lab.experiment import Frames, load

# Settings that say which models there are, not how one is trained.
WHICH = ("cells", "columns", "forms", "only_trained")


def joined(experiment, settings, frames: Frames, record: dict, folder: Path) -> tuple[Frames, dict]:
    """The frames and their record, with what `folder` has of the models that are asked for and not in them.

    Args:
      experiment: with `models`, the columns of a frame that name a model; frames without these stay.
      record: of environment.json, with `code`.
      folder: of evidence of the same experiment, a workdir or what is committed.

    Raises:
      ValueError: there is none, or its models were trained otherwise.
    """
    try:
        other, its = load(folder), json.loads((Path(folder) / "environment.json").read_text())
    except FileNotFoundError as error:
        raise ValueError(f"--beside={folder} holds no evidence: {error}") from None
    _check(settings, its, folder)
    found = dict(frames)
    for name, there in other.items():
        here, keys = frames.get(name, pd.DataFrame()), list(experiment.models)
        if not set(keys) <= set(there) or len(here) and not set(keys) <= set(here):
            continue
        there = there[_asked(there, settings)]
        if len(here):
            had = set(here[keys].itertuples(index=False, name=None))
            there = there[[key not in had for key in there[keys].itertuples(index=False, name=None)]]
        labels = [runs.labels(cell)["label"] for cell in settings.cells]
        found[name] = pd.concat([here, there], ignore_index=True).sort_values(
            "label", key=lambda of: of.map(labels.index), kind="stable", ignore_index=True
        )
    told = {key: its[key] for key in ("command", "started", "git_commit", "cpu", "cores", "jax", "python")}
    if "confirmed" in its:
        told["confirmed"] = its["confirmed"]
    code, earlier = dict(record["code"]), its["code"]
    for path, digest in earlier.items():
        code[path] = digest if code.get(path, digest) == digest else "several"
    return found, record | {"code": code, "beside": [told, *its.get("beside", [])]}


def _check(settings, its: dict, folder) -> None:
    mine = json.loads(json.dumps(dataclasses.asdict(settings)))
    for name, value in mine.items():
        if name not in WHICH and its["settings"].get(name) != value:
            raise ValueError(
                f"--beside={folder} was measured with {name} {its['settings'].get(name)}, this with {value}"
            )


def _asked(rows: pd.DataFrame, settings) -> pd.Series:
    wanted = {
        "label": [runs.labels(cell)["label"] for cell in settings.cells],
        "column": getattr(settings, "columns", None),
        "form": getattr(settings, "forms", None),
    }
    is_asked = pd.Series(True, rows.index)
    for name, values in wanted.items():
        if values is not None and name in rows:
            is_asked &= rows[name].isin(values)
    return is_asked
