"""What was asked becomes what is run: the task's length, its data and the budget fill in the rest."""

import dataclasses

import numpy as np

import cells
from train.config import RunConfig
from train.model import Model, build
from train.sizes import matched_hidden_size
from train.tasks import buckets
from train.tasks.base import InMemory, Spec


def resolve(config: RunConfig, data) -> tuple[RunConfig, Spec, Model]:
    """Fills in what follows from the task, its data and the parameter budget, and builds the model.

    Raises:
      ValueError: the budget cannot be met, or the model does not fit the task.
    """
    spec = config.task.spec(data)
    check(config, spec)
    cell = for_task(config, spec)
    if config.parameters:
        name = cells.CELLS.name_of(cell)
        options = dataclasses.asdict(cell)
        options.pop("hidden_size")
        hidden_size = matched_hidden_size(name, options, spec, config.model, config.parameters)
        cell = dataclasses.replace(cell, hidden_size=hidden_size)
    return dataclasses.replace(config, cell=cell), spec, build(cell, spec, config.model)


def check(config: RunConfig, spec: Spec) -> None:
    """Refuses what the task, which is now known, leaves without effect, and states that cannot go on.

    Raises:
      ValueError: with the option.
    """
    model, segment = config.model, config.train.segment
    if spec.per_step and model.pooling != "task":
        raise ValueError(f"config.model.pooling={model.pooling!r} has no effect: every step has an answer")
    if spec.inputs == "features" and model.embedding_scale != 1:
        raise ValueError("config.model.embedding_scale has no effect: the inputs are numbers")
    if spec.looks_ahead and model.bidirectional:
        raise ValueError("config.model.bidirectional would read the targets: the task asks for later inputs")
    if segment and not spec.per_step:
        raise ValueError(
            f"config.train.segment={segment} needs a task with a target at every step: the state is kept, "
            "gradients end at a segment's beginning, and a target after the last step would teach only that"
        )
    if segment >= spec.time:
        raise ValueError(f"config.train.segment={segment} has no effect: sequences have {spec.time} steps")
    if config.train.buckets > 1 and segment:
        raise ValueError("config.train.buckets and config.train.segment exclude each other")
    goes_on = "train.segment" if segment else "a task that reads on from batch to batch"
    if segment or spec.reads_on:
        if model.bidirectional:
            raise ValueError(f"{goes_on} and config.model.bidirectional exclude each other")
        if config.train.time_devices > 1:
            raise ValueError(f"{goes_on} and config.train.time_devices exclude each other")


def in_buckets(config: RunConfig, data):
    """The data as it is trained on, and its `train.buckets`, none where that is 1.

    Raises:
      ValueError: its rows do not differ in length.
    """
    count = config.train.buckets
    if count == 1:
        return data, ()
    train = data.get("train") if isinstance(data, dict) else None
    if not isinstance(config.task, InMemory) or "lengths" not in train or np.ptp(train["lengths"]) == 0:
        raise ValueError(f"config.train.buckets={count} has no effect: sequences are as long as each other")
    train = buckets.sort(train)
    return data | {"train": train}, buckets.plan(train["lengths"], count, config.train.batch_size)


def for_task(config: RunConfig, spec: Spec) -> cells.Cell:
    """The cell, told the length of its task where the config says so; its size is as asked."""
    longest = max(spec.time, spec.eval_time)  # what is held out may be longer than what trains
    return config.cell.for_length(longest) if config.chrono == "task" else config.cell


def pinned(
    config: RunConfig, strategy: str, seed_batching: str, batch_devices: int, data_at: str
) -> RunConfig:
    """A resolved config with nothing left to resolve, by its task, its budget or the machine."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, strategy=strategy),
        train=dataclasses.replace(
            config.train, seed_batching=seed_batching, batch_devices=batch_devices, data=data_at
        ),
        parameters=0,
        chrono="cell",
    )
