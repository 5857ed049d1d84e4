"""The compiled side of training: one program trains several seeds at once, many steps per dispatch."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import cells
from train import host, metrics
from train.config import OptimConfig, RunConfig
from train.model import Model, build
from train.optim import optimizer
from train.resolve import resolve
from train.tasks.base import SPLITS, Batch, Spec


class State(NamedTuple):
    """What a run carries from step to step. Every leaf leads with an axis of lanes: seeds x learning rates.

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
    train: Callable  # State, data, first step -> State, logs (lanes,)
    held_out: dict[str, Callable]  # split -> (data) -> all its batches, stacked
    evaluate: Callable  # State, batches, step -> State, logs (lanes,)


class Run(NamedTuple):
    """A run made ready: resolved config, model, data, programs."""

    config: RunConfig
    spec: Spec
    model: Model
    data: Any
    programs: Programs
    mesh: Mesh  # lanes x rows of a batch
    strategy: str  # of the cells over time
    seed_batching: str  # of the seeds on one device


# Floats in one state sequence of all lanes of a device, above which "map" is faster on a CPU: the
# sequences that the backward pass reads again then no longer stay in its cache. Below, one batched program
# saves the overhead of each step. Measured on 2 cores, 8 seeds, batch 32, time "map" / "vmap": 100,000
# floats 2.0 (lstm), 1.0 (sru); 210,000 floats 1.1 (lstm), 1.25 (gru); 420,000 floats 0.76 (lstm),
# 1.2 (gru), 0.8 (sru); 840,000 floats 0.66 (lstm), 0.8 (gru, rnn, sru).
VMAP_AT_MOST = 300_000


def seed_batching(config: RunConfig, spec: Spec, mesh: Mesh) -> str:
    """How the lanes of one device train together: "vmap" or "map"."""
    if config.train.seed_batching != "auto":
        return config.train.seed_batching
    lanes = -(-len(config.lanes) // mesh.shape["lanes"])
    rows = config.train.batch_size // mesh.shape["batch"]
    floats = lanes * rows * spec.time * config.cell.hidden_size
    return "map" if jax.default_backend() == "cpu" and floats > VMAP_AT_MOST else "vmap"


# Floats in the state of one step, (batch, hidden_size), from which a second CPU device pays for sharing a
# batch with it.
SPLIT_FROM = 1024


def layout(config: RunConfig, devices: list) -> Mesh:
    """Devices as lanes x rows of a batch: lanes first, which need not talk; what is left shares batches.

    Raises:
      ValueError: `train.batch_devices` does not fit the batch or the devices.
    """
    batch_size, split = config.train.batch_size, config.train.batch_devices
    if split == 0:
        worth = jax.default_backend() != "cpu" or batch_size * config.cell.hidden_size >= SPLIT_FROM
        left = len(devices) // min(len(config.lanes), len(devices)) if worth else 1
        split = math.gcd(left, batch_size)
    elif batch_size % split or split > len(devices):
        raise ValueError(
            f"train.batch_devices = {split} must divide train.batch_size = {batch_size} "
            f"and be at most the {len(devices)} device(s) there are"
        )
    lanes = min(len(config.lanes), len(devices) // split)
    return Mesh(np.array(devices[: lanes * split]).reshape(lanes, split), ("lanes", "batch"))


def shared_rows(batch, mesh: Mesh):
    """This device's rows of a batch that every device has made whole."""
    parts = mesh.shape["batch"]
    size = len(batch.xs) // parts
    if parts == 1:
        return batch
    first = jax.lax.axis_index("batch") * size
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), batch)


def step_keys(seed, step):
    """The keys of one step of one seed: for the batch and for dropout."""
    key = jax.random.key(seed)
    return jax.random.fold_in(key, 1), jax.random.fold_in(jax.random.fold_in(key, 2), step)


def added_up(tree, mesh: Mesh):
    """The sum over the devices that share a batch, as one message."""
    if mesh.shape["batch"] == 1:
        return tree
    flat, restore = jax.flatten_util.ravel_pytree(tree)
    return restore(jax.lax.psum(flat, "batch"))


def make_step(config: RunConfig, spec: Spec, model: Model, mesh: Mesh):
    """One optimiser step of one lane: (State without lanes axis, data, step) -> State, loss."""

    def loss_of(params, batch, key):
        outputs = model.apply(params, batch.xs, lengths=batch.lengths, key=key)
        total, weight = metrics.loss_sum(spec, outputs, batch)
        return total / jnp.maximum(jax.lax.psum(weight, "batch"), 1)

    def step(state: State, data, i):
        data_key, dropout_key = step_keys(state.seed, i)
        batch = shared_rows(config.task.train_batch(data, data_key, i, config.train.batch_size), mesh)
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index("batch"))
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch, dropout_key)
        loss, grads = added_up((loss, grads), mesh)
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


