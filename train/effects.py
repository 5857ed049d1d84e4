"""Which options have no effect, and what overrules them: an option acts, or it is refused."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from train import tasks

STAYS = object()
SCHEDULE_FREE = "schedule_free_adamw"
DECAYING = ("adamw", "muon", SCHEDULE_FREE)  # weights


class Rule(NamedTuple):
    """`option` has no effect where `overrules`, of the values of the option `by` and of its own, holds.

    off: the value of `by` that gives way to `option`; STAYS: it does not give way.
    """

    option: str
    by: str
    overrules: Callable[[Any, Any], bool]
    off: Any = STAYS

    def applies(self, config) -> bool:
        """Whether it does so in a RunConfig or ConfigDict."""
        return self.overrules(value(config, self.by), value(config, self.option))

    def line(self, config) -> str:
        """What a user is told."""
        option, by = (f"config.{path}={value(config, path)!r}" for path in (self.option, self.by))
        return f"{option} has no effect: {by} overrules it"


def value(config, path: str):
    """A field of a RunConfig or ConfigDict, by its path."""
    return functools.reduce(getattr, path.split("."), config)


def _task(name: str) -> type:
    return tasks.TASKS.table.get(name, tasks.Task)


# The values: first that of `by`, then that of the option. One that asks for nothing is not overruled.
RULES = (
    Rule("optim.learning_rate", "optim.learning_rates", lambda rates, _: bool(rates), off=()),
    Rule("optim.optimizer", "optim.weight_decay", lambda decay, name: name == "adamw" and not decay),
    Rule("optim.weight_decay", "optim.optimizer", lambda name, decay: decay and name not in DECAYING),
    Rule("optim.momentum", "optim.optimizer", lambda name, _: name != "sgd"),
    Rule("optim.schedule", "optim.optimizer", lambda name, way: name == SCHEDULE_FREE and way != "constant"),
    Rule("optim.final_fraction", "optim.optimizer", lambda name, _: name == SCHEDULE_FREE),
    Rule("optim.final_fraction", "optim.schedule", lambda name, _: name == "constant"),
    Rule("model.connection", "model.block", lambda block, way: block != "bare" and way != "none"),
    Rule("model.layer_norm", "model.block", lambda block, way: block != "bare" and way != "none"),
    Rule("model.embedding_size", "model.block", lambda block, size: block != "bare" and size),
    Rule("model.conv_width", "model.block", lambda block, _: block != "gated"),
    Rule("model.mlp_expansion", "model.block", lambda block, _: block != "gated"),
    Rule("model.variational", "model.dropout", lambda rate, masks: masks and not rate),
    Rule("train.race", "train.stop_when_solved", lambda stops, race: race and not stops),
    Rule("train.to_beat", "train.race", lambda race, steps: steps and not race),
    # Where a task's options or data decide, `train.resolve` does.
    Rule("model.pooling", "task.name", lambda name, way: way != "task" and _task(name).per_step is True),
    Rule("model.embedding_scale", "task.name", lambda name, _: _task(name).input_kind == "features"),
    Rule("cell.hidden_size", "parameters", lambda budget, _: bool(budget), off=0),
)


def refuse(config, *sections: str) -> None:
    """Refuses an option of these sections that is not at its default and has no effect.

    Args:
      config: what has the sections, and those of what may overrule an option there; rules of others are left.

    Raises:
      ValueError: with what overrules it.
    """
    for rule in RULES:
        section, option = rule.option.split(".")
        if section in sections and hasattr(config, rule.by.split(".")[0]) and rule.applies(config):
            default = getattr(config, section).__dataclass_fields__[option].default
            if value(config, rule.option) != default:
                raise ValueError(rule.line(config))


def rules(cell: type) -> Iterator[Rule]:
    """RULES, and those of a cell's options for the length of its task."""
    yield from RULES
    options = cell.length_options
    for option in options:
        yield Rule(f"cell.{option}", "chrono", lambda chrono, _: chrono == "task", off="cell")
    for option in options if "chrono" in options else ():
        if option != "chrono":
            yield Rule(f"cell.{option}", "cell.chrono", lambda chrono, _: chrono is not None, off=None)
