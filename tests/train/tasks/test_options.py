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

TASK_OPTIONS = [(name, option) for name in tasks.names() for option in options(tasks.TASKS.cls(name))]
# Where an option acts, if it does not beside the defaults.
WHERE = {
    **{("text", option): {"task.length": "8"} for option in ("dataset", "path", "length", "valid_limit")},
    ("mnist", "permutation_seed"): {"task.permuted": "true"},
    ("sentence", "phrases"): {"task.dataset": "sst2"},
    ("word_problem", "tokens"): {"task.group": "s3"},  # the elements of z2 are its generators
}
# What has no other value: one that names the task, and a file.
ELSEWHERE = (("permuted_mnist", "permuted"), ("text", "path"))
SMALL = {"listops": {"task.train_examples": "20", "task.eval_examples": "4"}}


@pytest.mark.parametrize("name, option", TASK_OPTIONS)
def test_every_option_of_a_task_acts(name, option, made_up):
    where = SMALL.get(name, {}) | WHERE.get((name, option), {})
    config = configs.apply(configs.make("rnn", name), where)
    values = others(tasks.TASKS.cls(name), option, config.task[option])
    changed = list(accepted(config, f"task.{option}", values))
    before = made_of(config, made_up)
    acting = [made_of(other, made_up) != before for other in changed]
    assert any(acting) if changed else (name, option) in ELSEWHERE


def made_of(config, folder):
    """All that a run gets from its task: sizes, data, and the programs that make batches, as text."""
    task = configs.freeze(config).task
    data = task.load(folder)
    stored = [(x.shape, hashlib.sha256(np.ascontiguousarray(x)).hexdigest()) for x in jax.tree.leaves(data)]
    train = jax.make_jaxpr(lambda data, step: task.train_batch(data, KEY, step, 4))(data, 0)
    held_out = jax.make_jaxpr(lambda data, step: task.eval_batch(data, "test", step, 4))(data, 0)
    return task.spec(data), task.eval_size(data, "test"), stored, f"{train} {train.consts} {held_out}"
