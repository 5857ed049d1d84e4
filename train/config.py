"""One frozen, typed description of a run. Files in `configs/` build it; flags override any field."""

import dataclasses
import math
from typing import Any

import cells
from cells.base import require
from cells.registry import nearest
from train import effects, tasks
from train.model import INT32, ModelConfig
from train.sinks import LOGGERS

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd", "muon", "schedule_free_adamw")
SCHEDULES = ("constant", "cosine", "linear")
ON_NAN = ("stop", "drop")
CHRONO = ("task", "cell")
SEED_BATCHING = ("auto", "vmap", "map")
DATA = ("auto", "device", "host")


def _require_choice(owner, option, choices):
    value = getattr(owner, option)
    require(owner, option, value in choices, f"known; {nearest(value, choices)}")


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require_positive(owner, *options):
    for option in options:
        value = getattr(owner, option)
        require(owner, option, _is_number(value) and value > 0, "above 0")


def _require_at_least_0(owner, *options, most=math.inf):
    for option in options:
        value = getattr(owner, option)
        wanted = "0 or more" if most == math.inf else f"0 to {most}"
        require(owner, option, _is_number(value) and 0 <= value <= most, wanted)


def _require_whole(owner, least, *options):
    for option in options:
        value = getattr(owner, option)
        whole = type(value) is int and least <= value <= INT32
        require(owner, option, whole, f"a whole number, {least} to {INT32}")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """How parameters are updated.

    Options:
      optimizer: one of OPTIMIZERS (optax's). "muon" (Jordan 2024) orthogonalises the steps of the layers'
        matrices, in the size of AdamW's, which moves the rest: embedding, head, biases, norms.
        "schedule_free_adamw" (Defazio 2024, "The road less scheduled") evaluates and keeps an average of the
        parameters.
      learning_rate: at its highest, after warm-up.
      learning_rates: a grid: every seed trains with each of them, in one program, in place of learning_rate.
      schedule: after warm-up: "constant", or down to learning_rate * final_fraction at the last step by
        "cosine" or "linear". "schedule_free_adamw" has the constant one, and neither option acts.
      warmup_steps: linear warm-up from 0.
      clip_norm: gradients are scaled to at most this global norm; 0 turns it off.
      weight_decay: of "adamw", "muon" and "schedule_free_adamw".
      momentum: of "sgd".
    """

    optimizer: str = "adam"
    learning_rate: float = 3e-3
    learning_rates: tuple = ()
    schedule: str = "cosine"
    final_fraction: float = 0.1
    warmup_steps: int = 50
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9

    def __post_init__(self):
        _require_choice(self, "optimizer", OPTIMIZERS)
        _require_choice(self, "schedule", SCHEDULES)
        _require_positive(self, "learning_rate")
        rates = self.learning_rates
        numbers = isinstance(rates, list | tuple) and all(_is_number(r) and r > 0 for r in rates)
        different = numbers and len(set(rates)) == len(rates)
        require(self, "learning_rates", different, "different numbers above 0")
        object.__setattr__(self, "learning_rates", tuple(rates))  # JSON has lists
        _require_whole(self, 0, "warmup_steps")
        _require_at_least_0(self, "clip_norm", "weight_decay")
        _require_at_least_0(self, "final_fraction", "momentum", most=1)

    @property
    def schedule_free(self) -> bool:
        """Whether parameters are averaged in place of a decay of the learning rate."""
        return self.optimizer == effects.SCHEDULE_FREE


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, on what, and what is kept.

    Options:
      steps: budget of optimiser steps.
      batch_size: sequences per step and seed.
      seeds: how many seeds train together; seed: the first of them.
      seed_batching: how the seeds of one device train together: "vmap", in one batched program; "map",
        one after the other inside the program; "auto": see `train.lanes.seed_batching`.
      batch_devices: how many devices share the batch of a seed; 0: see `train.lanes.layout`.
      time_devices: how many devices share the steps of a sequence; above 1 the cell has to be linear.
      segment: truncated backpropagation: an optimiser step takes so many steps of each sequence, the next one
        the next so many, from the state where those ended; 0: sequences are trained as a whole.
      buckets: of data whose rows differ in length: batches of rows that are about as long, padded to one of
        so many lengths; 1: every batch is padded to the longest row there is.
      data: of data sets, where training rows are gathered: on the "device", which then holds all of them, or
        on the "host", which sends the next batches while the device trains (`train.feed`; needs the extra
        `grain`); "auto": on the device where the data fit, see `train.memory.data_at`.
      eval_every: steps between evaluations on held-out data; also the steps of one dispatch.
      eval_batch_size: sequences per evaluation batch.
      stop_when_solved: a seed stops at the evaluation that reaches the task's threshold; the run ends
        when every seed has stopped. Off: every seed uses the whole budget.
      race: for tuning: the run ends after this many times the steps in which one of the learning rates has
        solved the task with all of its seeds, since the others cannot be faster any more; 0: it does not.
      to_beat: steps in which another run did; a race counts them like those of a rate of its own; 0: none.
      on_nan: what a seed whose loss or gradient is not finite does: "stop" the run, or "drop" out
        while the other seeds go on. Its parameters before that step are kept.
      checkpoint_seconds: at least this long between checkpoints; one is always written at the end.
      tensorboard: also write TensorBoard events (needs the extra `tensorboard`).
      logger: also send evaluations to "trackio" or "wandb" (need the extras of these names); empty: to none.
    """

    steps: int = 1000
    batch_size: int = 32
    seeds: int = 4
    seed: int = 0
    seed_batching: str = "auto"
    batch_devices: int = 0
    time_devices: int = 1
    segment: int = 0
    buckets: int = 1
    data: str = "auto"
    eval_every: int = 100
    eval_batch_size: int = 256
    stop_when_solved: bool = True
    race: float = 0.0
    to_beat: int = 0
    on_nan: str = "stop"
    checkpoint_seconds: float = 30.0
    tensorboard: bool = False
    logger: str = ""

    def __post_init__(self):
        _require_whole(self, 1, "steps", "batch_size", "seeds", "eval_every", "eval_batch_size")
        _require_whole(self, 0, "seed", "batch_devices", "segment", "to_beat")
        _require_whole(self, 1, "time_devices", "buckets")
        require(self, "buckets", self.buckets <= 16, "at most 16: each is a program of its own")
        _require_at_least_0(self, "checkpoint_seconds", "race")
        require(self, "race", self.race == 0 or self.race >= 1, "0 or at least 1")
        last = self.seed + self.seeds - 1
        require(self, "seeds", last <= INT32, f"so few that the last seed, {last}, is at most {INT32}")
        _require_choice(self, "on_nan", ON_NAN)
        _require_choice(self, "seed_batching", SEED_BATCHING)
        _require_choice(self, "data", DATA)
        _require_choice(self, "logger", LOGGERS)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that a run's numbers depend on, but for the software and the machine.

    Options:
      parameters: budget of parameters: the cell's hidden_size becomes the one whose whole model is
        nearest to it; 0: `cell.hidden_size` as it is.
      chrono: "task": a cell with options for its time scales, such as `chrono` (chrono initialisation,
        Tallec & Ollivier 2018), is told the task's length by them, see `cells.Cell.for_length`; if one of
        them has a value of its own, the cell stays as it is. "cell": left as the cell has it.
      label: the name in tables and legends; empty: the cell's name.
      init: folder of a run; every seed begins with the parameters of its best validation result. Empty: with
        those of its own that the cell and the model make.
    """

    cell: cells.Cell
    task: tasks.Task
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    parameters: int = 0
    chrono: str = "task"
    label: str = ""
    init: str = ""

    def __post_init__(self):
        _require_choice(self, "chrono", CHRONO)
        _require_whole(self, 0, "parameters")
        effects.refuse(self, "model", "optim", "train")

    @property
    def lanes(self) -> list[tuple[int, float]]:
        """What trains side by side: (seed, learning rate), the seeds of the first rate first."""
        rates = self.optim.learning_rates or (self.optim.learning_rate,)
        seeds = range(self.train.seed, self.train.seed + self.train.seeds)
        return [(seed, rate) for rate in rates for seed in seeds]

    @property
    def dispatch_steps(self) -> int:
        """Optimiser steps in one dispatch."""
        return min(self.train.eval_every, self.train.steps)

    def to_dict(self) -> dict:
        """Nested plain dict, for JSON."""
        as_dict = dataclasses.asdict(self)
        for section, registry in (("cell", cells.CELLS), ("task", tasks.TASKS)):
            as_dict[section] = {"name": registry.name_of(getattr(self, section)), **as_dict[section]}
        return as_dict

    @classmethod
    def from_dict(cls, config: dict) -> "RunConfig":
        """The inverse of `to_dict`.

        Raises:
          ValueError: unknown section, field, cell, task or option (with the nearest name), or a value
            that a section refuses.
        """
        config = dict(config)
        built: dict[str, Any] = {}
        for section, get in (("cell", cells.get), ("task", tasks.get)):
            fields = dict(config.pop(section, {}))
            if "name" not in fields:
                raise ValueError(f"config.{section} needs a name")
            built[section] = get(fields.pop("name"), **fields)
        for section, kind in (("model", ModelConfig), ("optim", OptimConfig), ("train", TrainConfig)):
            fields = dict(config.pop(section, {}))
            allowed = [field.name for field in dataclasses.fields(kind)]
            for name in fields:
                if name not in allowed:
                    raise ValueError(f"config.{section} has no field {name!r}; {nearest(name, allowed)}")
            built[section] = kind(**fields)
        rest = [field.name for field in dataclasses.fields(cls)]
        for name in config:
            if name not in rest:
                raise ValueError(f"config has no field {name!r}; {nearest(name, rest)}")
        return cls(**built, **config)
