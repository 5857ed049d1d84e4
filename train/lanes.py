"""From one step to a run: each seed with each learning rate is a lane, and devices share the lanes."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import cells
from train import hosts, initial, memory
from train.compile import executable, kept
from train.config import OptimConfig, RunConfig
from train.model import Model, build
from train.resolve import in_buckets, resolve
from train.step import Best, Share, State, make_evaluate, make_init, make_keep, make_step
from train.tasks.base import SPLITS, Batch, Spec, Task
from train.tasks.meaning import Meaning

T = TypeVar("T", State, Best)
EACH, WHOLE = PartitionSpec("lanes"), PartitionSpec()


class Programs(NamedTuple):
    """The pieces of a run, to be compiled."""

    init: Callable  # seeds, learning rates -> State
    train: Callable  # State, data, first step -> State, logs (lanes,)
    held_out: dict[str, Callable]  # split -> (data) -> all its batches, stacked
    evaluate: Callable  # State, batches, step -> State, logs (lanes,)
    keep: Callable  # Best, State, metric (lanes,), step -> Best


class Run(NamedTuple):
    """A run made ready: resolved config, model, data, programs."""

    config: RunConfig
    spec: Spec
    model: Model
    data: Any
    programs: Programs
    mesh: Mesh  # lanes x rows of a batch x steps
    strategy: str  # of the cells over time
    seed_batching: str  # of the seeds on one device
    effort: str  # of compiling it
    buckets: tuple = ()  # of the training rows, see `train.tasks.buckets`
    meaning: Meaning = Meaning()  # of the task's numbers
    begins: Any = None  # with these parameters, see `train.initial`
    notes: tuple[str, ...] = ()  # lines for a person


# Floats in one state sequence of all lanes of a device, above which "map" is faster on a CPU: the
# sequences that the backward pass reads again then no longer stay in its cache. Below, one batched program
# saves the overhead of each step. Measured on 2 cores, 8 seeds, batch 32, time "map" / "vmap": 100,000
# floats 2.0 (lstm), 1.0 (sru); 210,000 floats 1.1 (lstm), 1.25 (gru); 420,000 floats 0.76 (lstm),
# 1.2 (gru), 0.8 (sru); 840,000 floats 0.66 (lstm), 0.8 (gru, rnn, sru).
VMAP_AT_MOST = 300_000


# Likewise: above it, programs are compiled with more effort, see `train.compile`.
SMALL_AT_MOST = 1_000_000


def floats(config: RunConfig, spec: Spec, mesh: Mesh) -> int:
    """In one state sequence of all lanes of a device."""
    lanes = -(-len(config.lanes) // mesh.shape["lanes"])
    rows = config.train.batch_size // mesh.shape["batch"]
    return lanes * rows * spec.time * config.cell.hidden_size


def seed_batching(config: RunConfig, spec: Spec, mesh: Mesh) -> str:
    """How the lanes of one device train together: "vmap" or "map"."""
    if config.train.seed_batching != "auto":
        return config.train.seed_batching
    many = floats(config, spec, mesh) > VMAP_AT_MOST
    return "map" if jax.default_backend() == "cpu" and many else "vmap"


# Floats in the state of one step, (batch, hidden_size), from which a second CPU device pays for sharing a
# batch with it.
SPLIT_FROM = 1024


def layout(config: RunConfig, devices: list) -> Mesh:
    """Devices as lanes x rows of a batch x steps: lanes first, which need not talk; what is left shares
    batches. Steps are shared only where that is asked for.

    Raises:
      ValueError: `train.batch_devices` or `train.time_devices` does not fit the batch, the devices, the cell.
    """
    processes = {device.process_index for device in devices}
    batch_size, split, time = config.train.batch_size, config.train.batch_devices, config.train.time_devices
    asked = f"train.time_devices = {time}"
    if time > len(devices):
        raise ValueError(f"{asked} must be at most the {len(devices)} device(s) there are; see --devices")
    if time > 1 and not isinstance(config.cell, cells.Linear):
        raise ValueError(f"{asked} needs a linear cell, such as sru; {type(config.cell).__name__} is none")
    if time > 1 and config.model.remat:
        raise ValueError(f"{asked} and config.model.remat={config.model.remat} exclude each other")
    together = len(devices) // time  # groups of devices, each with all the steps of its rows
    if split == 0:
        worth = jax.default_backend() != "cpu" or batch_size * config.cell.hidden_size >= SPLIT_FROM
        worth |= len(processes) > 1
        left = together // min(len(config.lanes), together) if worth else 1
        split = math.gcd(left, batch_size)
    elif batch_size % split or split > together:
        raise ValueError(
            f"train.batch_devices = {split} must divide train.batch_size = {batch_size} "
            f"and be at most the {together} device(s) there are"
        )
    lanes = min(len(config.lanes), together // split)
    used = devices[: lanes * split * time]
    if idle := processes - {device.process_index for device in used}:
        raise ValueError(
            f"{len(processes)} processes have {len(devices)} devices, and this run has work for {len(used)}, "
            f"none for process {min(idle)}: take more train.seeds, or a train.batch_size that more divide"
        )
    return Mesh(np.array(used).reshape(lanes, split, time), ("lanes", "batch", "time"))


def make_run(config: RunConfig, data_dir: str | None = None, devices: list | None = None) -> Run:
    """Loads the data, resolves the config and compiles nothing yet.

    Args:
      data_dir: folder of the real data sets; None: environment variable, then the cache.
      devices: the seeds are spread over these; None: all that jax sees.

    Raises:
      ValueError: config and task do not fit, or the run does not fit into memory.
      DataError: the data cannot be had, or cannot be right.
    """
    data = config.task.load(data_dir)
    config.task.check(data)
    config, spec, model = resolve(config, data)
    begins, notes = initial.of_run(config, model) if config.init else (None, ())
    meaning = config.task.meaning(data)
    data = {name: part for name, part in data.items() if name != "meaning"}
    data, buckets = in_buckets(config, data)
    devices = devices or jax.devices()
    sizes = tuple((split, config.task.eval_size(data, split)) for split in SPLITS)
    memory.check(config, spec, model, dict(sizes), devices)
    mesh = layout(config, devices)
    data = hosts.place(data, NamedSharding(mesh, WHOLE))
    batching = seed_batching(config, spec, mesh)
    rows = config.train.batch_size // mesh.shape["batch"]
    strategy = cells.scans.resolve(config.cell, config.model.strategy, time=spec.time, batch=rows)
    programs = make_programs(_static(config), spec, mesh, sizes, batching, buckets)
    effort = "small" if floats(config, spec, mesh) <= SMALL_AT_MOST else "large"
    return Run(
        config, spec, model, data, programs, mesh, strategy, batching, effort, buckets, meaning, begins, notes
    )


def _static(config: RunConfig) -> RunConfig:
    """The config without what programs take as values: runs with the same one share their programs."""
    first = OptimConfig()
    return dataclasses.replace(
        config,
        task=config.task.static(),
        optim=dataclasses.replace(config.optim, learning_rate=first.learning_rate, learning_rates=()),
        train=dataclasses.replace(
            config.train, seed=0, seeds=1, checkpoint_seconds=0.0, on_nan="stop", tensorboard=False
        ),
        label="",
        init="",
    )


@kept(64)
def make_programs(
    config: RunConfig, spec: Spec, mesh: Mesh, sizes: tuple, batching: str, buckets: tuple = ()
) -> Programs:
    """The programs of all runs that differ only in values.

    Args:
      config: from `_static`.
      sizes: (split, number of examples) of the held-out splits.
      batching: "vmap" or "map".
      buckets: of the training rows, from `in_buckets`.
    """
    model = build(config.cell, spec, config.model, mesh.shape["time"])
    share = Share(mesh.shape["batch"])
    one_step = make_step(config, spec, model, share, buckets)
    # Of one shape in both splits where they have as many batches: one program scores both.
    rows = min(config.train.eval_batch_size, max(n for _, n in sizes))

    def train(state, data, first):
        steps = first + jnp.arange(dispatch_steps(config))
        state = state._replace(carry=share.rows(state.carry))
        state, losses = jax.lax.scan(lambda state, i: one_step(state, data, i), state, steps)
        state = state._replace(carry=share.gathered(state.carry))
        counted = steps < config.train.steps
        return state, {"loss": jnp.where(counted, losses, 0).sum() / counted.sum()}

    def lifted(f, donate=()):
        """f(state of one lane, rest...) as a program of the states of all lanes on all devices."""
        map_lanes = jax.vmap if batching == "vmap" else lambda f: lambda states: jax.lax.map(f, states)

        def of_one_device(states, *rest):
            return map_lanes(lambda state: f(state, *rest))(states)

        specs = {"in_specs": (EACH, WHOLE, WHOLE), "out_specs": EACH}
        return jax.jit(
            jax.shard_map(of_one_device, mesh=mesh, check_vma=False, **specs), donate_argnums=donate
        )

    return Programs(
        # Not sharded: the batched QR of orthogonal matrices can hang where several CPU devices run it.
        init=jax.jit(jax.vmap(make_init(config, spec, model))),
        train=lifted(train, donate=(0,)),
        held_out={s: make_held_out(config.task, s, n, rows) for s, n in sizes},
        evaluate=lifted(make_evaluate(config, spec, model, share)),
        keep=jax.jit(jax.vmap(make_keep(spec), (0, 0, 0, None)), out_shardings=NamedSharding(mesh, EACH)),
    )


def dispatch_steps(config: RunConfig) -> int:
    """Optimiser steps in one dispatch."""
    return min(config.train.eval_every, config.train.steps)


@kept(64)
def make_held_out(task: Task, split: str, size: int, batch_size: int) -> Callable:
    """A program of the data: all batches of a split of `size` examples, stacked along a new first axis."""

    def held_out(data) -> Batch:
        return jax.lax.map(
            lambda index: task.eval_batch(data, split, index, batch_size),
            jnp.arange(-(-size // batch_size)),
        )

    return jax.jit(held_out)


def initial_state(run: Run) -> State:
    """The state before the first step. Lanes are padded to a multiple of the devices by repetition."""
    lanes = padded_lanes(run)
    seeds = np.array([seed for seed, _ in lanes], np.int32)
    rates = np.array([rate for _, rate in lanes], np.float32)
    state = executable(run.programs.init, seeds, rates, effort="once")(seeds, rates)
    if run.begins is not None:
        state = state._replace(params=initial.overlaid(state.params, run.begins))
    return hosts.place(state, NamedSharding(run.mesh, EACH))


def no_best(run: Run, like: State) -> Best:
    """What is kept before the first evaluation: `like` are shapes, all on the run's devices."""
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (like.params, like.learning_rate))
    best = Best(*zeros, np.full(like.solved_step.shape, -1, np.int32))
    return hosts.place(best, NamedSharding(run.mesh, EACH))


