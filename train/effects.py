"""Which options have no effect, and what overrules them: an option acts, or it is refused."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from train import tasks

STAYS = object()


class Rule(NamedTuple):
    """`option` has no effect where `overrules` holds of the value of the option `by`.

    off: the value of `by` that gives way to `option`; STAYS: it does not give way.
    none: the value of `option` that asks for nothing, so that nothing can overrule it.
    """

    option: str
    by: str
    overrules: Callable[[Any], bool]
    off: Any = STAYS
    none: Any = STAYS

    def applies(self, config) -> bool:
        """Whether it does so in a RunConfig or ConfigDict."""
        return self.overrules(value(config, self.by)) and value(config, self.option) != self.none

    def line(self, config) -> str:
        """What a user is told."""
        option, by = (f"config.{path}={value(config, path)!r}" for path in (self.option, self.by))
        return f"{option} has no effect: {by} overrules it"


def value(config, path: str):
    """A field of a RunConfig or ConfigDict, by its path."""
    return functools.reduce(getattr, path.split("."), config)


def _task(name: str) -> type:
    return tasks.TASKS.table.get(name, tasks.Task)


RULES = (
    Rule("optim.learning_rate", "optim.learning_rates", bool, off=()),
    Rule("optim.weight_decay", "optim.optimizer", lambda name: name != "adamw", none=0.0),
    Rule("optim.momentum", "optim.optimizer", lambda name: name != "sgd"),
    Rule("optim.final_fraction", "optim.schedule", lambda name: name == "constant"),
    Rule("model.variational", "model.dropout", lambda rate: not rate, none=False),
    Rule("model.pooling", "task.name", lambda name: _task(name).per_step, none="task"),
    Rule("model.embedding_scale", "task.name", lambda name: _task(name).input_kind == "features"),
    Rule("cell.hidden_size", "parameters", bool, off=0),
)


def rules(cell: type) -> Iterator[Rule]:
    """RULES, and those of a cell's options for the length of its task."""
    yield from RULES
    options = cell.length_options
    for option in options:
        yield Rule(f"cell.{option}", "chrono", lambda value: value == "task", off="cell")
    for option in options if "chrono" in options else ():
        if option != "chrono":
            yield Rule(f"cell.{option}", "cell.chrono", lambda value: value is not None, off=None)
