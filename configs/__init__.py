"""Configs: the defaults of every cell and task, recipes of the tasks, files that build on them.

A config is an `ml_collections.ConfigDict` with the sections of `train.config.RunConfig` until
`freeze` makes it one. A file in this folder defines `get_config()`.
"""

import ast
import dataclasses
import importlib.util
import json
import types
import typing
from pathlib import Path

import ml_collections
from ml_collections import config_dict

import cells
from cells.registry import nearest
from configs.recipes import RECIPES
from train import tasks
from train.config import OptimConfig, RunConfig, TrainConfig
from train.model import ModelConfig


class UnknownFieldError(ValueError):
    """A config has no such field."""


FOLDER = Path(__file__).parent
HIDDEN_SIZE = 64


def _fields(cls, **values) -> ml_collections.ConfigDict:
    """The options of a dataclass with their defaults; None becomes an empty field of its type."""
    section = ml_collections.ConfigDict()
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        default = values.get(field.name, field.default)
        if default is None or default is dataclasses.MISSING:
            kinds = [kind for kind in typing.get_args(hints[field.name]) or (hints[field.name],)]
            default = config_dict.placeholder(next(kind for kind in kinds if kind is not types.NoneType))
        section[field.name] = default
    return section


def _named(registry, name, **values) -> ml_collections.ConfigDict:
    section = ml_collections.ConfigDict({"name": name})
    section.update(_fields(registry.cls(name), **values))
    return section


def make(cell: str = "sru", task: str = "delayed_recall", /, **sections) -> ml_collections.ConfigDict:
    """The default config of a cell on a task: the task's recipe, then `sections`.

    Args:
      cell, task: registered names.
      sections: by keyword, e.g. `task={"gap": 50}, train={"steps": 500}, parameters=10_000`.

    Raises:
      ValueError: unknown cell, task or field, or a value of the wrong type.
    """
    config = ml_collections.ConfigDict(
        {
            "cell": _named(cells.CELLS, cell, hidden_size=HIDDEN_SIZE),
            "task": _named(tasks.TASKS, task),
            "model": _fields(ModelConfig),
            "optim": _fields(OptimConfig),
            "train": _fields(TrainConfig),
            "parameters": 0,
            "chrono": "task",
            "label": "",
        }
    )
    update(config, RECIPES.get(task, {}))
    update(config, sections)
    return config


def update(config, sections: dict) -> None:
    """Sets the fields of a nested dict, each checked."""
    for section, value in sections.items():
        for field, item in value.items() if isinstance(value, dict) else [("", value)]:
            _set(config, f"{section}.{field}".strip("."), item)


def load(name: str) -> ml_collections.ConfigDict:
    """A config by file (`configs/sru.py`), by name (`sru`), or as a run saved it (`runs/x/config.json`).

    Raises:
      ValueError: nothing of that name, with the nearest one, or a file that does not define a config.
    """
    if name.endswith(".json"):
        return _from_json(Path(name))
    if name in cells.names() and not (FOLDER / f"{name}.py").is_file():
        return make(name)
    module = _module(name)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{name} does not define get_config()")
    return module.get_config()


def _module(name: str):
    """The Python file of a config or sweep, by path or by name."""
    path = Path(name)
    if path.suffix != ".py":
        path = FOLDER / f"{name}.py"
    if not path.is_file():
        path = FOLDER / path.name  # `configs/sru.py` from outside the repository
    if not path.is_file():
        raise ValueError(f"no config {name!r}; {nearest(path.stem, names())}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names() -> list[str]:
    """The configs that `load` knows by name."""
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "recipes"}
    return sorted(files | set(cells.names()))