def state_like(run: Run) -> State:
    """Shapes, dtypes and shardings of `initial_state`."""
    n, sharding = len(padded_lanes(run)), NamedSharding(run.mesh, EACH)
    shapes = jax.eval_shape(run.programs.init, np.zeros(n, np.int32), np.zeros(n, np.float32))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def padded_lanes(run: Run) -> list[tuple[int, float]]:
    """(seed, learning rate) of every lane, the last one repeated until each device has as many."""
    lanes = run.config.lanes
    return lanes + lanes[-1:] * (-len(lanes) % run.mesh.shape["lanes"])


def unpadded(run: Run, state: T) -> T:
    """The state (or the best one) of the asked-for lanes, without those that fill up the devices."""
    n = len(run.config.lanes)
    return state if run.mesh.size == 1 else jax.tree.map(lambda x: x[:n], hosts.fetch(state))


def padded(run: Run, like: T, state: T) -> T:
    """The inverse of `unpadded`, spread over the devices as `like` is."""

    def place(x, like):
        rows = np.minimum(np.arange(len(like)), len(x) - 1)
        return hosts.place(np.asarray(x)[rows], like.sharding)

    return jax.tree.map(place, state, like)


def held_out(run: Run, split: str) -> Batch:
    """All batches of a split, on every device."""
    data = hosts.local(run.data)
    batches = executable(run.programs.held_out[split], data, effort="once")(data)
    return hosts.place(batches, NamedSharding(run.mesh, WHOLE))


def compiled(run: Run, state: State, *splits: Batch) -> tuple[Run, float]:
    """The run with its training program, and its evaluation of each split, compiled; seconds that took."""
    start = time.perf_counter()
    step = np.int32(0)
    train = executable(run.programs.train, state, run.data, step, effort=run.effort)
    for batches in splits:
        executable(run.programs.evaluate, state, batches, step, effort=run.effort)

    def evaluate(*args):  # (state, batches, step)
        return executable(run.programs.evaluate, *args, effort=run.effort)(*args)

    def keep(*args):  # (best, state, metric, step)
        return executable(run.programs.keep, *args, effort="once")(*args)

    programs = run.programs._replace(train=train, evaluate=evaluate, keep=keep)
    return run._replace(programs=programs), time.perf_counter() - start
