"""`published.toml`, read and checked: what is published, by whom, and which sweep of ours is beside it."""

import dataclasses
import functools
import tomllib
from pathlib import Path

import configs
from cells.registry import nearest
from configs import files

FILE = Path(__file__).with_name("published.toml")
UNITS = ("%", "accuracy", "bits a character", "mse", "nats a frame", "nats a step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A paper: where in it the numbers are, how they were measured, against what they were checked here."""

    authors: str
    year: int
    title: str
    table: str
    protocol: str
    checked: str

    def __str__(self):
        return f"{self.authors} {self.year}, {self.table}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """One number of a paper, and the cell of ours that stands beside it; none: ""."""

    source: Source
    model: str
    cell: str
    value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A section of the file, whose head says what the fields are."""

    name: str
    about: str
    config: str
    metric: str
    unit: str
    parameters: int
    differs: str
    published: tuple[Number, ...]
    tasks: str = ""
    pending: bool = False

    @property
    def scale(self) -> float:
        """Ours times this has the unit."""
        return 100.0 if self.unit == "%" else 1.0

    def command(self, cells: tuple[str, ...] = ()) -> str:
        """What trains ours: all cells of the sweep, or these."""
        named = f" --cells={','.join(cells)}" if cells else ""
        return f"python -m experiments.reference --run={self.name}{named}"

    def sweep(self) -> dict:
        """The configs of its sweep, by run."""
        return configs.sweep(self.config, None, [self.tasks] if self.tasks else None)

    def cell_texts(self, cell: str) -> list[str]:
        """How the sweep names a published number's cell, with its options: "tcn:levels=2"."""
        texts = () if self.pending else files.module(self.config).CELLS
        return [text for text in texts if self.stands_for(cell, text, text.split(":")[0])]

    def stands_for(self, cell: str, label: str, name: str) -> bool:
        """Whether a run of ours, by label and by name of its cell, stands beside a published number's cell.

        One with options of its own stands beside that one number alone."""
        others = {number.cell for number in self.published} - {cell}
        return cell == label or cell == name and label not in others


@functools.cache
def load(file: Path = FILE) -> dict[str, Result]:
    """The results by name, in the order of the file.

    Raises:
      ValueError: the file is not as its head says; the line names the section and the field.
    """
    try:
        content = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file.name}: {error}") from None
    pending, sources = content.pop("pending", []), content.pop("sources", {})
    sources = {name: _made(Source, name, fields) for name, fields in sources.items()}
    found = {}
    for name, fields in content.items():
        numbers = []
        for row in fields.get("published", ()):
            if row.get("source") not in sources:
                raise ValueError(f"{file.name}: {name}: source: {nearest(row.get('source'), sources)}")
            numbers.append(_made(Number, name, row | {"source": sources[row["source"]]}))
        if fields.get("unit") not in UNITS:
            raise ValueError(f"{file.name}: {name}: unit: {nearest(fields.get('unit'), UNITS)}")
        more = {"name": name, "published": tuple(numbers), "pending": fields.get("config") in pending}
        found[name] = _made(Result, name, fields | more)
    return found


def _made(cls, name: str, fields: dict):
    """The record of a section or row, with every field there and of its type."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    for given in fields:
        if given not in known:
            raise ValueError(f"published.toml: {name}: no field {given!r}; {nearest(given, known)}")
    for field in known.values():
        if field.name not in fields:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"published.toml: {name}: no {field.name}")
        elif isinstance(field.type, type) and type(fields[field.name]) not in _types(field.type):
            raise ValueError(f"published.toml: {name}: {field.name} is {fields[field.name]!r:.40}")
    return cls(**fields)


def _types(kind: type) -> tuple[type, ...]:
    return (int, float) if kind is float else (kind,)


def result(name: str) -> Result:
    """A result by name.

    Raises:
      ValueError: there is none, with the nearest name.
    """
    if name not in load():
        raise ValueError(f"unknown result {name!r}; {nearest(name, load())}")
    return load()[name]
