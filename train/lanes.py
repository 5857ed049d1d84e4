"""From one step to a run: each seed with each learning rate is a lane, and devices share the lanes."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import cells
from train import feed, hosts, initial, memory
from train.compile import executable, kept
from train.config import OptimConfig, RunConfig
from train.model import Model, build
from train.optim import optimizer
from train.resolve import in_buckets, resolve
from train.step import Best, Share, State, is_running, make_evaluate, make_init, make_keep, make_step
from train.tasks.base import SPLITS, Batch, Spec, Task
from train.tasks.meaning import Meaning

T = TypeVar("T", State, Best)
EACH, WHOLE, PARTS = PartitionSpec("lanes"), PartitionSpec(), PartitionSpec("lanes", "batch")


class Programs(NamedTuple):
    """The pieces of a run, to be compiled."""

    init: Callable  # seeds, learning rates -> State
    train: Callable  # State, data or Fed, first step -> State, logs (lanes,)
    held_out: dict[str, Callable]  # split -> (data, or a piece's rows) -> its batches, stacked
    evaluate: Callable  # (State, sums), batches, step -> (State, sums), logs (lanes,); see `evaluate`
    keep: Callable  # Best, State, metric (lanes,), step -> Best


class Run(NamedTuple):
    """A run made ready: resolved config, model, data, programs."""

    config: RunConfig
    spec: Spec
    model: Model
    data: Any  # on the devices, or in the memory of the host
    programs: Programs
    mesh: Mesh  # lanes x rows of a batch x steps
    strategy: str  # of the cells over time
    seed_batching: str  # of the seeds on one device
    effort: str  # of compiling it
    buckets: tuple = ()  # of the training rows, see `train.tasks.buckets`
    meaning: Meaning = Meaning()  # of the task's numbers
    begins: Any = None  # with these parameters, see `train.initial`
    notes: tuple[str, ...] = ()  # lines for a person
    data_at: str = "device"  # or "host", see `train.feed`


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
      ValueError: config and task do not fit, the run does not fit into memory, or a library that gathers rows
        on the host is needed and not installed.
      DataError: the data cannot be had, or cannot be right.
    """
    data = config.task.load(data_dir)
    config.task.check(data)
    config, spec, model = resolve(config, data)
    meaning = config.task.meaning(data)
    begins, notes = initial.of_run(config, model, meaning) if config.init else (None, ())
    data = {name: part for name, part in data.items() if name != "meaning"}
    data, buckets = in_buckets(config, data)
    devices = devices or jax.devices()
    sizes = tuple((split, config.task.eval_size(data, split)) for split in SPLITS)
    data_at = memory.data_at(config, spec, data, dict(sizes), devices)
    memory.check(config, spec, model, data, data_at, dict(sizes), devices)
    mesh = layout(config, devices)
    if data_at == "device":
        data = hosts.place(data, NamedSharding(mesh, WHOLE))
    else:
        data = jax.tree.map(lambda x: np.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype)), data)
    batching = seed_batching(config, spec, mesh)
    rows = config.train.batch_size // mesh.shape["batch"]
    strategy = cells.scans.resolve(config.cell, config.model.strategy, time=spec.time, batch=rows)
    programs = make_programs(_static(config), spec, mesh, sizes, batching, buckets, data_at)
    effort = "small" if floats(config, spec, mesh) <= SMALL_AT_MOST else "large"
    more = buckets, meaning, begins, notes, data_at
    return Run(config, spec, model, data, programs, mesh, strategy, batching, effort, *more)


def _static(config: RunConfig) -> RunConfig:
    """The config without what programs take as values: runs with the same one share their programs."""
    first = OptimConfig()
    return dataclasses.replace(
        config,
        task=config.task.static(),
        optim=dataclasses.replace(config.optim, learning_rate=first.learning_rate, learning_rates=()),
        train=dataclasses.replace(
            config.train,
            seed=0,
            seeds=1,
            data="auto",
            checkpoint_seconds=0.0,
            on_nan="stop",
            tensorboard=False,
            logger="",
        ),
        label="",
        init="",
    )


