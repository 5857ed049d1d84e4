"""Batches of tasks, each program compiled once for all tests; as NumPy arrays, of which a part needs none."""

import functools

import jax
import numpy as np

from compiling import jit

KEY = jax.random.key(0)
SIZE = 16


@functools.partial(jit, static_argnums=0)
def _train_batch(task, data, key, step):
    return task.train_batch(data, key, step, SIZE)


@functools.partial(jit, static_argnums=(0, 2, 4))
def _eval_batch(task, data, split, index, batch_size):
    return task.eval_batch(data, split, index, batch_size)


def train_batch(task, data, key, step):
    return jax.tree.map(np.asarray, _train_batch(task, data, key, step))


def eval_batch(task, data, split, index, batch_size=SIZE):
    return jax.tree.map(np.asarray, _eval_batch(task, data, split, index, batch_size))


@functools.partial(jit, static_argnums=(0, 1))
def padded_sample(task, count, values):
    return task.sample(KEY, count, **values)


def sample(task, count):
    """Examples of a generated task, made as a program makes them, and cut to their real length."""
    values, time = task.load(), task.spec({}).time
    real = task.real_length(**values) if values else time
    xs, ys, *counted = map(np.asarray, padded_sample(task.static(), count, values))
    assert not any(x[:, real:].any() for x in counted if x.ndim > 1)
    return [x[:, :real] if x.ndim > 1 and x.shape[1] == time else x for x in (xs, ys, *counted)]


def same(a, b):
    """Whether two are the same arrays; what they mean may be called otherwise."""
    a, b = ({k: v for k, v in x.items() if k != "meaning"} if isinstance(x, dict) else x for x in (a, b))
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def cut(batch, *place):
    return jax.tree.map(lambda x: x[place], batch)


def evaluate(task, data, split, batch_size=SIZE):
    """All batches of a split, and one more, as one batch of NumPy arrays."""
    batches = -(-task.eval_size(data, split) // batch_size) + 1
    parts = [eval_batch(task, data, split, i, batch_size) for i in range(batches)]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
