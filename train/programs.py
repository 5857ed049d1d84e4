"""The compiled side of training: one program trains several seeds at once, many steps per dispatch."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import cells
from train import metrics
from train.config import RunConfig
from train.model import Model, build, matched_hidden_size
from train.optim import optimizer
from train.tasks.base import SPLITS, Batch, Spec, Task


class State(NamedTuple):
    """What a run carries from step to step. Every leaf leads with an axis of seeds.

    All randomness follows from `seed` and the number of the step, so there is no other RNG state.
    """

    seed: jax.Array  # int32
    learning_rate: jax.Array  # float32, the highest one
    params: Any
    opt_state: Any
    solved_step: jax.Array  # int32 step of the evaluation that reached the threshold; -1: not yet
    diverged_step: jax.Array  # int32 step whose loss or gradient was not finite; -1: none


class Programs(NamedTuple):
    """The compiled pieces of a run, and what compiling them took."""

    init: Callable  # seeds, learning_rates -> State
    train: Callable  # State, data, first step -> State, logs (seeds,)
    held_out: dict[str, Callable]  # split -> (data) -> all its batches, stacked
    evaluate: Callable  # State, batches, step -> State, logs (seeds,)


class Run(NamedTuple):
    """A run made ready: resolved config, model, data, programs."""

    config: RunConfig
    spec: Spec
    model: Model
    data: Any
    programs: Programs
    mesh: jax.sharding.Mesh
    strategy: str  # of the cells over time
    seed_batching: str  # of the seeds on one device


def resolve(config: RunConfig, data) -> tuple[RunConfig, Spec, Model]:
    """Fills in what follows from the task, its data and the parameter budget, and builds the model.

    Raises:
      ValueError: the budget cannot be met, or the model does not fit the task.
    """
    spec = config.task.spec(data)
    if config.chrono == "task" and getattr(config.cell, "chrono", 0) is None and spec.time >= 3:
        config = dataclasses.replace(config, cell=dataclasses.replace(config.cell, chrono=spec.time))
    if config.parameters:
        name = cells.CELLS.name_of(config.cell)
        options = dataclasses.asdict(config.cell)
        options.pop("hidden_size")
        hidden_size = matched_hidden_size(name, options, spec, config.model, config.parameters)
        config = dataclasses.replace(config, cell=dataclasses.replace(config.cell, hidden_size=hidden_size))
    return config, spec, build(config.cell, spec, config.model)


# Floats in one state sequence of all seeds of a device, above which "map" is faster on a CPU: the
# sequences that the backward pass reads again then no longer stay in its cache. Measured on 2 cores
# (GRU, forward and backward, 4 seeds, batch 32, time 100): hidden 16, vmap 4.8 ms, map 4.3 ms; hidden 32,
# vmap 31 ms, map 9.8 ms. Below, one batched program saves the overhead of each step.
VMAP_AT_MOST = 150_000


def seed_batching(config: RunConfig, spec: Spec, devices: int) -> str:
    """How the seeds of one device train together: "vmap" or "map"."""
    if config.train.seed_batching != "auto":
        return config.train.seed_batching
    seeds = -(-config.train.seeds // devices)
    floats = seeds * config.train.batch_size * spec.time * config.cell.hidden_size
    return "map" if jax.default_backend() == "cpu" and floats > VMAP_AT_MOST else "vmap"


def step_keys(seed, step):
    """The keys of one step of one seed: for the batch and for dropout."""
    key = jax.random.key(seed)
    return jax.random.fold_in(key, 1), jax.random.fold_in(jax.random.fold_in(key, 2), step)


def make_step(config: RunConfig, spec: Spec, model: Model, task: Task):
    """One optimiser step of one seed: (State without seeds axis, data, step) -> State, loss."""

    def loss_of(params, batch, key):
        outputs = model.apply(params, batch.xs, lengths=batch.lengths, key=key)
        return metrics.loss(spec, outputs, batch)

    def step(state: State, data, i):
        data_key, dropout_key = step_keys(state.seed, i)
        batch = task.train_batch(data, data_key, i, config.train.batch_size)
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch, dropout_key)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        rule = optimizer(config.optim, config.train.steps, state.learning_rate)
        updates, opt_state = rule.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        # The last dispatch may reach past the budget: those steps change nothing.
        running = is_running(config, state) & (i < config.train.steps)
        keep = running & finite

        def select(new, old):
            return jnp.where(keep, new, old)

        state = state._replace(
            params=jax.tree.map(select, params, state.params),
            opt_state=jax.tree.map(select, opt_state, state.opt_state),
            diverged_step=jnp.where(running & ~finite, i, state.diverged_step),
        )
        return state, loss

    return step


def dispatch_steps(config: RunConfig) -> int:
    """Optimiser steps in one dispatch."""
    return min(config.train.eval_every, config.train.steps)


def is_running(config: RunConfig, state: State):
    """Whether a seed still trains: it has not diverged, nor been solved where that ends it."""
    running = state.diverged_step < 0
    return running & (state.solved_step < 0) if config.train.stop_when_solved else running


def make_held_out(config: RunConfig, task: Task, data, split: str):
    """A function of the data: all batches of a split, stacked along a new first axis."""
    size = task.eval_size(data, split)
    batch_size = min(config.train.eval_batch_size, size)

    def held_out(data) -> Batch:
        return jax.lax.map(
            lambda index: task.eval_batch(data, split, index, batch_size), jnp.arange(-(-size // batch_size))
        )

    return held_out


def make_evaluate(config: RunConfig, spec: Spec, model: Model):
    """Evaluation of one seed: (State, stacked batches, step) -> State with `solved_step`, logs."""

    def evaluate(state: State, batches: Batch, step):
        def add(sums, batch):
            outputs = model.apply(state.params, batch.xs, lengths=batch.lengths)
            parts = (*metrics.loss_sum(spec, outputs, batch), *metrics.score(spec, outputs, batch))
            return tuple(a + b for a, b in zip(sums, parts, strict=True)), None

        (loss, weight, score, scored), _ = jax.lax.scan(add, (jnp.float32(0),) * 4, batches)
        metric = score / scored
        newly = is_running(config, state) & metrics.solved(spec, metric) & (state.solved_step < 0)
        state = state._replace(solved_step=jnp.where(newly, step, state.solved_step))
        return state, {"loss": loss / weight, "metric": metric}

    return evaluate


def make_run(config: RunConfig, data_dir: str | None = None, devices: list | None = None) -> Run:
    """Loads the data, resolves the config and compiles nothing yet.

    Args:
      data_dir: folder of the real data sets; None: environment variable, then the cache.
      devices: the seeds are spread over these; None: all that jax sees.

    Raises:
      ValueError: config and task do not fit; DataError: the data cannot be had.
    """
    task = config.task
    data = task.load(data_dir)
    config, spec, model = resolve(config, data)
    devices = devices or jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices[: config.train.seeds]), ("seeds",))
    data = jax.device_put(data, jax.sharding.NamedSharding(mesh, PartitionSpec()))

    batching = seed_batching(config, spec, mesh.size)

    def over_seeds(f):
        """f(state of one seed, ...) for all seeds of this device."""
        if batching == "vmap":
            return lambda states, *rest: jax.vmap(lambda state: f(state, *rest))(states)
        return lambda states, *rest: jax.lax.map(lambda state: f(state, *rest), states)

    one_step = make_step(config, spec, model, task)

    def init(seed, learning_rate):
        params = model.init(jax.random.fold_in(jax.random.key(seed), 0))
        opt_state = optimizer(config.optim, config.train.steps, learning_rate).init(params)
        return State(seed, learning_rate, params, opt_state, jnp.int32(-1), jnp.int32(-1))

    def train(state, data, first):
        steps = first + jnp.arange(dispatch_steps(config))
        state, losses = jax.lax.scan(lambda state, i: one_step(state, data, i), state, steps)
        counted = steps < config.train.steps
        return state, {"loss": jnp.where(counted, losses, 0).sum() / counted.sum()}

    def sharded(f, *in_specs, donate=()):
        f = jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=PartitionSpec("seeds"), check_vma=False)
        return jax.jit(f, donate_argnums=donate)

    each, whole = PartitionSpec("seeds"), PartitionSpec()
    programs = Programs(
        # Not sharded: the batched QR of orthogonal matrices can hang where several CPU devices run it.
        init=jax.jit(jax.vmap(init)),
        train=sharded(over_seeds(train), each, whole, whole, donate=(0,)),
        held_out={split: jax.jit(make_held_out(config, task, data, split)) for split in SPLITS},
        evaluate=sharded(over_seeds(make_evaluate(config, spec, model)), each, whole, whole),
    )
    strategy = cells.scans.resolve(config.cell, config.model.strategy)
    return Run(config, spec, model, data, programs, mesh, strategy, batching)


def once(f: Callable, *args):
    """Runs a jitted function that runs only once: compiled in a hurry, where the backend knows how."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return f.lower(*args).compile(compiler_options=options)(*args)


