"""Configs: the defaults of every cell and task, recipes of the tasks, files that build on them.

A config is an `ml_collections.ConfigDict` with the sections of `train.config.RunConfig` until
`freeze` makes it one. A file in this folder that defines `get_config()` is a config, one in `sweeps/` that
defines CELLS, TASKS and SHARED a sweep. Of settings that exclude each other the later one stands, see
`precedence`.
"""

import copy
import dataclasses
import types
import typing

from ml_collections import ConfigDict, config_dict

import cells
from configs import precedence
from configs.files import FOLDER, load, names
from configs.grids import all_cells, distinct, sweep, with_options
from configs.overrides import literal, set_field
from configs.precedence import HIDDEN_SIZE, NoEffectError
from configs.recipes import RECIPES
from train import effects, tasks
from train.config import RunConfig
from train.same_run import flat

__all__ = [
    "FOLDER",
    "all_cells",
    "apply",
    "distinct",
    "flat",
    "freeze",
    "literal",
    "load",
    "make",
    "names",
    "sweep",
    "update",
    "with_options",
]

REGISTRIES = {"cell": cells.CELLS, "task": tasks.TASKS}


def make(cell: str = "sru", task: str = "delayed_recall", /, **sections) -> ConfigDict:
    """The default config of a cell on a task: the task's recipe, then `sections`.

    Args:
      cell, task: registered names.
      sections: by keyword, e.g. `task={"gap": 50}, train={"steps": 500}, parameters=10_000`.

    Raises:
      ValueError: unknown cell, task or field, a value of the wrong type, or two that exclude each other.
    """
    config = ConfigDict({"parameters": 0, "chrono": "task", "label": "", "init": ""})
    config.cell = _defaults(cells.CELLS.cls(cell), name=cell, hidden_size=HIDDEN_SIZE)
    config.task = _defaults(tasks.TASKS.cls(task), name=task)
    for section, cls in precedence.SECTIONS.items():
        config[section] = _defaults(cls)
    update(config, RECIPES.get(task, {}))
    update(config, sections)
    return config


def _defaults(cls, **values) -> ConfigDict:
    """The options of a dataclass with their defaults; None becomes an empty field of its type."""
    section, hints = ConfigDict(values), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name not in values:
            kinds = set(typing.get_args(hints[field.name])) - {types.NoneType}
            empty = field.default is None
            section[field.name] = config_dict.placeholder(*kinds) if empty else field.default
    return section


def update(config: ConfigDict, sections: dict) -> None:
    """Sets the fields of a nested dict, each checked, as one layer."""
    precedence.set_fields(config, flat(sections))


def with_fields(config: ConfigDict, fields: dict) -> ConfigDict:
    """A copy with the fields that the user named, {"task.length": "400"}."""
    config = copy.deepcopy(config)
    precedence.set_fields(config, fields)
    if "chrono" in fields and not cells.CELLS.cls(config.cell.name).length_options:
        line = f"config.chrono={config.chrono!r} has no effect: {config.cell.name} has no options for it"
        raise NoEffectError("chrono", line)
    return config


def apply(config: ConfigDict, overrides: dict[str, str]) -> ConfigDict:
    """The config with fields replaced: {"task.length": "400"}. Values are Python literals or words.

    A new `cell.name` or `task.name` comes with its own options and recipe; the other options that
    `config` gave to the old one are dropped.

    Raises:
      ValueError: unknown field (with the nearest one), a value of the wrong type, two that exclude each
        other, or one that does nothing here.
    """
    overrides = dict(overrides)
    names = {section: overrides.pop(f"{section}.name", config[section].name) for section in REGISTRIES}
    return with_fields(_renamed(config, **names), overrides)


def _renamed(config: ConfigDict, cell: str, task: str) -> ConfigDict:
    """The config of another cell or task: what the file said goes along, not the recipe."""
    new = make(cell, task)
    old = {section: config[section].name for section in REGISTRIES}
    if (cell, task) == tuple(old.values()):
        return config
    plain = flat(make(*old.values()).to_dict())
    options = {f"cell.{name}" for name in cells.CELLS.cls(old["cell"]).length_options}
    for path, value in flat(config.to_dict()).items():
        section = path.split(".")[0]
        stays = old[section] == new[section].name if section in old else True
        if path == "chrono" and old["cell"] != cell:  # of the old cell's own options
            stays = not any(effects.value(config, option) != plain[option] for option in options)
        if value != plain[path] and (stays or path == "cell.hidden_size"):
            set_field(new, path, value)
    precedence.settle(new)
    return new


def freeze(config: ConfigDict) -> RunConfig:
    """The frozen, checked description of a run.

    Raises:
      ValueError: a value that is out of range.
    """
    return RunConfig.from_dict(config.to_dict())
