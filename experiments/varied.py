"""Options that were varied among runs: they tell runs of one name apart, and are a column each.

An option was varied where runs of one task differ in it; one of a cell, where runs of that cell do. What the
recipes of tasks and the defaults of cells bring along was not.
"""

import re
from collections import Counter, defaultdict
from typing import NamedTuple

import pandas as pd

from train import effects
from train.summary import RunSummary, SeedSummary

RUN = ("run", *RunSummary.names())
SEED = tuple(name for name in SeedSummary.names() if name != "seed")
# Fields of a config that do not make another experiment.
_NOT_OPTIONS = {"name", "label", "seed", "seeds", "learning_rates"}
_NOT_OPTIONS |= {"checkpoint_seconds", "tensorboard", "logger"}
_POOLED = {"fold"}  # other data of the same experiment
_IN_TABLES = ("learning_rate", "batch_size")  # of those that runs have anyway, what tables show
_MEASURED = ("cell", "hidden_size", "strategy", "device", "devices")  # what a config left open


class Run(NamedTuple):
    """A run, or of a grid of learning rates what one of them makes."""

    columns: dict  # which `tell_apart` adds to
    options: dict  # its config, flat: {"task.gap": 100}


def tell_apart(runs: list[Run]) -> None:
    """Adds to the columns of runs every option that was varied, and to their `label` those without which two
    that differ would have the same one."""
    runs = _acting(runs)
    varied = _varied(runs, lambda run, key: (run.columns["task"], _owner(run, key)))
    short = Counter(_short(key) for key in dict.fromkeys(key for run in runs for key in run.options))
    _add_columns(runs, varied, short)
    alike = _varied(runs, lambda run, key: (run.columns["task"], run.columns["label"], _owner(run, key)))
    needed = {(key, task) for key, (task, *_) in alike}
    parts = [_parts(run, needed, varied, short) for run in runs]
    groups = defaultdict(list)
    for run, own in zip(runs, parts, strict=True):
        groups[run.columns["task"], run.columns["label"], str(own)].append((run, own))
    for group in groups.values():
        for name in _MEASURED:
            if len({str(run.columns[name]) for run, _ in group if name in run.columns}) > 1:
                for run, own in group:
                    own |= {name: run.columns[name]} if name in run.columns else {}
    for run, own in zip(runs, parts, strict=True):
        if own:
            told = ", ".join(f"{name}={text(value)}" for name, value in own.items())
            run.columns["label"] += f" ({told})"


def _acting(runs: list[Run]) -> list[Run]:
    """The runs with the options that act in them: no width of an embedding where a block sets it."""
    # Which optimizer there is acts, whatever is said of its options.
    rules = [rule for rule in effects.RULES if rule.option != "optim.optimizer"]
    asked = {
        rule.option: {repr(v): v for run in runs if (v := run.options.get(rule.option))} for rule in rules
    }

    def acts(run, rule):
        by, values = run.options.get(rule.by), asked[rule.option].values()
        return rule.by not in run.options or not any(rule.overrules(by, value) for value in values)

    idle = [{rule.option for rule in rules if not acts(run, rule)} for run in runs]
    return [
        run._replace(options={key: value for key, value in run.options.items() if key not in off})
        for run, off in zip(runs, idle, strict=True)
    ]


def _parts(run: Run, needed, varied, short) -> dict:
    """What the label of a run has to say: the needed options that were varied for it, unless it says them."""
    own = {}
    for key in sorted({key for key, task in needed if task == run.columns["task"]}):
        where = (run.columns["task"], _owner(run, key))
        if key in run.options and (key, where) in varied and _short(key) not in _POOLED:
            value, said = run.options[key], run.columns["label"].split(":")[1:]
            if not (key.startswith("cell.") and f"{_short(key)}={text(value)}" in said):
                own[_short(key) if short[_short(key)] == 1 else _whole(key)] = value
    return own


def _varied(runs: list[Run], where) -> set[tuple]:
    """(option, place) where runs of one place, `where(run, option)`, differ in it."""
    values = defaultdict(set)
    for run in runs:
        for key, value in run.options.items():
            if _short(key) not in _NOT_OPTIONS:
                values[key, where(run, key)].add(repr(value))
    return {place for place, found in values.items() if len(found) > 1}


def _add_columns(runs: list[Run], varied: set[tuple], short: Counter) -> None:
    """`gap`, or `task.gap` where another section has that name, too, or a table."""
    for key in sorted({key for key, _ in varied}):
        name = _short(key)
        if name in _IN_TABLES and all(
            run.columns.get(name) == run.options[key] for run in runs if key in run.options
        ):
            continue  # a column says it already
        taken = name in RUN or name in SEED and name != "learning_rate" or short[name] > 1
        column = _whole(key) if taken else name
        for run in runs:
            if key in run.options:
                value = run.options[key]
                run.columns[column] = str(value) if isinstance(value, list) else value


def _short(key: str) -> str:
    return key.split(".")[-1]


def _whole(key: str) -> str:
    """With its section."""
    return key if "." in key else f"config.{key}"


def _owner(run: Run, key: str) -> str | None:
    """The cell whose option it is; None: all cells share it."""
    return run.options.get("cell.name", run.columns.get("cell")) if key.startswith("cell.") else None


def text(value) -> str:
    """A value as commands take it: true, 0.003, text."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def columns(frame: pd.DataFrame, known=(*RUN, "seed", *SEED)) -> list[str]:
    """The columns of a frame that are options in which runs of one task differ.

    Args:
      known: what else has columns there.
    """
    known = {*known, *_POOLED} - {*_IN_TABLES}
    made = [name for name in frame.columns if name not in known]
    return [name for name in made if (frame.groupby("task")[name].nunique() > 1).any()]


def without(label: str, *names: str) -> str:
    """A label that does not say these options: "gru (gap=5, depth=2)" without gap is "gru (depth=2)"."""
    head, bracket, told = label.partition(" (")
    of_cell = {name.removeprefix("cell.") for name in names}
    first, *parts = head.split(":")
    head = ":".join([first, *(part for part in parts if part.split("=")[0] not in of_cell)])
    if not bracket:
        return head
    parts = re.split(r", (?=[\w.]+=)", told.removesuffix(")"))
    left = ", ".join(part for part in parts if not _says(part.split("=")[0], names))
    return f"{head} ({left})" if left else head


def _says(key: str, names) -> bool:
    """Whether an option in brackets is one of these: either may have its section."""
    return key in names or any(key == _short(name) or _short(key) == name for name in names)


def in_order(labels) -> list[str]:
    """Sorted, each once, with numbers by their size: "gap=5" before "gap=10"."""

    def key(label):
        parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", label)
        return [float(part) if i % 2 else part for i, part in enumerate(parts)]

    return sorted(set(labels), key=key)
