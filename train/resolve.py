"""What was asked becomes what is run: the task's length, its data and the budget fill in the rest."""

import dataclasses

import cells
from train.config import RunConfig
from train.model import Model, build
from train.sizes import matched_hidden_size
from train.tasks.base import Spec


def resolve(config: RunConfig, data) -> tuple[RunConfig, Spec, Model]:
    """Fills in what follows from the task, its data and the parameter budget, and builds the model.

    Raises:
      ValueError: the budget cannot be met, or the model does not fit the task.
    """
    spec = config.task.spec(data)
    cell = for_task(config, spec)
    if config.parameters:
        name = cells.CELLS.name_of(cell)
        options = dataclasses.asdict(cell)
        options.pop("hidden_size")
        hidden_size = matched_hidden_size(name, options, spec, config.model, config.parameters)
        cell = dataclasses.replace(cell, hidden_size=hidden_size)
    return dataclasses.replace(config, cell=cell), spec, build(cell, spec, config.model)


def for_task(config: RunConfig, spec: Spec) -> cells.Cell:
    """The cell, told the length of its task where the config says so; its size is as asked."""
    return config.cell.for_length(spec.time) if config.chrono == "task" else config.cell


def pinned(config: RunConfig, strategy: str, seed_batching: str, batch_devices: int) -> RunConfig:
    """A resolved config with nothing left to resolve, by its task, its budget or the machine."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, strategy=strategy),
        train=dataclasses.replace(config.train, seed_batching=seed_batching, batch_devices=batch_devices),
        parameters=0,
        chrono="cell",
    )
