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
from train.optim import evaluated_at, gradient_at, optimizer
from train.tasks.base import Batch, Spec
from train.tasks.buckets import Bucket, switch


class State(NamedTuple):
    """What a seed carries from step to step; in a run every leaf leads with an axis of lanes.

    All randomness follows from `seed` and the number of the step, so there is no other RNG state.
    """

    seed: jax.Array  # int32
    learning_rate: jax.Array  # float32, the highest one
    params: Any  # those that are evaluated
    opt_state: Any
    solved_step: jax.Array  # int32 step of the evaluation that reached the threshold; -1: not yet
    diverged_step: jax.Array  # int32 step whose loss or gradient was not finite; -1: none
    carry: Any = None  # the cells' state after the last step, of all rows of a batch; None: each begins anew


class Best(NamedTuple):
    """What a seed had learned at the evaluation where its validation metric was best; lanes as in `State`."""

    params: Any
    metric: jax.Array  # float32
    step: jax.Array  # int32; -1: there has been no finite one


class Fed(NamedTuple):
    """The rows of a dispatch's batches, gathered on the host, see `train.feed`: what a training program has
    instead of all the data. Seeds lead, rows of a batch are this device's."""

    first: jax.Array  # () int32, number of the first batch
    seeds: jax.Array  # (seeds,) int32
    rows: dict[str, jax.Array]  # (seeds, batches, batch, ...), as they are stored

    def of(self, seed, number) -> dict[str, jax.Array]:
        """The rows of a seed's batch."""
        place = jnp.argmax(self.seeds == seed), number - self.first
        return {name: array[place] for name, array in self.rows.items()}


class Share(NamedTuple):
    """What a device has of a batch that every one of `parts` devices has made whole. One: all of it.

    With several, to be called under `jax.shard_map` over an axis "batch".
    """

    parts: int = 1

    @property
    def index(self):
        """Which of the devices this is."""
        return jax.lax.axis_index("batch") if self.parts > 1 else 0

    def rows(self, tree):
        """This device's rows of arrays that lead with all of them."""

        def own(x):
            size = len(x) // self.parts
            return jax.lax.dynamic_slice_in_dim(x, self.index * size, size)

        return tree if self.parts == 1 else jax.tree.map(own, tree)

    def gathered(self, tree):
        """The inverse of `rows`."""
        if self.parts == 1:
            return tree
        return jax.tree.map(lambda x: jax.lax.all_gather(x, "batch", tiled=True), tree)

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


def pieces(config: RunConfig, spec: Spec) -> tuple[int, int]:
    """How many optimiser steps a batch takes, and on how many of its steps each."""
    size = config.train.segment or spec.time
    return -(-spec.time // size), size


def goes_on(config: RunConfig, spec: Spec) -> bool:
    """Whether a step begins with the cells' state that the one before ended with."""
    return spec.reads_on or config.train.segment > 0


def piece(batch: Batch, number, size: int) -> Batch:
    """The steps number * size onwards of each row, `size` of them, and which rows begin with them."""
    time = batch.xs.shape[1]
    missing = -time % size
    rows = jnp.ones(len(batch.xs), bool)
    lengths = time * rows.astype(jnp.int32) if batch.lengths is None and missing else batch.lengths

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2))
        return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis=1)

    names = ("xs", "ys", "weights", "scored", "mask", "resets")
    steps = {name: cut(x) for name in names if (x := getattr(batch, name)) is not None}
    starts = (rows if batch.starts is None else batch.starts) & (number == 0)
    left = None if lengths is None else jnp.clip(lengths - number * size, 0, size)
    return batch._replace(**steps, lengths=left, starts=starts)


def started(carry, starts, initial):
    """The state that each row goes on from: the initial one where it begins."""

    def pick(carry, initial):
        return jnp.where(starts.reshape(starts.shape + (1,) * (carry.ndim - 1)), initial, carry)

    return jax.tree.map(pick, carry, initial)


def make_init(config: RunConfig, spec: Spec, model: Model) -> Callable:
    """(seed, learning rate) -> State before the first step."""

    def init(seed, learning_rate) -> State:
        params = model.init(jax.random.fold_in(jax.random.key(seed), 0))
        opt_state = optimizer(config.optim, config.train.steps, learning_rate).init(params)
        carry = model.initial_carry(config.train.batch_size) if goes_on(config, spec) else None
        return State(seed, learning_rate, params, opt_state, jnp.int32(-1), jnp.int32(-1), carry)

    return init


