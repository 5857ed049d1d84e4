"""Runs on the tasks of the atlas: a column's config for a cell, tuned and then trained."""

import bisect
import dataclasses
import functools

import cells
import configs
from experiments.lab import runs, tuning
from experiments.lab.needs import Column
from train.config import RunConfig
from train.model import build
from train.resolve import for_task

# Bare, all see embedded inputs of one size: else a cell without recurrent matrix were all embedding.
BARE = {"embedding_size": 32}
FORMS = {
    "bare": BARE,
    "block": {"block": "gated", "mlp_expansion": 0},
    "state": BARE,  # with as many numbers in the state, in place of parameters
}
STATE = 128  # real numbers
UNBOUNDED = ("attention", "window", "tcn")  # what they keep is inputs


def config(column: Column, cell: str, form: str, shorter: int = 1) -> RunConfig:
    """The run of a cell, in one of FORMS, without learning rate and seeds; `shorter` divides its budget."""
    task, options = configs.with_options(column.task)
    train = dict(column.train)
    for name in ("steps", "eval_every"):
        train[name] = max(1, train[name] // shorter)
    found = runs.config(
        cell,
        task,
        task=options,
        model={"depth": 1, "dropout": 0.0} | column.model | FORMS[form],
        train=train,
        parameters=0 if form == "state" else column.parameters,
        chrono="task" if column.told else "cell",
    )
    return _of_state(found) if form == "state" else found


def _of_state(config: RunConfig) -> RunConfig:
    """With the hidden size whose state comes nearest to STATE numbers; of two, the smaller."""
    spec = config.task.spec(config.task.load())
    name, options = cells.CELLS.name_of(config.cell), dataclasses.asdict(config.cell)
    options.pop("hidden_size")
    unit = cells.CELLS.cls(name).size_multiple(**options)

    @functools.cache
    def size(multiple):
        cell = dataclasses.replace(config.cell, hidden_size=unit * multiple)
        return build(for_task(dataclasses.replace(config, cell=cell), spec), spec, config.model).state_size

    high = 1
    while size(high) < STATE:
        high *= 2
    sizes = range(high // 2, high + 1)
    multiple = sizes[bisect.bisect_left(sizes, STATE, key=size)] if high > 1 else 1
    if multiple > 1 and STATE - size(multiple - 1) <= size(multiple) - STATE:
        multiple -= 1
    return dataclasses.replace(config, cell=dataclasses.replace(config.cell, hidden_size=unit * multiple))


def tuned_and_trained(train, name: str, make, cell: str, settings) -> tuple[list[dict], list[dict]]:
    """The rows of all trials, and of the seeds that count; arguments as for `tuning.tuned`."""
    trials, final = tuning.tuned_and_trained(train, name, make, cell, settings, suffix="")
    picked = next(row for row in trials if row["picked"])
    shared = {name: picked[name] for name in ("trial", "higher_is_better", "stops", "inside")}
    return trials, [shared | row for row in final]
