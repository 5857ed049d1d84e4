"""What was asked becomes what is run: the task's length, its data and the parameter budget fill in the rest."""

import dataclasses

import cells
from train import timescale
from train.config import RunConfig
from train.model import Model, build, matched_hidden_size
from train.tasks.base import Spec


def resolve(config: RunConfig, data) -> tuple[RunConfig, Spec, Model]:
    """Fills in what follows from the task, its data and the parameter budget, and builds the model.

    Raises:
      ValueError: the budget cannot be met, or the model does not fit the task.
    """
    spec = config.task.spec(data)
    if config.chrono == "task":
        config = dataclasses.replace(config, cell=timescale.tell(config.cell, spec.time))
    if config.parameters:
        name = cells.CELLS.name_of(config.cell)
        options = dataclasses.asdict(config.cell)
        options.pop("hidden_size")
        hidden_size = matched_hidden_size(name, options, spec, config.model, config.parameters)
        config = dataclasses.replace(config, cell=dataclasses.replace(config.cell, hidden_size=hidden_size))
    return config, spec, build(config.cell, spec, config.model)