@kept(64)
def make_programs(
    config: RunConfig,
    spec: Spec,
    mesh: Mesh,
    sizes: tuple,
    batching: str,
    buckets: tuple = (),
    data_at: str = "device",
) -> Programs:
    """The programs of all runs that differ only in values.

    Args:
      config: from `_static`.
      sizes: (split, number of examples) of the held-out splits.
      batching: "vmap" or "map".
      buckets: of the training rows, from `in_buckets`.
      data_at: "device" or "host".
    """
    model = build(config.cell, spec, config.model, mesh.shape["time"])
    share = Share(mesh.shape["batch"])
    one_step = make_step(config, spec, model, share, buckets)
    rows = eval_rows(config, sizes)

    def train(state, data, first):
        if batching == "vmap" or share.parts > 1:
            return dispatch(state, data, first)
        # A lane that has ended costs nothing where lanes run one after the other.
        ended = {"loss": jnp.float32(jnp.nan)}
        return jax.lax.cond(
            is_running(config, state), lambda: dispatch(state, data, first), lambda: (state, ended)
        )

    def dispatch(state, data, first):
        steps = first + jnp.arange(config.dispatch_steps)
        state = state._replace(carry=share.rows(state.carry))
        state, losses = jax.lax.scan(lambda state, i: one_step(state, data, i), state, steps)
        state = state._replace(carry=share.gathered(state.carry))
        counted = steps < config.train.steps
        return state, {"loss": jnp.where(counted, losses, 0).sum() / counted.sum()}

    def lifted(f, lanes=EACH, data=WHOLE, donate=()):
        """f(state of one lane, data, number) as a program of the states of all lanes on all devices."""
        map_lanes = jax.vmap if batching == "vmap" else lambda f: lambda states: jax.lax.map(f, states)

        def of_one_device(states, *rest):
            return map_lanes(lambda state: f(state, *rest))(states)

        specs = {"in_specs": (lanes, data, WHOLE), "out_specs": (lanes, EACH)}
        return jax.jit(
            jax.shard_map(of_one_device, mesh=mesh, check_vma=False, **specs), donate_argnums=donate
        )

    return Programs(
        # Not sharded: the batched QR of orthogonal matrices can hang where several CPU devices run it.
        init=jax.jit(jax.vmap(make_init(config, spec, model))),
        train=lifted(train, data=WHOLE if data_at == "device" else feed.SPECS, donate=(0,)),
        held_out={
            split: make_held_out(config.task, split, n, rows)
            if data_at == "device"
            else feed.make_piece(config.task)
            for split, n in sizes
        },
        evaluate=lifted(make_evaluate(config, spec, model, share), lanes=(EACH, PARTS)),
        keep=jax.jit(jax.vmap(make_keep(spec), (0, 0, 0, None)), out_shardings=NamedSharding(mesh, EACH)),
    )


def eval_rows(config: RunConfig, sizes: tuple) -> int:
    """Rows of an evaluation batch, of both splits: with as many batches one program scores both."""
    return min(config.train.eval_batch_size, max(n for _, n in sizes))


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
        params = initial.overlaid(state.params, run.begins)
        rule = optimizer(run.config.optim, run.config.train.steps, 0.0)
        state = state._replace(params=params, opt_state=jax.vmap(rule.init)(params))
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


def held_out(run: Run, split: str) -> Sequence[Batch]:
    """All batches of a split, on every device: at once, or in pieces, each made when it is asked for."""
    program, whole = run.programs.held_out[split], NamedSharding(run.mesh, WHOLE)

    def made(data):
        return hosts.place(executable(program, data, effort="once")(data), whole)

    if run.data_at == "device":
        return [made(hosts.local(run.data))]
    sizes = tuple((split, len(run.data[split]["xs"])) for split in SPLITS)
    return feed.Pieces(run.data[split], eval_rows(run.config, sizes), run.spec, made)


def source(run: Run, begin: int = 0) -> feed.Source:
    """What feeds the run from the host, from a step on."""
    lanes, rows = padded_lanes(run), run.data["train"]
    return feed.Source(run.config, run.spec, run.mesh, lanes, rows, run.buckets, begin)


def data_like(run: Run) -> Any:
    """What the training program is given of the data: arrays, or the shapes and shardings of a Fed."""
    return run.data if run.data_at == "device" else source(run).like()


def dispatched_data(run: Run, step: int) -> Iterator[Any]:
    """The same, dispatch after dispatch from a step on; to be closed."""
    if run.data_at == "host":
        yield from source(run, step).dispatches()
    while run.data_at == "device":
        yield run.data


def no_sums(run: Run) -> jax.Array:
    """The sums of an evaluation that has not begun, see `train.step.make_evaluate`."""
    shape = (len(padded_lanes(run)), run.mesh.shape["batch"], 4)
    return hosts.place(np.zeros(shape, np.float32), NamedSharding(run.mesh, PARTS))


def evaluate(run: Run, state: State, pieces: Sequence[Batch], step) -> tuple[State, dict]:
    """The state with `solved_step`, and the logs, of a split, piece after piece."""
    sums = no_sums(run)
    for piece in pieces:
        args = (state, sums), piece, np.int32(step)
        (judged, sums), logs = executable(run.programs.evaluate, *args, effort=run.effort)(*args)
    return judged, logs


def compile_training(run: Run, state: State) -> Callable:
    """The training program; `state` may be shapes."""
    return executable(run.programs.train, state, data_like(run), np.int32(0), effort=run.effort)


def compile_evaluation(run: Run, state: State, pieces: Sequence[Batch]) -> Callable:
    """That of `evaluate`, likewise."""
    return executable(run.programs.evaluate, (state, no_sums(run)), pieces[0], np.int32(0), effort=run.effort)


def compiled(run: Run, state: State, *splits: Sequence[Batch]) -> tuple[Run, float]:
    """The run with its training program, and its evaluation of each split, compiled; seconds that took."""
    start = time.perf_counter()
    train = compile_training(run, state)
    for pieces in splits:
        compile_evaluation(run, state, pieces)

    def keep(*args):  # (best, state, metric, step)
        return executable(run.programs.keep, *args, effort="once")(*args)

    programs = run.programs._replace(train=train, keep=keep)
    return run._replace(programs=programs), time.perf_counter() - start
