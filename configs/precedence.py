"""Where two settings exclude each other: the later one stands, and two made at once are refused.

A config is set in layers: a cell's and a task's defaults, the task's recipe, a file (one call of
`configs.make`), the user's flags. Of what one layer names every option acts, or its line says what overrules
it; what an earlier layer said gives way. So a config says in its own fields what was asked, and two that are
equal ask for the same.
"""

from ml_collections import ConfigDict

import cells
from configs.overrides import UnknownFieldError, set_field
from train import effects, tasks
from train.config import OptimConfig, TrainConfig
from train.model import ModelConfig

HIDDEN_SIZE = 64
SECTIONS = {"model": ModelConfig, "optim": OptimConfig, "train": TrainConfig}


class NoEffectError(UnknownFieldError):
    """An option does nothing in this config."""


def set_fields(config: ConfigDict, fields: dict) -> None:
    """Sets the fields of one layer, {"task.gap": 50}, each checked; values may be text.

    Raises:
      UnknownFieldError: no such field, or (NoEffectError) one that does nothing here.
      ValueError: a value of the wrong type, or two fields that exclude each other.
    """
    for path, value in fields.items():
        set_field(config, path, value)
    settle(config, set(fields))


def settle(config: ConfigDict, named: set[str] = frozenset()) -> None:
    """Applies the rules of `train.effects` after a layer that named these fields."""
    for rule in effects.rules(cells.CELLS.cls(config.cell.name)):
        by = effects.value(config, rule.by)
        if not rule.overrules(by):
            continue
        if rule.option not in named:
            set_field(config, rule.option, default(config, rule.option))
        elif rule.by not in named and rule.off is not effects.STAYS:
            set_field(config, rule.by, rule.off)
        else:
            _refuse(config, named, rule.option, rule.by)
    for option, by in _cell_options_without_effect(config).items():
        if f"cell.{option}" in named:
            _refuse(config, named, f"cell.{option}", by and f"cell.{by}")
        set_field(config, f"cell.{option}", default(config, f"cell.{option}"))


def default(config: ConfigDict, path: str):
    """What a field is where nobody sets it."""
    section, field = path.split(".")
    if path == "cell.hidden_size":
        return HIDDEN_SIZE
    registries = {"cell": cells.CELLS, "task": tasks.TASKS}
    owner = registries[section].cls(config[section].name) if section in registries else SECTIONS[section]
    return effects.default(owner, field)


def _refuse(config, named, option, by):
    line = effects.refusal(option, effects.value(config, option), by, by and effects.value(config, by))
    raise ValueError(line) if by in named else NoEffectError(option, line)


def _cell_options_without_effect(config) -> dict:
    options = config.cell.to_dict()
    cls = cells.CELLS.cls(options.pop("name"))
    if all(name == "hidden_size" or value == effects.default(cls, name) for name, value in options.items()):
        return {}
    try:
        return effects.without_effect(cls(**options))
    except (ValueError, TypeError):
        return {}  # `freeze` tells what is wrong with it
