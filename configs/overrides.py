"""Fields set from the text of flags, in a ConfigDict or a frozen dataclass: one way for both.

set_field(config, "task.gap", "400")                     # a ConfigDict, in place
settings = replaced(settings, {"gaps": "10,20"})         # a frozen dataclass, a copy
"""

import ast
import dataclasses
import types
import typing

from ml_collections import ConfigDict

from cells.registry import nearest


class UnknownFieldError(ValueError):
    """There is no such field.

    path: the field, "task.gap".
    """

    def __init__(self, path: str, line: str):
        super().__init__(line)
        self.path = path


def literal(text):
    """What a flag's text says: a number, True, None, a tuple, else the text; no text is left as it is."""
    if not isinstance(text, str):
        return text
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def read(text, kind: type, flag: str, items: type | None = None, optional: bool = True):
    """The value of a field that is a `kind`, from the text of its flag or from a value.

    Args:
      flag: what the error line calls the field.
      items: what a tuple's items are: str, where "a,b" are two words, int or float; None: not checked.
      optional: whether None will do.

    Raises:
      ValueError: a value of another type.
    """
    value = text if kind is str and isinstance(text, str) else literal(text)
    if kind is types.NoneType:  # an empty field that lost its type
        return value
    if kind is tuple and not (value is None or isinstance(value, str) and items is not str):
        value = value.split(",") if isinstance(value, str) else value
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        value = tuple(map(str, value)) if items is str else value
    elif kind is str and value is not None:
        value = str(value)
    elif kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{flag} must be float, got a number of {len(str(text))} digits") from None
    fits = optional if value is None else _is_a(value, kind)
    if fits and items in (int, float) and value is not None:
        fits = all(_is_a(item, items) or type(item) is int for item in value)
    if not fits:
        wanted = f"{kind.__name__} of {items.__name__}s" if items else kind.__name__
        raise ValueError(f"{flag} must be {wanted}, got {value!r}")
    return value


def _is_a(value, kind: type) -> bool:
    """Whether it is of that type; True and False are no numbers."""
    return isinstance(value, kind) and isinstance(value, bool) is (kind is bool)


def set_field(config: ConfigDict, path: str, value) -> None:
    """Sets one field ("task.gap") of a ConfigDict from text or a value.

    Raises:
      UnknownFieldError: no such field, with the nearest one.
      ValueError: a section, or a value of another type.
    """
    section = config
    *parents, field = path.split(".")
    for depth, name in enumerate([*parents, field]):
        if not isinstance(section, ConfigDict) or name not in section:
            where = ".".join(["config", *path.split(".")[:depth]])
            known = section if isinstance(section, ConfigDict) else []
            named = f" of {section.name!r}" if "name" in known else ""
            raise UnknownFieldError(path, f"{where}{named} has no field {name!r}; {nearest(name, known)}")
        section = section[name] if depth < len(parents) else section
    if isinstance(section[field], ConfigDict):
        raise ValueError(f"config.{path} is a section; set one of its fields: {', '.join(section[field])}")
    section[field] = read(value, section.get_type(field), f"config.{path}")


def replaced(settings, fields: dict):
    """A frozen dataclass with fields replaced, from texts or values.

    The type of a field is that of its value; of a tuple's items too, so that "1,2" are words where there are
    words by default.

    Raises:
      UnknownFieldError: no such field, with the nearest one.
      ValueError: a value of another type.
    """
    hints = typing.get_type_hints(type(settings))
    values = {}
    for name, text in fields.items():
        if name not in hints:
            raise UnknownFieldError(name, f"config has no field {name!r}; {nearest(name, hints)}")
        kinds = [kind for kind in typing.get_args(hints[name]) if isinstance(kind, type)]
        optional = types.NoneType in kinds
        default = getattr(settings, name)
        kind = type(default) if default is not None else next(k for k in kinds if k is not types.NoneType)
        of = {type(item) for item in default} if kind is tuple and default else set()
        items = next((item for item in (str, float, int) if item in of), None)
        values[name] = read(text, kind, f"config.{name}", items, optional)
    return dataclasses.replace(settings, **values)
