"""What a cell or a task says of itself: the first sentence of its docstring, and its options."""

import dataclasses
import inspect
import re
import textwrap

import cells
from cells.registry import nearest
from cells.registry import options as fields
from train import tasks

WIDTH = 100


def sentence(cls: type) -> str:
    """The first sentence of a class's docstring, in one line; the points within a formula end none."""
    first = inspect.cleandoc(vars(cls)["__doc__"]).split("\n\n")[0]
    return re.split(r"(?<=[^\s.][.?])\s", " ".join(first.split()))[0]


def options(cls: type) -> dict[str, str]:
    """Option -> what is said of it, in the order of the fields."""
    told = entries(cls)
    return {name: told[name] for name in fields(cls) if name in told}


def entries(cls: type) -> dict[str, str]:
    """What the docstrings of a class, and of those that it derives from, say under "Options:".

    An entry is `name: text`, or `name, name: text`; its other lines are indented more.
    """
    told = {}
    for owner in cls.__mro__:
        _, _, listed = inspect.cleandoc(vars(owner).get("__doc__") or "").partition("\nOptions:")
        for entry in re.split(r"\n  (?=\w)", listed.split("\n\n")[0])[1:]:
            names, _, said = entry.partition(":")
            for name in names.split(", "):
                told.setdefault(name, " ".join(said.split()))
    return told


def text(name: str) -> str:
    """A cell or task for people: its docstring and all its options with their defaults.

    Raises:
      ValueError: there is none of that name, with the nearest one.
    """
    table = cells.CELLS.table | tasks.TASKS.table
    if name not in table:
        raise ValueError(f"--describe={name}: no such cell or task; {nearest(name, table)}")
    cls, known = table[name], fields(table[name])
    doc = inspect.cleandoc(vars(cls)["__doc__"]).partition("\nOptions:")[0].rstrip()
    lines = [
        textwrap.fill(
            f"{option}{_default(known[option])}: {said}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
        )
        for option, said in options(cls).items()
    ]
    return "\n".join([name, "", doc, "", "Options, with their defaults:", *lines])


def listing(table: dict[str, type]) -> list[str]:
    """Every name with what it is, and each of its options with the default, a line each; what all have comes
    first, once."""
    told = {name: _lines(cls) for name, cls in table.items()}
    shared = [line for line in next(iter(told.values())) if all(line in lines for lines in told.values())]
    lines = ["  all of them", *shared] if shared else []
    for name, cls in table.items():
        lines += [f"  {name:24}  {sentence(cls)}", *(line for line in told[name] if line not in shared)]
    return lines


def _lines(cls: type) -> list[str]:
    known = fields(cls)
    return [f"    {option + _default(known[option]):22}  {said}" for option, said in options(cls).items()]


def _default(field: dataclasses.Field) -> str:
    return "" if field.default is dataclasses.MISSING else f"={field.default}"
