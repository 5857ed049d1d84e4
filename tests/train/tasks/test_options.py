"""The law of options, over every option of every task: it acts, or it is refused."""

import hashlib

import jax
import numpy as np
import pytest

import configs
from batches import KEY
from cells.registry import options
from other_values import accepted, others
from train import tasks

# Options that several tasks share act in `arrays`.
SHARED = pytest.mark.slow
TASK_OPTIONS = [
    pytest.param(name, option, marks=[SHARED] * (name == "series" and option != "dataset"))
    for name in tasks.names()
    for option in options(tasks.TASKS.cls(name))
]
# Where an option acts, if it does not beside the defaults.
WHERE = {
    **{("text", option): {"task.length": "8"} for option in ("dataset", "path", "length", "valid_limit")},
    ("arrays", "horizon"): {"task.answer": "forecast"},
    ("arrays", "split_by"): {"task.answer": "class_per_step"},
    ("arrays", "loss"): {"task.answer": "number"},
    ("mnist", "permutation_seed"): {"task.permuted": "true"},
    ("sentence", "phrases"): {"task.dataset": "sst2"},
    ("series", "horizon"): {"task.answer": "forecast"},
    ("series", "loss"): {"task.answer": "forecast"},
    ("word_problem", "tokens"): {"task.group": "s3"},  # the elements of z2 are its generators
}
# Files, and data that take no time.
SMALL = {
    "arrays": {"task.path": "own.csv"},
    "documents": {"task.path": "texts"},
    "listops": {"task.train_examples": "20", "task.eval_examples": "4"},
}
# What cannot be read off the line that refuses another value.
VALUES = {
    ("arrays", "path"): ["own.npz"],
    ("arrays", "sequence"): ["other"],
    ("arrays", "step"): ["back"],
    ("arrays", "target"): ["kind"],
    ("arrays", "features"): ["x"],
    ("documents", "path"): ["notes"],
    **{(name, "class_weights"): ["1,2,0.5", "1,2"] for name in ("arrays", "documents", "series")},
    **{(name, "ignore_label"): ["1"] for name in ("arrays", "series")},
    **{
        (name, f"{split}_fraction"): ["0.3"]
        for name in ("arrays", "documents", "series")
        for split in ("valid", "test")
    },
}
# Here one value is right, and all others are refused.
ONE_VALUE = {("permuted_mnist", "permuted"), ("series", "test_fraction"), ("series", "times")}
ONE_VALUE |= {("series", "split_by"), ("text", "path")}


@pytest.mark.parametrize("name, option", TASK_OPTIONS)
def test_every_option_of_a_task_acts(name, option, made_up):
    where = SMALL.get(name, {}) | WHERE.get((name, option), {})
    config = configs.apply(configs.make("rnn", name), where)
    values = VALUES.get((name, option)) or others(tasks.TASKS.cls(name), option, config.task[option])
    changed = list(accepted(config, f"task.{option}", values))
    acting = any(differ(config, other, made_up) for other in changed)
    assert acting if changed else (name, option) in ONE_VALUE


def differ(config, other, folder) -> bool:
    """Whether two runs get something different from their tasks; False where the other gets nothing."""
    try:
        return any(a != b for a, b in zip(made_of(config, folder), made_of(other, folder), strict=True))
    except (tasks.DataError, ValueError):
        return False


def made_of(config, folder):
    """All that a run gets from its task: data, sizes, and the programs that make batches, as text."""
    task = configs.freeze(config).task
    data = task.load(folder)
    leaves = jax.tree.leaves_with_path(data)
    yield [(path, x.shape, hashlib.sha256(np.ascontiguousarray(x)).hexdigest()) for path, x in leaves]
    yield task.eval_size(data, "test")
    for make in (
        lambda data, step: task.train_batch(data, KEY, step, 4),
        lambda data, step: task.eval_batch(data, "test", step, 4),
    ):
        program = jax.make_jaxpr(make)(data, 0)
        yield f"{program} {program.consts}"
    yield task.spec(data)
