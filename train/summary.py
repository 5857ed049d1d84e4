"""What a run tells of itself: an evaluation (a line of metrics.jsonl), and its summary (summary.json).

The columns of every table of runs are the fields of these records.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class Record(Mapping):
    """A frozen dataclass that also reads as the dict it is written as: `record["task"]`, `dict(record)`."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the fields, in order."""
        return tuple(_kinds(cls))

    needed: ClassVar[tuple[str, ...]] = ()  # fields that every version wrote

    @classmethod
    def from_dict(cls, values: Mapping) -> "Record":
        """The inverse of `to_dict`; what an older version did not write is None.

        Raises:
          ValueError: a field that is needed is not there, or one has another type.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{values!r:.40} has no fields")
        for name in cls.needed:
            if values.get(name) is None:
                raise ValueError(f"no {name}")
        return cls(**{name: _read(name, kinds, values) for name, kinds in _kinds(cls).items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self)

    def __getitem__(self, name: str):
        if name not in self.names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __or__(self, other: Mapping) -> dict:
        return {**self, **other}

    def __ror__(self, other: Mapping) -> dict:
        return {**other, **self}


@functools.cache
def _kinds(cls) -> dict[str, tuple]:
    """The types that each field may have."""
    return {field.name: typing.get_args(field.type) or (field.type,) for field in dataclasses.fields(cls)}


def _read(name: str, kinds: tuple, values: Mapping):
    value = values.get(name)
    if value is None:  # JSON has no number for it
        return math.nan if name in values and kinds == (float,) else None
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        raise ValueError(f"{name} is {value!r:.40}, not {kinds[0].__name__}")
    return value


@dataclasses.dataclass(frozen=True)
class Evaluation(Record):
    """One seed at one evaluation."""

    needed: ClassVar[tuple[str, ...]] = ("seed", "step")
    seed: int
    learning_rate: float
    step: int
    examples: int
    tokens: int
    seconds: float  # of training so far, all seeds of the run together, without compilation
    train_loss: float  # mean over the steps since the last evaluation; NaN where it was not finite
    valid_loss: float
    valid_metric: float


@dataclasses.dataclass(frozen=True)
class SeedSummary(Record):
    """One seed of a run, with one learning rate, at the end."""

    needed: ClassVar[tuple[str, ...]] = ("seed", "solved", "final_step")
    seed: int
    learning_rate: float
    solved: bool
    solved_step: int | None  # these four: of the first evaluation that reached the task's threshold
    solved_examples: int | None
    solved_tokens: int | None
    solved_seconds: float | None
    final_step: int
    train_loss: float | None  # these three: of the last evaluation that was finite
    valid_loss: float | None
    valid_metric: float | None
    test_loss: float
    test_metric: float
    best_step: int | None  # these four: of the evaluation with the best validation metric
    best_valid_metric: float | None
    best_test_loss: float | None
    best_test_metric: float | None
    diverged_step: int | None


@dataclasses.dataclass(frozen=True)
class RunSummary(Record):
    """What the seeds of a run share."""

    needed: ClassVar[tuple[str, ...]] = ("task", "cell", "label", "metric", "higher_is_better", "status")
    task: str
    cell: str
    label: str
    metric: str
    higher_is_better: bool
    threshold: float
    baseline: float
    parameters: int
    hidden_size: int
    state_size: int  # numbers that the state of one sequence has, in all layers
    strategy: str
    batch_size: int
    budget_steps: int
    steps: int  # the last one that some seed took
    seconds_per_step: float
    compile_seconds: float
    run_seconds: float
    status: str  # "finished" | "interrupted" | "diverged"
    device: str
    devices: int
    seed_batching: str
    message: str  # one line for a person, where the run did not just finish


@dataclasses.dataclass(frozen=True)
class Summary(Record):
    """A run that has ended."""

    run: RunSummary
    seeds: tuple[SeedSummary, ...]

    @property
    def lost(self) -> bool:
        """Whether it has no result: all its seeds diverged, or one did where that stops the run."""
        return self.run.status == "diverged" or all(seed.diverged_step is not None for seed in self.seeds)

    @classmethod
    def from_dict(cls, values):
        run, seeds = (values.get(name) if isinstance(values, Mapping) else None for name in cls.names())
        if not isinstance(run, Mapping) or not isinstance(seeds, list) or not seeds:
            raise ValueError("no run and no seeds in it")
        return cls(RunSummary.from_dict(run), tuple(map(SeedSummary.from_dict, seeds)))

    def to_dict(self):
        return {"run": self.run.to_dict(), "seeds": [seed.to_dict() for seed in self.seeds]}
