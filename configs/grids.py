"""Sweeps: cells times tasks times values of fields, and no two names for the same run."""

import collections
import dataclasses
import itertools

from ml_collections import ConfigDict

import cells
import configs
from configs import files
from configs.overrides import UnknownFieldError, literal
from train.config import RunConfig
from train.resolve import for_task, resolve
from train.tasks import DataError

NOT_SHARED = {
    "cell.name": "--cells=...",
    "task.name": "--tasks=...",
    "label": "--cells=..., whose texts are the labels",
}


def sweep(
    name: str,
    cell_names: list[str] | None = None,
    task_names: list[str] | None = None,
    overrides: dict[str, str] | None = None,
    data_dir: str | None = None,
    vary: dict[str, list] | None = None,
) -> dict[str, ConfigDict]:
    """The runs of a sweep file (such as `configs/sweeps/compare.py`), by a name each.

    Args:
      name: file or name of the sweep; it defines CELLS, TASKS and SHARED, and perhaps VARY, and TUNED: of a
        task of just this text, and of a cell of this text or name, sections of their own.
      cell_names, task_names: instead of the sweep's; options follow a name after colons, as in
        "gru:reset_after=true", and are part of the run's label. "all" among the cells: `all_cells`.
      overrides: as for `apply`; each must act in one run at least, and is left out where it does not.
      data_dir: folder of the real data sets.
      vary: fields and the values that each takes, in all combinations: instead of the sweep's for that field.

    Raises:
      ValueError: unknown sweep, cell, task, option or field, with the nearest name; options that exclude each
        other; two labels for the same run.
    """
    module, overrides = files.module(name), overrides or {}
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
    for path in overrides.keys() & NOT_SHARED.keys():
        raise ValueError(f"config.{path} is not for a comparison; use {NOT_SHARED[path]}")
    vary = {path: list(values) for path, values in getattr(module, "VARY", {}).items()} | (vary or {})
    for path, values in vary.items():
        if path in overrides or path in NOT_SHARED:
            raise ValueError(f"config.{path} is set twice: it varies in this sweep")
        if not values or len(set(map(str, values))) < len(values):
            raise ValueError(f"config.{path} varies over {values}: name different values")
    runs, refusals = {}, {path: [] for path in overrides}
    points = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    for task_text, cell_text, point in itertools.product(task_names, cell_names, points):
        (cell, cell_options), (task, task_options) = with_options(cell_text), with_options(task_text)
        config = configs.make(cell, task, **module.SHARED)
        configs.update(config, module.TASKS.get(task, {}))
        tuned = getattr(module, "TUNED", {}).get(task_text, {})
        configs.update(config, tuned.get(cell_text, tuned.get(cell, {})))
        own = configs.flat({"cell": cell_options, "task": task_options})
        for path in own.keys() & point.keys():
            raise ValueError(f"config.{path} is set twice: after a name, {own[path]!r}, and it varies")
        config = _overridden(config, own | point, overrides, refusals)
        config.label = cell_text
        at = [f"{path.split('.')[-1]}={value}" for path, value in point.items()]
        runs["-".join([task_text, cell_text, *at]).replace(":", "_").replace("/", "_")] = config
    for told in refusals.values():
        if len(told) == len(runs):
            raise told[0]
    frozen = {name: configs.freeze(config) for name, config in runs.items()}
    distinct(frozen, data_dir)
    _check_seeds(frozen)
    return runs


def _check_seeds(runs: dict[str, RunConfig]) -> None:
    """Refuses runs that are the same but for their first seed, and have seeds in common: a table of results
    would count those twice."""
    alike = collections.defaultdict(list)
    for name, run in runs.items():
        same = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=0))
        alike[repr(same)].append((run.train.seed, name))
    for group in alike.values():
        group.sort()
        for (first, name), (second, other) in itertools.pairwise(group):
            if second < first + runs[name].train.seeds:
                raise ValueError(
                    f"{name} and {other} have seed {second} in common; with "
                    f"config.train.seeds={runs[name].train.seeds} vary config.train.seed in steps of that"
                )


def _overridden(config, own: dict, shared: dict, refusals: dict):
    """The config with a run's own options and those of the shared ones that act in it; the others' refusals
    are noted."""
    for path in own.keys() & shared.keys():
        raise ValueError(f"config.{path} is set twice: after a name, {own[path]!r}, and by --config.{path}")
    shared = dict(shared)
    while True:
        try:
            return configs.with_fields(config, own | shared)
        except UnknownFieldError as refusal:
            if refusal.path not in shared:
                raise
            refusals[refusal.path].append(refusal)
            del shared[refusal.path]


def distinct(runs: dict[str, RunConfig], data_dir: str | None = None) -> None:
    """Refuses two names for one run.

    Args:
      runs: by label or name.
      data_dir: folder of the real data sets.

    Raises:
      ValueError: two of them are the same model on the same task, trained in the same way.
    """
    alike = collections.defaultdict(list)
    for name, run in runs.items():
        alike[repr(_around(run))].append((name, run))
    for group in alike.values():
        for (name, run), (other_name, other) in itertools.combinations(group, 2):
            if _same_cell(run, other, data_dir):
                raise ValueError(f"{name} and {other_name} are the same run; leave one of them out")


def _around(run: RunConfig):
    """All of a run but its cell, of which only what neither the length of a task nor a budget gives."""
    options = _options(run.cell, "hidden_size", *run.cell.length_options)
    return options, run.task, run.model, run.optim, run.train


def _same_cell(run: RunConfig, other: RunConfig, data_dir) -> bool:
    if (run.cell, run.parameters, run.chrono) == (other.cell, other.parameters, other.chrono):
        return True
    try:
        data = run.task.load(data_dir)
    except DataError:
        return False  # neither will run
    a, b = (for_task(config, run.task.spec(data)) for config in (run, other))
    if _options(a, "hidden_size") != _options(b, "hidden_size"):
        return False
    if run.parameters and run.parameters == other.parameters:
        return True
    return resolve(run, data)[0].cell == resolve(other, data)[0].cell


def _options(cell: cells.Cell, *but: str) -> dict:
    options = {"name": cells.CELLS.name_of(cell), **dataclasses.asdict(cell)}
    return {name: value for name, value in options.items() if name not in but}


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
        if field in options:
            raise ValueError(f"{text!r} says {field} twice")
        options[field] = literal(value)
    return name, options