def make_held_out(config: RunConfig, split: str, size: int):
    """A function of the data: all batches of a split of `size` examples, stacked along a new first axis."""
    batch_size = min(config.train.eval_batch_size, size)

    def held_out(data) -> Batch:
        return jax.lax.map(
            lambda index: config.task.eval_batch(data, split, index, batch_size),
            jnp.arange(-(-size // batch_size)),
        )

    return held_out


def make_evaluate(config: RunConfig, spec: Spec, model: Model, mesh: Mesh):
    """Evaluation of one lane: (State, stacked batches, step) -> State with `solved_step`, logs."""
    parts = mesh.shape["batch"]

    def evaluate(state: State, batches: Batch, step):
        share = batches.xs.shape[1] % parts == 0  # else every device scores all rows

        def add(sums, batch):
            batch = shared_rows(batch, mesh) if share else batch
            outputs = model.apply(state.params, batch.xs, lengths=batch.lengths)
            terms = (*metrics.loss_sum(spec, outputs, batch), *metrics.score(spec, outputs, batch))
            return tuple(a + b for a, b in zip(sums, terms, strict=True)), None

        sums, _ = jax.lax.scan(add, (jnp.float32(0),) * 4, batches)
        loss, weight, score, scored = jax.lax.psum(sums, "batch") if share else sums
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
    data = config.task.load(data_dir)
    config, spec, model = resolve(config, data)
    mesh = layout(config, devices or jax.devices())
    sizes = tuple((split, config.task.eval_size(data, split)) for split in SPLITS)
    data = jax.device_put(data, NamedSharding(mesh, PartitionSpec()))
    batching = seed_batching(config, spec, mesh)
    rows = config.train.batch_size // mesh.shape["batch"]
    strategy = cells.scans.resolve(config.cell, config.model.strategy, time=spec.time, batch=rows)
    programs = make_programs(_static(config), spec, mesh, sizes, batching)
    return Run(config, spec, model, data, programs, mesh, strategy, batching)


def _static(config: RunConfig) -> RunConfig:
    """The config without what programs take as values: runs with the same one share their programs."""
    first = OptimConfig()
    return dataclasses.replace(
        config,
        task=config.task.static(),
        optim=dataclasses.replace(config.optim, learning_rate=first.learning_rate, learning_rates=()),
        train=dataclasses.replace(config.train, seed=0, seeds=1, checkpoint_seconds=0.0, on_nan="stop"),
        label="",
    )


@functools.lru_cache(maxsize=64)
def make_programs(config: RunConfig, spec: Spec, mesh: Mesh, sizes: tuple, batching: str) -> Programs:
    """The programs of all runs that differ only in values.

    Args:
      config: from `_static`.
      sizes: (split, number of examples) of the held-out splits.
      batching: "vmap" or "map".
    """
    model = build(config.cell, spec, config.model)

    def over_lanes(f):
        """f(state of one lane, ...) for all lanes of this device."""
        if batching == "vmap":
            return lambda states, *rest: jax.vmap(lambda state: f(state, *rest))(states)
        return lambda states, *rest: jax.lax.map(lambda state: f(state, *rest), states)

    one_step = make_step(config, spec, model, mesh)

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
        f = jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=PartitionSpec("lanes"), check_vma=False)
        return jax.jit(f, donate_argnums=donate)

    each, whole = PartitionSpec("lanes"), PartitionSpec()
    return Programs(
        # Not sharded: the batched QR of orthogonal matrices can hang where several CPU devices run it.
        init=jax.jit(jax.vmap(init)),
        train=sharded(over_lanes(train), each, whole, whole, donate=(0,)),
        held_out={split: jax.jit(make_held_out(config, split, size)) for split, size in sizes},
        evaluate=sharded(over_lanes(make_evaluate(config, spec, model, mesh)), each, whole, whole),
    )


@functools.lru_cache(maxsize=256)
def _executable(program: Callable, fast: bool, tree, shapes: tuple) -> Callable:
    """A jitted function compiled for arguments of given shapes, dtypes and shardings; once in a process."""
    hurry = jax.default_backend() == "cpu" and not fast
    args = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(s, d, sharding=sh) for s, d, sh in shapes])
    # A program that runs only once is compiled in a hurry, where the backend knows how.
    return program.lower(*args).compile(
        compiler_options={"xla_backend_optimization_level": 0} if hurry else {}
    )


def make_room() -> None:
    """Forgets compiled programs where the process holds so many that the compiler would soon crash."""
    if host.crowded():
        make_programs.cache_clear()
        _executable.cache_clear()
        jax.clear_caches()


def executable(program: Callable, *args, fast: bool = True) -> Callable:
    """`program`, compiled for these arguments: quick to run, or (not `fast`) quick to compile."""
    leaves, tree = jax.tree.flatten(args)
    shapes = tuple(
        (np.shape(x), x.dtype, x.sharding if getattr(x, "committed", False) else None) for x in leaves
    )
    return _executable(program, fast, tree, shapes)


def initial_state(run: Run) -> State:
    """The state before the first step. Lanes are padded to a multiple of the devices by repetition."""
    lanes = padded_lanes(run)
    seeds = np.array([seed for seed, _ in lanes], np.int32)
    rates = np.array([rate for _, rate in lanes], np.float32)
    state = executable(run.programs.init, seeds, rates, fast=False)(seeds, rates)
    return jax.device_put(state, NamedSharding(run.mesh, PartitionSpec("lanes")))


def padded_lanes(run: Run) -> list[tuple[int, float]]:
    """(seed, learning rate) of every lane, the last one repeated until each device has as many."""
    lanes = run.config.lanes
    return lanes + lanes[-1:] * (-len(lanes) % run.mesh.shape["lanes"])


def held_out(run: Run, split: str) -> Batch:
    """All batches of a split, on every device."""
    batches = executable(run.programs.held_out[split], run.data, fast=False)(run.data)
    return jax.device_put(batches, NamedSharding(run.mesh, PartitionSpec()))


def compiled(run: Run, state: State, valid: Batch) -> tuple[Run, float]:
    """The run with its training and evaluation programs compiled; seconds that took."""
    start = time.perf_counter()
    step = jnp.int32(0)
    train = executable(run.programs.train, state, run.data, step)
    # Only cached, not frozen to the shapes of `valid`: a test set may have others.
    executable(run.programs.evaluate, state, valid, step)

    def evaluate(state, batches, step):
        return executable(run.programs.evaluate, state, batches, step)(state, batches, step)

    programs = run.programs._replace(train=train, evaluate=evaluate)
    return run._replace(programs=programs), time.perf_counter() - start