def make_step(
    config: RunConfig, spec: Spec, model: Model, share: Share = ALONE, buckets: tuple[Bucket, ...] = ()
) -> Callable:
    """(State, data or Fed, number of the step) -> State, loss: draw a batch, differentiate, update.

    With `train.segment` a batch trains piece by piece: the gradient ends where a piece begins, the state goes
    on (truncated backpropagation through time, Williams & Peng 1990). The state has this device's rows.
    """
    count, size = pieces(config, spec)
    on, task, batch_size = goes_on(config, spec), config.task, config.train.batch_size

    def loss_of(params, carry, batch, key):
        keys = row_keys(key, len(batch.xs), share.index * len(batch.xs))
        more = {"carry": carry, "return_carry": True} if on else {}
        outputs = model.apply(params, batch.xs, **batch.steps, key=keys, **more)
        carry, outputs = outputs if on else (None, outputs)
        total, weight = metrics.loss_sum(spec, outputs, batch)
        weight = share.total(weight)
        return metrics.mean(total, weight), (carry, weight)

    def drawn(state: State, data, i, number, bucket=None) -> Batch:
        """This device's rows of a batch: `number`, among those of the bucket where there are any."""
        if isinstance(data, Fed):
            return task.batch_of(data.of(state.seed, i // count), bucket)
        key, _ = step_keys(state.seed, i)
        if bucket is None:
            return share.rows(task.train_batch(data, key, number, batch_size))
        return share.rows(task.bucket_batch(data, key, number, batch_size, bucket))

    def differentiated(state: State, params, batch: Batch, i):
        """((loss, (carry, weight)), gradient) of a batch, at these parameters."""
        # One mask for all of a sequence also where it trains in pieces.
        _, dropout_key = step_keys(state.seed, i // count if config.model.variational else i)
        carry = None
        if on:
            batch = piece(batch, i % count, size)
            carry = started(state.carry, batch.starts, model.initial_carry(len(batch.xs)))
        (loss, more), grads = jax.value_and_grad(loss_of, has_aux=True)(params, carry, batch, dropout_key)
        loss, grads = share.total((loss, grads))
        return (loss, more), grads

    def step(state: State, data, i):
        at = gradient_at(config.optim, state.params, state.opt_state)

        def of_bucket(bucket, number):
            return differentiated(state, at, drawn(state, data, i, number, bucket), i)

        if buckets:
            found = switch(buckets, i, of_bucket)
        else:
            found = differentiated(state, at, drawn(state, data, i, i // count), i)
        (loss, (carry, weight)), grads = found
        rule = optimizer(config.optim, config.train.steps, state.learning_rate)
        updates, opt_state = rule.update(grads, state.opt_state, at)
        params = evaluated_at(config.optim, optax.apply_updates(at, updates), opt_state)

        # The last dispatch may reach past the budget: those steps change nothing.
        running = is_running(config, state) & (i < config.train.steps)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        learns = running & finite & (weight > 0)  # where nothing counts, momentum does not move it either
        old, new = (state.params, state.opt_state), (params, opt_state)
        params, opt_state = jax.tree.map(lambda new, old: jnp.where(learns, new, old), new, old)
        carry = jax.tree.map(lambda new, old: jnp.where(running & finite, new, old), carry, state.carry)
        diverged_step = jnp.where(running & ~finite, i, state.diverged_step)
        state = state._replace(params=params, opt_state=opt_state, diverged_step=diverged_step, carry=carry)
        return state, loss

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
    """((State, sums), stacked batches, number of the step) -> (State with `solved_step`, sums), logs.

    Logs are {"loss", "metric"} of these batches and of those before, whose sums (1, 4) float32 are: a split
    that is scored in pieces has the numbers of one that is scored at once. One that reads on is one piece.
    """

    def evaluate(state_and_sums, batches: Batch, step):
        state, before = state_and_sums
        # Where the rows cannot be shared evenly, every device scores all of them.
        shared = share if batches.xs.shape[1] % share.parts == 0 else ALONE

        initial = model.initial_carry(len(shared.rows(batches.xs[0]))) if spec.reads_on else None

        def add(before, batch):
            (sums, carry), batch = before, shared.rows(batch)
            if spec.reads_on:
                carry = started(carry, batch.starts, initial)
                carry, outputs = model.apply(
                    state.params, batch.xs, **batch.steps, carry=carry, return_carry=True
                )
            else:
                outputs = model.apply(state.params, batch.xs, **batch.steps)
            terms = (*metrics.loss_sum(spec, outputs, batch), *metrics.score(spec, outputs, batch))
            return (sums + jnp.stack(terms), carry), None

        (sums, _), _ = jax.lax.scan(add, (before[0], initial), batches)
        loss, weight, score, scored = shared.total(sums)
        metric = metrics.finished(spec, score / scored)
        newly = is_running(config, state) & metrics.solved(spec, metric) & (state.solved_step < 0)
        state = state._replace(solved_step=jnp.where(newly, step, state.solved_step))
        return (state, sums[None]), {"loss": metrics.mean(loss, weight), "metric": metric}

    return evaluate
