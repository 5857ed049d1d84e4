"""Configs as runs saved them: a run's folder, or the config.json in it."""

import json
from pathlib import Path

from ml_collections import ConfigDict

import cells
import configs
from configs.overrides import set_field
from configs.precedence import default, settle
from train import effects, tasks
from train.timescale import for_length, length_options


def is_saved(name: str) -> bool:
    """Whether a name is that of a run's folder or of a JSON file."""
    return name.endswith(".json") or (Path(name) / "config.json").is_file()


def load(name: str) -> ConfigDict:
    """What a run was asked to do.

    Raises:
      ValueError: not a saved config.
    """
    path = Path(name) if name.endswith(".json") else Path(name) / "config.json"
    try:
        sections = json.loads(path.read_text())
        cell, task = (sections[section].pop("name") for section in ("cell", "task"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a saved config: {type(error).__name__}: {error}") from None
    config = configs.make(cell, task)
    for field, value in configs.flat(sections).items():
        set_field(config, field, value)
    if not (path.parent / "resolved.json").exists():
        forget_derived(config)
    options = length_options(cells.CELLS.cls(cell))
    if any(config.cell[option] != default(config, f"cell.{option}") for option in options):
        config.chrono = "cell"  # what it has of its own keeps a cell as it is
    settle(config)
    return config


def forget_derived(config: ConfigDict) -> None:
    """Takes back what older versions wrote into config.json: options that follow from the task's length. (The
    hidden size that follows from a budget goes by the rules of precedence.)"""
    run = configs.freeze(config)
    names = length_options(type(run.cell))
    if config.chrono != "task" or not names:
        return
    plain = {option: default(config, f"cell.{option}") for option in names}
    told = for_length(cells.get(config.cell.name, **{**_options(config.cell), **plain}), _steps(run.task))
    derived = {option for option in names if effects.value(told, option) != plain[option]}
    if derived and all(config.cell[option] == effects.value(told, option) for option in derived):
        for option in names:
            config.cell[option] = plain[option]


def _options(section: ConfigDict) -> dict:
    return {name: value for name, value in section.to_dict().items() if name != "name"}


def _steps(task: tasks.Task) -> int:
    """The longest sequence of a task; 0 where its data, which cannot be had, would say."""
    try:
        return task.spec(task.load()).time
    except tasks.DataError:
        return 0
