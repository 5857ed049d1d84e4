"""Configs as runs saved them: a run's folder, or the config.json in it."""

import json
from pathlib import Path

from ml_collections import ConfigDict

import cells
import configs
from configs.overrides import set_field
from configs.precedence import default, settle
from train import tasks


def is_saved(name: str) -> bool:
    """Whether a name is that of a run's folder or of a JSON file."""
    return name.endswith(".json") or bool(name) and _path(name).is_file()


def _path(name: str) -> Path:
    path = Path(name).expanduser()
    return path if name.endswith(".json") else path / "config.json"


def load(name: str) -> ConfigDict:
    """What a run was asked to do.

    Raises:
      ValueError: not a saved config.
    """
    path = _path(name)
    try:
        sections = json.loads(path.read_text())
        cell, task = (sections[section].pop("name") for section in ("cell", "task"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a saved config: {type(error).__name__}: {error}") from None
    try:
        config = configs.make(cell, task)
        fields = configs.flat(sections)
        for field in configs.flat(config.to_dict()).keys() - fields.keys() - {"cell.name", "task.name"}:
            if "." in field:  # of an older version, which did as the field's default says
                set_field(config, field, default(config, field))
        for field, value in fields.items():
            set_field(config, field, value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not (path.parent / "resolved.json").exists():
        forget_derived(config)
    options = cells.CELLS.cls(cell).length_options
    if any(config.cell[option] != default(config, f"cell.{option}") for option in options):
        config.chrono = "cell"  # what it has of its own keeps a cell as it is
    settle(config)
    return config


def forget_derived(config: ConfigDict) -> None:
    """Takes back what older versions wrote into config.json: options that follow from the task's length. (The
    hidden size that follows from a budget goes by the rules of precedence.)"""
    names = cells.CELLS.cls(config.cell.name).length_options
    if config.chrono != "task" or not names:
        return
    plain = {option: default(config, f"cell.{option}") for option in names}
    cell = cells.get(**config.cell.to_dict() | plain)
    derived = cell.for_length(_steps(tasks.get(**config.task)))
    changed = [option for option in names if getattr(derived, option) != plain[option]]
    if changed and all(config.cell[option] == getattr(derived, option) for option in changed):
        config.cell.update(plain)


def _steps(task: tasks.Task) -> int:
    """The longest sequence of a task; 0 where its data, which cannot be had, would say."""
    try:
        return task.spec(task.load()).time
    except tasks.DataError:
        return 0
