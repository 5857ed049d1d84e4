"""The settings of an experiment: one rule for what they may be, checked before anything is made."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import ClassVar

from cells.registry import nearest
from train.config import RunConfig
from train.model import INT32
from train.sizes import check_budget
from train.tasks.base import Synthetic

Ended = Callable[[str, RunConfig], list[dict] | None]


class NotYet(Exception):
    """What comes next is not known before a run has ended."""


class Known:
    """The runs of a part of an experiment of which it is known that they are needed.

    Args:
      ended: as for `Settings.runs`.
    """

    def __init__(self, ended: Ended):
        self.runs, self._ended = {}, ended

    def follow(self, part: Callable, *args) -> None:
        """Goes through `part(train, *args)`, with what stands for `store.Lab.train`, as far as that leads."""
        with contextlib.suppress(NotYet):
            part(self._train, *args)

    def _train(self, name, config, probe=None, settings=None) -> list[dict]:
        self.runs[name] = config
        rows = None if probe else self._ended(name, config)
        if rows is None:
            raise NotYet
        return rows


@dataclasses.dataclass(frozen=True)
class Settings:
    """Fields with defaults, one per setting. Numbers are above 0, whole ones at least 1, and below 2**31;
    tuples hold something, and nothing twice.

    A subclass says where a whole number has to be larger, what the choices are of a text, and by `runs` what
    trains: `check`, which a command calls before it begins, makes their configs.
    """

    least: ClassVar[dict[str, int]] = {}
    choices: ClassVar[dict[str, tuple]] = {}
    optional: ClassVar[tuple[str, ...]] = ()  # tuples that may be empty: that part is left out

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            several = isinstance(value, tuple)
            if several and not value and field.name not in self.optional:
                raise ValueError(f"config.{field.name} names none")
            if several and len(set(value)) < len(value):
                twice = next(item for item in value if value.count(item) > 1)
                raise ValueError(f"config.{field.name} has {twice!r} twice")
            for item in value if several else (value,):
                self._check(field.name, item)

    def runs(self, ended: Ended = lambda name, config: None) -> dict[str, RunConfig]:
        """The training runs, by name; without those of which it is not known yet whether they are needed.

        Args:
          ended: the rows of a run that has ended, or None.
        """
        return {}

    def configs(self) -> Iterable[RunConfig]:
        """Of the runs, and of others that show what a model may be; settings that do not go together are
        refused."""
        return self.runs().values()

    def check(self) -> None:
        """Makes the configs, and sees whether every model can be as small as its budget.

        Raises:
          ValueError: one is refused, or its budget is too small.
        """
        for config in self.configs():
            if config.parameters and isinstance(config.task, Synthetic):  # whose data costs nothing
                spec = config.task.spec(config.task.load())
                check_budget(config.cell, spec, config.model, config.parameters)

    def _check(self, name: str, value) -> None:
        if name in self.choices:
            if value not in self.choices[name]:
                raise ValueError(f"config.{name}: unknown {value!r}; {nearest(value, self.choices[name])}")
        elif isinstance(value, bool | str):
            return
        elif isinstance(value, int) and name in self.whole():
            least = self.least.get(name, 1)
            self.require(name, least <= value <= INT32, f"{least} to {INT32}", value)
        else:
            self.require(name, math.isfinite(value) and value > 0, "above 0", value)

    def of(self, *names: str) -> dict:
        """Some of the settings, by name."""
        return {name: getattr(self, name) for name in names}

    @classmethod
    def whole(cls) -> set[str]:
        """The settings that are whole numbers, or hold some."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        items = {name: value if isinstance(value, tuple) else (value,) for name, value in defaults.items()}
        return {name for name, values in items.items() if all(type(item) is int for item in values)}

    def require(self, name: str, ok: bool, wanted: str, value=None) -> None:
        """Refuses a setting with one line.

        Raises:
          ValueError: `ok` is false.
        """
        if not ok:
            value = getattr(self, name) if value is None else value
            raise ValueError(f"config.{name} must be {wanted}, got {value!r}")
