"""People's own tables: a .csv with a line for each step, as sequences."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cells.registry import nearest
from train.tasks.datasets import DataError
from train.tasks.own.sequences import Sequences

MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]  # of a number


class Columns(NamedTuple):
    """Which columns are what; `weight` and `split` are those of these names, unless they are features."""

    sequence: str  # empty: all lines are one sequence
    step: str  # empty: as the lines stand
    targets: tuple[str, ...]
    features: tuple[str, ...]  # empty: all others
    forecast: bool  # targets are features, too; none: all
    per_step: bool  # a target at every step
    classes: bool  # targets are classes, not numbers


def read(path: Path, place: str, columns: Columns) -> Sequences:
    """The sequences of a table, by name; their steps in order.

    Raises:
      DataError: with the line and column, or the sequence.
    """
    header = _header(path, place)
    features = columns.features or _others(header, columns)
    sequence, step = (name or None for name in (columns.sequence, columns.step))
    for option, names in {
        "sequence": [sequence], "step": [step], "target": columns.targets, "features": features
    }.items():  # fmt: skip
        for name in names:
            if name is not None and name not in header:
                raise DataError(
                    f"{place}: no column {name!r}, which task.{option} names; {nearest(name, header)}"
                )
    if not features:
        raise DataError(f"{place}: no column is left for the features; columns: {', '.join(header)}")
    texts = {sequence, *(columns.targets if columns.classes else ())} | ({"split"} - set(features))
    table = _table(path, place, header, texts - {None})
    lines = table.index.to_numpy() + 2
    names, codes = [path.name], np.zeros(len(table), int)
    if sequence:
        _there(table[sequence], place, lines)
        codes, found = pd.factorize(table[sequence], sort=True)
        names = [f"sequence {name!r}" for name in found.tolist()]
    times = np.arange(len(table), dtype=float) if step is None else _times(table[step], place, lines)
    order = np.lexsort((times, codes))
    codes, times, lines = codes[order], times[order], lines[order]
    for i in np.flatnonzero((codes[1:] == codes[:-1]) & (times[1:] == times[:-1]))[:1]:
        said = table[step].iloc[order[i]]
        raise DataError(
            f"{place}, line {max(lines[i : i + 2])}: step {said} of {names[codes[i]]} a second time "
            f"(first in line {min(lines[i : i + 2])})"
        )
    table = table.iloc[order]
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    extra = {}
    xs = np.stack([_numbers(table[name], place, lines) for name in features], axis=1)
    if columns.targets:
        given = [table[name] for name in columns.targets]
        if columns.classes:
            ys = _texts(given[0])
        else:
            ys = np.stack([_numbers(column, place, lines) for column in given], axis=1)
        hint = f", or task.answer={'class' if columns.classes else 'number'}_per_step"
        extra["ys"] = (
            ys if columns.per_step else _one_each(ys, starts, place, names, columns.targets[0], hint)
        )
    if "weight" in header and "weight" not in features:
        weights = _numbers(table["weight"], place, lines)
        extra["weights"] = weights if columns.per_step else _one_each(weights, starts, place, names, "weight")
    if "split" in header and "split" not in features:
        extra["split"] = _one_each(_texts(table["split"]), starts, place, names, "split")
    if columns.forecast and set(columns.targets) <= set(features):
        extra["targets"] = tuple(map(features.index, columns.targets)) or None
    lengths = np.diff(np.r_[starts, len(codes)])
    extra["times"] = None if step is None else times
    return Sequences(place, names, lengths, xs, list(features), **extra)


def _header(path: Path, place: str) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{place} is no table of UTF-8 text: {type(error).__name__}: {error}") from error
    if not header:
        raise DataError(f"{place} is empty: needed: a line of column names, then a line for each step")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(
                f"{place}: columns are separated by {name}: save it with commas, and decimal points"
            )
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"{place}: two columns are called {name!r}")
    return header


def _others(header: list[str], columns: Columns) -> tuple[str, ...]:
    """The columns that are nothing else."""
    taken = {columns.sequence, columns.step, "weight", "split"}
    taken |= set() if columns.forecast else set(columns.targets)
    return tuple(name for name in header if name not in taken)


def _table(path: Path, place: str, header: list[str], texts: set[str]) -> pd.DataFrame:
    """Lines that are not blank, numbered from 0."""
    missing = {name: [""] if name in texts else MISSING for name in header}
    try:
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            na_values=missing,
            keep_default_na=False,
            low_memory=False,
            skip_blank_lines=False,
        )
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        raise DataError(f"{place} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"{place}: its lines have more fields than there are columns, {len(header)}")
    table = table.dropna(how="all")
    if not len(table):
        raise DataError(f"{place}: a line of column names, and nothing below it")
    return table


def _there(column: pd.Series, place: str, lines) -> None:
    for i in np.flatnonzero(column.isna())[:1]:
        raise DataError(f"{place}, line {lines[i]}: column {column.name!r} is empty")


def _numbers(column: pd.Series, place: str, lines) -> np.ndarray:
    """A column as float64, NaN where it is empty."""
    if column.dtype.kind in "iufb":
        return column.to_numpy(float)
    numbers = pd.to_numeric(column, errors="coerce")
    for i in np.flatnonzero(numbers.isna() & column.notna())[:1]:
        raise DataError(
            f"{place}, line {lines[i]}: column {column.name!r} holds {column.iloc[i]!r}, which is no number; "
            "the features are all columns that are nothing else, or those of task.features=..."
        )
    return numbers.to_numpy(float)


def _times(column: pd.Series, place: str, lines) -> np.ndarray:
    """A column of steps as float64: numbers, or dates as seconds."""
    _there(column, place, lines)
    if column.dtype.kind in "iufb":
        return column.to_numpy(float)
    dates = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    numbers = pd.to_numeric(column, errors="coerce")
    for i in np.flatnonzero(numbers.isna() if numbers.notna().any() else dates.isna())[:1]:
        raise DataError(
            f"{place}, line {lines[i]}: column {column.name!r} holds {column.iloc[i]!r}, "
            "which is neither a number nor a date as 2024-01-31 12:00"
        )
    return (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(float)


def _texts(column: pd.Series) -> np.ndarray:
    """A column as numbers, where all are, else as text; empty where nothing stands there."""
    if column.dtype.kind in "iufb":
        return column.to_numpy()
    return column.fillna("").astype(str).to_numpy().astype(str)


def _one_each(values: np.ndarray, starts, place: str, names, column: str, hint: str = "") -> np.ndarray:
    """The one value of each sequence, where any of its lines has it; NaN or empty where none has."""
    missing = values == "" if values.dtype.kind == "U" else np.isnan(values.astype(float))
    missing = missing.reshape(len(missing), -1).any(axis=1)
    places = np.where(missing, len(values), np.arange(len(values)))
    first = np.minimum.reduceat(places, starts)
    first = np.where(first == len(values), starts, first)
    row = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    differs = (values != values[first][row]).reshape(len(values), -1).any(axis=1) & ~missing
    for i in np.flatnonzero(differs)[:1]:
        one, other = (np.ravel(values[at])[0].item() for at in (first[row[i]], i))
        said = f"column {column!r} is {one!r} and {other!r}"
        raise DataError(f"{place}, {names[row[i]]}: {said}; one value is asked for{hint}")
    return values[first]
