"""Names to frozen dataclasses: one lookup for cells and for tasks, with clear refusals."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of an error line: the nearest of `choices`, then all of them."""
    choices = list(choices)
    match = difflib.get_close_matches(str(name).lower(), choices, n=1, cutoff=0.5)
    hint = f"did you mean {match[0]!r}? " if match else ""
    return f"{hint}choices: {', '.join(choices) or 'none'}"


def options(cls: type) -> dict[str, dataclasses.Field]:
    """The options that a registered dataclass takes, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


class Registry(Generic[T]):
    """A table of frozen dataclasses of one kind ("cell", "task").

    Args:
      kind: the word that error messages use.
      table: name -> dataclass.
    """

    def __init__(self, kind: str, table: Mapping[str, type[T]]):
        self.kind = kind
        self.table = dict(table)

    def names(self) -> list[str]:
        """All registered names, in the order of registration."""
        return list(self.table)

    def cls(self, name: str) -> type[T]:
        """The dataclass behind `name`.

        Raises:
          ValueError: unknown name; the message gives the nearest one.
        """
        if name not in self.table:
            raise ValueError(f"unknown {self.kind} {name!r}; {nearest(name, self.table)}")
        return self.table[name]

    def name_of(self, obj: object) -> str:
        """The name under which the class of `obj`, or the nearest one that it derives from, is registered."""
        names: dict[type, str] = {cls: name for name, cls in self.table.items()}
        return next(names[cls] for cls in type(obj).__mro__ if cls in names)

    def get(self, name: str, **kwargs: Any) -> T:
        """Builds the object called `name` from keyword options.

        Raises:
          ValueError: unknown name or option (the message gives the nearest one), a missing
            option, or a value that the object refuses.
        """
        cls = self.cls(name)
        allowed = options(cls)
        for key in kwargs:
            if key not in allowed:
                raise ValueError(f"{self.kind} {name!r} has no option {key!r}; {nearest(key, allowed)}")
        for key, field in allowed.items():
            no_default = field.default is field.default_factory is dataclasses.MISSING
            if no_default and key not in kwargs:
                raise ValueError(f"{self.kind} {name!r} needs the option {key!r}")
        return cls(**kwargs)
