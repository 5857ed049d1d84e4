"""The optimiser step of one seed, and its evaluation: pure functions of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from train import metrics
from train.config import RunConfig
from train.model import Model, row_keys
from train.optim import optimizer
from train.tasks.base import Batch, Spec


class State(NamedTuple):
    """What a seed carries from step to step; in a run every leaf leads with an axis of lanes.

    All randomness follows from `seed` and the number of the step, so there is no other RNG state.
    """

    seed: jax.Array  # int32
    learning_rate: jax.Array  # float32, the highest one
    params: Any
    opt_state: Any
    solved_step: jax.Array  # int32 step of the evaluation that reached the threshold; -1: not yet
    diverged_step: jax.Array  # int32 step whose loss or gradient was not finite; -1: none


class Best(NamedTuple):
    """What a seed had learned at the evaluation where its validation metric was best; lanes as in `State`."""

    params: Any
    metric: jax.Array  # float32
    step: jax.Array  # int32; -1: there has been no finite one


class Share(NamedTuple):
    """What a device has of a batch that every one of `parts` devices has made whole. One: all of it.

    With several, to be called under `jax.shard_map` over an axis "batch".
    """

    parts: int = 1

    @property
    def index(self):
        """Which of the devices this is."""
        return jax.lax.axis_index("batch") if self.parts > 1 else 0

    def rows(self, batch: Batch) -> Batch:
        """This device's rows."""
        if self.parts == 1:
            return batch
        size = len(batch.xs) // self.parts
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, self.index * size, size), batch)

    def total(self, tree):
        """The sum over the devices, as one message."""
        if self.parts == 1:
            return tree
        flat, restore = jax.flatten_util.ravel_pytree(tree)
        return restore(jax.lax.psum(flat, "batch"))


ALONE = Share()


def step_keys(seed, step):
    """The keys of one step of one seed: for the batch and for dropout."""
    key = jax.random.key(seed)
    return jax.random.fold_in(key, 1), jax.random.fold_in(jax.random.fold_in(key, 2), step)


def is_running(config: RunConfig, state: State):
    """Whether a seed still trains: it has not diverged, nor been solved where that ends it."""
    running = state.diverged_step < 0
    return running & (state.solved_step < 0) if config.train.stop_when_solved else running


def make_init(config: RunConfig, model: Model) -> Callable:
    """(seed, learning rate) -> State before the first step."""

    def init(seed, learning_rate) -> State:
        params = model.init(jax.random.fold_in(jax.random.key(seed), 0))
        opt_state = optimizer(config.optim, config.train.steps, learning_rate).init(params)
        return State(seed, learning_rate, params, opt_state, jnp.int32(-1), jnp.int32(-1))

    return init


def make_step(config: RunConfig, spec: Spec, model: Model, share: Share = ALONE) -> Callable:
    """(State, data, number of the step) -> State, loss: draw a batch, differentiate, update."""

    def loss_of(params, batch, key):
        keys = row_keys(key, len(batch.xs), share.index * len(batch.xs))
        outputs = model.apply(params, batch.xs, lengths=batch.lengths, key=keys)
        total, weight = metrics.loss_sum(spec, outputs, batch)
        return metrics.mean(total, share.total(weight))

    def step(state: State, data, i):
        data_key, dropout_key = step_keys(state.seed, i)
        batch = share.rows(config.task.train_batch(data, data_key, i, config.train.batch_size))
        loss, grads = share.total(jax.value_and_grad(loss_of)(state.params, batch, dropout_key))
        rule = optimizer(config.optim, config.train.steps, state.learning_rate)
        updates, opt_state = rule.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        # The last dispatch may reach past the budget: those steps change nothing.
        running = is_running(config, state) & (i < config.train.steps)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        old, new = (state.params, state.opt_state), (params, opt_state)
        params, opt_state = jax.tree.map(lambda new, old: jnp.where(running & finite, new, old), new, old)
        diverged_step = jnp.where(running & ~finite, i, state.diverged_step)
        return state._replace(params=params, opt_state=opt_state, diverged_step=diverged_step), loss

    return step


def make_keep(spec: Spec) -> Callable:
    """(Best, State, validation metric, number of the step) -> Best: the earliest of the best evaluations."""

    def keep(best: Best, state: State, metric, step) -> Best:
        better = metric > best.metric if metrics.higher_is_better(spec) else metric < best.metric
        better = jnp.isfinite(metric) & (state.diverged_step < 0) & (better | (best.step < 0))
        new = Best(state.params, metric, jnp.int32(step))
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), new, best)

    return keep


def make_evaluate(config: RunConfig, spec: Spec, model: Model, share: Share = ALONE) -> Callable:
    """(State, stacked batches, number of the step) -> State with `solved_step`, {"loss", "metric"}."""

    def evaluate(state: State, batches: Batch, step):
        # Where the rows cannot be shared evenly, every device scores all of them.
        shared = share if batches.xs.shape[1] % share.parts == 0 else ALONE

        def add(sums, batch):
            batch = shared.rows(batch)
            outputs = model.apply(state.params, batch.xs, lengths=batch.lengths)
            terms = (*metrics.loss_sum(spec, outputs, batch), *metrics.score(spec, outputs, batch))
            return tuple(a + b for a, b in zip(sums, terms, strict=True)), None

        sums, _ = jax.lax.scan(add, (jnp.float32(0),) * 4, batches)
        loss, weight, score, scored = shared.total(sums)
        metric = score / scored
        newly = is_running(config, state) & metrics.solved(spec, metric) & (state.solved_step < 0)
        state = state._replace(solved_step=jnp.where(newly, step, state.solved_step))
        return state, {"loss": metrics.mean(loss, weight), "metric": metric}

    return evaluate
