"""Runs on the tasks of the atlas: a column's config for a cell, tuned and then trained."""

import configs
from experiments.lab import runs, tuning
from experiments.lab.needs import Column
from train.config import RunConfig

# Bare, all see embedded inputs of one size: else a cell without recurrent matrix were all embedding.
FORMS = {
    "bare": {"embedding_size": 32},
    "block": {"block": "gated", "mlp_expansion": 0},
}


def config(column: Column, cell: str, form: str, shorter: int = 1) -> RunConfig:
    """The run of a cell, in one of FORMS, without learning rate and seeds; `shorter` divides its budget."""
    task, options = configs.with_options(column.task)
    train = dict(column.train)
    for name in ("steps", "eval_every"):
        train[name] = max(1, train[name] // shorter)
    return runs.config(
        cell,
        task,
        task=options,
        model={"depth": 1, "dropout": 0.0} | column.model | FORMS[form],
        train=train,
        parameters=column.parameters,
        chrono="task" if column.told else "cell",
    )


def tuned_and_trained(train, name: str, make, cell: str, settings) -> tuple[list[dict], list[dict]]:
    """The rows of all trials, and of the seeds that count; arguments as for `tuning.tuned`."""
    trials, final = tuning.tuned(train, name, make, cell, settings)
    picked = next(row for row in trials if row["picked"])
    shared = {name: picked[name] for name in ("trial", "higher_is_better", "stops", "inside")}
    return trials, [shared | row for row in train(name, final)]
