"""What a run needs at least, before anything is compiled: a run that cannot fit says so with the numbers."""

import math
import os
from pathlib import Path

import jax

from train.config import RunConfig
from train.model import Model, input_width
from train.tasks.base import Spec

SLOTS = {"adam": 2, "adamw": 2, "rmsprop": 1, "sgd": 1}  # numbers that an optimiser keeps per parameter
CGROUP = Path("/sys/fs/cgroup/memory.max")


def check(config: RunConfig, spec: Spec, model: Model, sizes: dict[str, int], devices: list) -> None:
    """Refuses a run that needs more memory than there is, by what it needs at the very least.

    Args:
      sizes: split -> number of held-out examples.

    Raises:
      ValueError: with what it needs, what there is, and what would need less.
    """
    here = [device for device in devices if device.process_index == jax.process_index()]
    hosts = len({device.process_index for device in devices})
    there, needed = hosts * available(here), needs(config, spec, model, sizes, len(devices))
    total = sum(needed.values())
    if total <= there:
        return
    listed = ", ".join(f"{name} {_size(count)}" for name, count in needed.items() if count > total / 100)
    states, weights, examples, evaluation = needed.values()
    wide = "model.embedding_size" if config.model.embedding_size else "cell.hidden_size"
    hint = f"fewer seeds or a smaller {wide}"
    if states > weights + examples + evaluation:
        hint = "a smaller train.batch_size or shorter sequences"
        if config.model.remat == 0:
            hint += f", or model.remat=-1 ({math.isqrt(spec.time)} of {spec.time} steps kept)"
    elif evaluation > weights + examples:
        hint = "a smaller train.eval_batch_size or shorter sequences"
    elif examples > weights:
        hint = "fewer held-out examples or shorter sequences"
    raise ValueError(
        f"this run needs at least {_size(total)} of memory, and there are {_size(there)}: {listed}; "
        f"take {hint}"
    )


def needs(config: RunConfig, spec: Spec, model: Model, sizes: dict, devices: int) -> dict[str, int]:
    """Bytes by what for, lower bounds, of all devices together: states, weights, examples, an evaluation."""
    options, every = config.train, config.model.remat
    lanes = options.seeds * max(1, len(config.optim.learning_rates))
    at_once = lanes if options.seed_batching == "vmap" else min(lanes, devices)
    directions = 2 if config.model.bidirectional else 1
    steps = spec.time if every == 0 else spec.time / (math.isqrt(spec.time) if every < 0 else every)
    states = steps * config.cell.hidden_size * directions * config.model.depth
    inputs = spec.time * input_width(config.cell.hidden_size, spec, config.model)
    eval_time = spec.eval_time or spec.time
    example = eval_time * (1 if spec.inputs == "tokens" else spec.input_size)
    width = 2 if config.model.compute_dtype == "bfloat16" else 4  # bytes
    each = 1 + SLOTS[config.optim.optimizer]
    seeds = f"{at_once} seed{'s' * (at_once > 1)} at once"
    at_once_in_time = every == 0 and config.model.strategy != "stepwise"
    attends = config.cell.dynamics == "attention" and at_once_in_time
    scores = config.cell.heads if attends else 0  # of each step with each
    states += scores * spec.time**2 * config.model.depth
    rows = min(options.eval_batch_size, max(sizes.values()))
    evaluated = eval_time * (config.cell.hidden_size * directions + scores * eval_time)
    what = f"states of {options.batch_size} x {spec.time} steps, {seeds}"
    return {
        what: int(width * at_once * options.batch_size * (states + inputs)),
        "parameters and optimiser": 4 * model.parameters * (lanes * each + at_once),
        "held-out examples": 4 * example * sum(sizes.values()),
        f"an evaluation of {rows} x {eval_time} steps": int(width * at_once * rows * evaluated),
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
