"""What a run needs at least, before anything is compiled: a run that cannot fit says so with the numbers."""

import math
import os
from pathlib import Path
from typing import Any

import jax

from train import feed
from train.config import RunConfig
from train.model import Model, input_width
from train.tasks.base import InMemory, Spec

# Numbers that an optimiser keeps per parameter, at least.
SLOTS = {"adam": 2, "adamw": 2, "rmsprop": 1, "sgd": 1, "muon": 1, "schedule_free_adamw": 2}
ON_DEVICE = 0.5  # of a device's memory, which data may take where `train.data` is "auto"
CGROUP = Path("/sys/fs/cgroup/memory.max")


def data_at(config: RunConfig, spec: Spec, data: Any, sizes: dict[str, int], devices: list) -> str:
    """Where training rows are gathered, "device" or "host": as `train.data` says; "auto" is the device where
    the data, held-out examples as the model reads them, take at most half (ON_DEVICE) of its memory.

    Args:
      sizes: split -> number of held-out examples.

    Raises:
      ValueError: the task has no rows in memory, or the library that gathers them is not installed.
    """
    asked, in_memory = config.train.data, isinstance(config.task, InMemory)
    if asked == "host" and not in_memory:
        raise ValueError(f"config.train.data='host' has no effect: {config.task.name} has no rows to gather")
    if asked == "device" or not in_memory:
        return "device"
    there = min(available([device]) for device in devices if device.process_index == jax.process_index())
    needed = stored(data) + feed.example_bytes(spec) * sum(sizes.values())
    if asked == "auto" and needed <= ON_DEVICE * there:
        return "device"
    try:
        feed.grain()
    except ValueError as error:
        why = f"the data take {_size(needed)}, a device has {_size(there)}; " if asked == "auto" else ""
        raise ValueError(f"{why}{error}") from None
    return "host"


def stored(data: Any) -> int:
    """Bytes of arrays."""
    return sum(array.nbytes for array in jax.tree.leaves(data))


def check(
    config: RunConfig,
    spec: Spec,
    model: Model,
    data: Any,
    data_at: str,
    sizes: dict[str, int],
    devices: list,
) -> None:
    """Refuses a run that needs more memory than there is, by what it needs at the very least.

    Args:
      data_at: where training rows are gathered.
      sizes: split -> number of held-out examples.

    Raises:
      ValueError: with what it needs, what there is, and what would need less.
    """
    here = [device for device in devices if device.process_index == jax.process_index()]
    hosts = len({device.process_index for device in devices})
    there = hosts * available(here)
    needed = needs(config, spec, model, data, data_at, sizes, len(devices))
    total = sum(needed.values())
    if total <= there:
        return
    listed = ", ".join(f"{name} {_size(count)}" for name, count in needed.items() if count > total / 100)
    states, weights, rows, examples, evaluation = needed.values()
    wide = "model.embedding_size" if config.model.embedding_size else "cell.hidden_size"
    hint = f"fewer seeds or a smaller {wide}"
    if rows > states + weights + examples + evaluation:
        hint = "train.data=host" if data_at == "device" else "a smaller train.eval_every or train.batch_size"
    elif states > weights + rows + examples + evaluation:
        hint = "a smaller train.batch_size or shorter sequences"
        if config.model.remat == 0:
            hint += f", or model.remat=-1 ({math.isqrt(spec.time)} of {spec.time} steps kept)"
    elif evaluation > weights + rows + examples:
        hint = "a smaller train.eval_batch_size or shorter sequences"
    elif examples > weights + rows:
        hint = "fewer held-out examples or shorter sequences"
    raise ValueError(
        f"this run needs at least {_size(total)} of memory, and there are {_size(there)}: {listed}; "
        f"take {hint}"
    )


def needs(
    config: RunConfig, spec: Spec, model: Model, data: Any, data_at: str, sizes: dict, devices: int
) -> dict[str, int]:
    """Bytes by what for, lower bounds, of all devices together: states, weights, training rows, held-out
    examples, an evaluation."""
    options, every = config.train, config.model.remat
    lanes = options.seeds * max(1, len(config.optim.learning_rates))
    at_once = lanes if options.seed_batching == "vmap" else min(lanes, devices)
    directions = 2 if config.model.bidirectional else 1
    steps = spec.time if every == 0 else spec.time / (math.isqrt(spec.time) if every < 0 else every)
    states = steps * config.cell.hidden_size * directions * config.model.depth
    inputs = spec.time * input_width(config.cell.hidden_size, spec, config.model)
    eval_time = spec.eval_time or spec.time
    examples = feed.example_bytes(spec) * sum(sizes.values())
    what_rows, rows = "data", stored(data)
    if data_at == "host":
        examples = min(examples, feed.PIECE)
        batches = feed.batches(config, spec)
        what_rows = f"batches of two times {options.eval_every} steps"
        rows = (
            2
            * batches
            * options.seeds
            * options.batch_size
            * stored(data["train"])
            // len(data["train"]["xs"])
        )
    width = 2 if config.model.compute_dtype == "bfloat16" else 4  # bytes
    each = 1 + SLOTS[config.optim.optimizer]
    seeds = f"{at_once} seed{'s' * (at_once > 1)} at once"
    at_once_in_time = every == 0 and config.model.strategy != "stepwise"
    attends = config.cell.dynamics == "attention" and at_once_in_time
    scores = config.cell.heads if attends else 0  # of each step with each
    states += scores * spec.time**2 * config.model.depth
    scored = min(options.eval_batch_size, max(sizes.values()))
    evaluated = eval_time * (config.cell.hidden_size * directions + scores * eval_time)
    what = f"states of {options.batch_size} x {spec.time} steps, {seeds}"
    return {
        what: int(width * at_once * options.batch_size * (states + inputs)),
        "parameters and optimiser": 4 * model.parameters * (lanes * each + at_once),
        what_rows: rows,
        "held-out examples": examples,
        f"an evaluation of {scored} x {eval_time} steps": int(width * at_once * scored * evaluated),
    }


def available(devices: list) -> int:
    """Bytes of memory of the devices, or of the machine where they are its processors."""
    if devices[0].platform != "cpu":
        limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
        return sum(limits) if all(limits) else 2**62
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**62  # another system: the attempt will tell
    try:
        return min(there, int(CGROUP.read_text()))
    except (OSError, ValueError):
        return there


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{count:.3g} {unit}"
        count /= 1000