def initial_state(run: Run) -> State:
    """The state before the first step. Seeds are padded to a multiple of the devices by repetition."""
    n = run.config.train.seeds
    padded = -(-n // run.mesh.size) * run.mesh.size
    seeds = run.config.train.seed + np.minimum(np.arange(padded), n - 1).astype(np.int32)
    rates = np.full(padded, run.config.optim.learning_rate, np.float32)
    sharding = jax.sharding.NamedSharding(run.mesh, PartitionSpec("seeds"))
    return jax.device_put(once(run.programs.init, seeds, rates), sharding)


def held_out(run: Run, split: str) -> Batch:
    """All batches of a split, on every device."""
    whole = jax.sharding.NamedSharding(run.mesh, PartitionSpec())
    return jax.device_put(once(run.programs.held_out[split], run.data), whole)


def compiled(run: Run, state: State, valid: Batch) -> tuple[Run, float]:
    """The run with its training and evaluation programs compiled; seconds that took."""
    start = time.perf_counter()
    step = jnp.int32(0)
    train = run.programs.train.lower(state, run.data, step).compile()
    # Only cached, not frozen to the shapes of `valid`: a test set may have others.
    run.programs.evaluate.lower(state, valid, step).compile()
    return run._replace(programs=run.programs._replace(train=train)), time.perf_counter() - start