def _from_json(path: Path) -> ml_collections.ConfigDict:
    try:
        saved = json.loads(path.read_text())
        cell, task = (saved[section].pop("name") for section in ("cell", "task"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a saved config: {type(error).__name__}: {error}") from None
    return make(cell, task, **saved)


def apply(config: ml_collections.ConfigDict, overrides: dict[str, str]) -> ml_collections.ConfigDict:
    """The config with fields replaced: {"task.length": "400"}. Values are Python literals or words.

    A new `cell.name` or `task.name` comes with its own options and recipe; the other options that
    `config` gave to the old one are dropped.

    Raises:
      ValueError: unknown field (with the nearest one), or a value of the wrong type.
    """
    overrides = dict(overrides)
    swap = {}
    for section, registry in (("cell", cells.CELLS), ("task", tasks.TASKS)):
        name = overrides.pop(f"{section}.name", config[section].name)
        registry.cls(name)
        if name != config[section].name:
            swap[section] = name
    if swap:
        old, plain = config, make(config.cell.name, config.task.name)
        config = make(swap.get("cell", old.cell.name), swap.get("task", old.task.name))
        for section, value in old.items():
            if section in swap:
                if section == "cell":
                    config.cell.hidden_size = old.cell.hidden_size
            elif isinstance(value, ml_collections.ConfigDict):
                # What the file itself said goes along; what was the old task's recipe does not.
                for field, item in value.items():
                    if item != plain[section][field]:
                        config[section][field] = item
            elif value != plain[section]:
                config[section] = value
    else:
        config = config.copy_and_resolve_references()
    for path, text in overrides.items():
        _set(config, path, literal(text))
    return config


def literal(text):
    """What a flag's text says: a number, True, None, a tuple, else the text; no text is left as it is."""
    if not isinstance(text, str):
        return text
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _set(config, path: str, value) -> None:
    """Sets one field, checking its name and type."""
    section = config
    *parents, field = path.split(".")
    for depth, name in enumerate([*parents, field]):
        if not isinstance(section, ml_collections.ConfigDict) or name not in section:
            where = ".".join(["config", *path.split(".")[:depth]])
            known = section if isinstance(section, ml_collections.ConfigDict) else []
            named = f" of {section.name!r}" if "name" in known else ""
            raise UnknownFieldError(f"{where}{named} has no field {name!r}; {nearest(name, known)}")
        if depth < len(parents):
            section = section[name]
    if isinstance(section[field], ml_collections.ConfigDict):
        raise ValueError(f"config.{path} is a section; set one of its fields: {', '.join(section[field])}")
    kind = section.get_type(field)
    if kind is str and value is not None:
        value = str(value)
    if kind is tuple and not isinstance(value, str | None):
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(value, bool) is not (kind is bool) and value is not None:
        raise ValueError(f"config.{path} must be {kind.__name__}, got {value!r}")
    try:
        section[field] = value
    except (TypeError, ValueError):
        raise ValueError(f"config.{path} must be {kind.__name__}, got {value!r}") from None


def freeze(config: ml_collections.ConfigDict) -> RunConfig:
    """The frozen, checked description of a run.

    Raises:
      ValueError: a value that is out of range.
    """
    return RunConfig.from_dict(config.to_dict())


def sweep(
    name: str,
    cell_names: list[str] | None = None,
    task_names: list[str] | None = None,
    overrides: dict[str, str] | None = None,
) -> dict[str, ml_collections.ConfigDict]:
    """The runs of a sweep file (such as `configs/compare.py`), by a name each.

    Args:
      name: file or name of the sweep; it defines CELLS, TASKS and SHARED.
      cell_names, task_names: instead of the sweep's; options follow a name after colons, as in
        "gru:reset_after=true", and are part of the run's label. "all" among the cells: `all_cells`.
      overrides: as for `apply`; each must fit one run at least, and is left out where it does not.

    Raises:
      ValueError: unknown sweep, cell, task, option or field, with the nearest name.
    """
    module = _module(name)
    for needed in ("CELLS", "TASKS", "SHARED"):
        if not hasattr(module, needed):
            raise ValueError(f"{name} is not a sweep: it does not define {needed}")
    task_names = list(module.TASKS) if task_names is None else task_names
    cell_names = list(module.CELLS) if cell_names is None else all_cells(cell_names)
    for kind, given in (("cells", cell_names), ("tasks", task_names)):
        if not given:
            raise ValueError(f"--{kind} names none")
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ValueError(f"--{kind} names {twice[0]!r} twice; add an option to tell them apart")
    runs = {}
    for task_text in task_names:
        for cell_text in cell_names:
            (cell, cell_options), (task, task_options) = with_options(cell_text), with_options(task_text)
            config = make(cell, task, **module.SHARED)
            for section in (module.TASKS.get(task, {}), {"cell": cell_options, "task": task_options}):
                update(config, section)
            config.label = cell_text
            runs[f"{task_text}-{cell_text}".replace(":", "_")] = config
    for path, value in (overrides or {}).items():
        if path in ("cell.name", "task.name"):
            raise ValueError(f"config.{path} is not for a comparison; use --{path.split('.')[0]}s=...")
        refusals = []
        for config in runs.values():
            try:
                _set(config, path, literal(value))
            except UnknownFieldError as refusal:
                refusals.append(refusal)
        if len(refusals) == len(runs):
            raise refusals[0]
    return runs


def all_cells(given, every=None) -> list[str]:
    """`given`, with every registered cell (or those of `every`) in the place of "all", each once."""
    every = cells.names() if every is None else every
    rest = [name for name in given if name != "all"]
    return [*(name for name in every if name not in rest), *rest] if "all" in given else list(given)


def with_options(text: str) -> tuple[str, dict]:
    """ "gru:reset_after=true" -> ("gru", {"reset_after": True})."""
    name, *given = text.split(":")
    options = {}
    for option in given:
        field, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: write an option as name=value, got {option!r}")
        options[field] = literal(value)
    return name, options
