"""What of its task a model has to know, beside a run's parameters: model.json, so that who uses the model
needs no data."""

import dataclasses
import json
from pathlib import Path

from train.files import digest
from train.tasks.base import Spec
from train.tasks.meaning import Meaning

FILE = "model.json"


def described(spec: Spec, meaning: Meaning) -> dict:
    """As JSON has it, with a digest of itself."""
    content = {"spec": dataclasses.asdict(spec), "meaning": meaning.to_dict()}
    return content | {"sha256": digest(content)}


def read(folder: Path) -> tuple[Spec, Meaning] | None:
    """The inverse of `described`, of a run's folder; None: an older version wrote none.

    Raises:
      ValueError: it is damaged.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        own = {name: content[name] for name in ("spec", "meaning")}
        if content["sha256"] != digest(own):
            raise ValueError("it is not what the run wrote")
        known = {field.name for field in dataclasses.fields(Spec)}
        spec = Spec(**{name: value for name, value in own["spec"].items() if name in known})
        return spec, Meaning.from_dict(own["meaning"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}; without it the task's data are read again") from None
