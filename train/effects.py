"""Which options have no effect, and what overrules them: an option acts, or it is refused."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import cells
from train import tasks
from train.timescale import length_options

STAYS = object()


class Rule(NamedTuple):
    """`option` has no effect where `overrules` holds of the value of the option `by`.

    off: the value of `by` that gives way to `option`; STAYS: it does not give way.
    """

    option: str
    by: str
    overrules: Callable[[Any], bool]
    off: Any = STAYS


def _task(name: str) -> type:
    return tasks.TASKS.table.get(name, tasks.Task)


RULES = (
    Rule("optim.learning_rate", "optim.learning_rates", bool, off=()),
    Rule("optim.weight_decay", "optim.optimizer", lambda name: name != "adamw"),
    Rule("optim.momentum", "optim.optimizer", lambda name: name != "sgd"),
    Rule("optim.final_fraction", "optim.schedule", lambda name: name == "constant"),
    Rule("model.variational", "model.dropout", lambda rate: not rate),
    Rule("model.pooling", "task.name", lambda name: _task(name).per_step),
    Rule("model.embedding_scale", "task.name", lambda name: _task(name).input_kind == "features"),
    Rule("cell.hidden_size", "parameters", bool, off=0),
)


def rules(cell: type) -> Iterator[Rule]:
    """RULES, and those of a cell's options for the length of its task."""
    yield from RULES
    options = length_options(cell)
    for option in options:
        yield Rule(f"cell.{option}", "chrono", lambda value: value == "task", off="cell")
    for option in options if "chrono" in options else ():
        if option != "chrono":
            yield Rule(f"cell.{option}", "cell.chrono", lambda value: value is not None, off=None)


def value(config, path: str):
    """A field of a RunConfig or ConfigDict, by its path."""
    return functools.reduce(getattr, path.split("."), config)


def refusal(option: str, option_value, by: str | None, by_value=None) -> str:
    """The line that says what overrules an option."""
    why = f"config.{by}={by_value!r} overrules it" if by else "it changes neither parameters nor outputs"
    return f"config.{option}={option_value!r} has no effect: {why}"


# --- of a cell's own options, one may overrule another: its program tells


def without_effect(cell: cells.Cell) -> dict[str, str | None]:
    """The options that are not at their default and change nothing, each with the option that overrules it
    (None: no single one does)."""
    changed = [f.name for f in dataclasses.fields(cell) if f.name != "hidden_size" and _changed(cell, f.name)]
    idle = [option for option in changed if not _acts(cell, option)]
    return {option: next((by for by in changed if _overrules(cell, by, option)), None) for option in idle}


def same_cell(a: cells.Cell, b: cells.Cell) -> bool:
    """Whether two cells have the same initial parameters and do the same, whatever their options say."""
    return a == b or (type(a) is type(b) and a.hidden_size == b.hidden_size and _same_programs(a, b))


def default(section, option: str):
    """What a field of a dataclass is where nobody sets it."""
    return section.__dataclass_fields__[option].default


def _changed(cell, option):
    return getattr(cell, option) != default(cell, option)


def _acts(cell, option):
    try:
        return not _same_programs(cell, dataclasses.replace(cell, **{option: default(cell, option)}))
    except ValueError:  # not without this one
        return True


def _overrules(cell, by, option):
    if by == option:
        return False
    try:
        return _acts(dataclasses.replace(cell, **{by: default(cell, by)}), option)
    except ValueError:
        return False


@functools.lru_cache(maxsize=1024)
def _same_programs(a, b):
    return all(text(a) == text(b) for text in (_init_and_step, _scans))


@functools.lru_cache(maxsize=256)
def _init_and_step(cell) -> str:
    def run(key, xs):
        params = cell.init(key, xs.shape[-1])
        return params, cell.step(params, cell.initial_carry(1), xs)

    # An input as wide as the state may need no projection.
    return "".join(_text(run, size) for size in (cell.hidden_size, cell.hidden_size + 1))


@functools.lru_cache(maxsize=256)
def _scans(cell) -> str:
    def run(strategy):
        return lambda key, xs: cells.scan(
            cell, cell.init(key, xs.shape[-1]), jnp.broadcast_to(xs[:, None], (1, 1000, xs.shape[-1])),
            strategy=strategy,
        )  # fmt: skip

    return "".join(_text(run(strategy), cell.hidden_size + 1) for strategy in cells.strategies(cell))


def _text(f, size):
    """The program of f(key, xs) as text, without the addresses of functions in it."""
    traced = jax.make_jaxpr(f)(jax.random.key(0), jnp.zeros((1, size)))
    return re.sub(r"0x[0-9a-f]+", "", f"{traced} {traced.consts}")
