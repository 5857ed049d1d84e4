"""People's own tables: a .csv with a line for each step, as sequences."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cells.registry import nearest
from train.tasks.datasets import DataError
from train.tasks.own.sequences import Sequences

MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]  # of a number or a class
WHOLE = r"-?(0|[1-9]\d{0,14})(\.0*)?"  # what float64 holds exactly, and no name such as 007
DECIMAL = r"-?(0|[1-9]\d*)(\.\d*)?"


class Columns(NamedTuple):
    """Which columns are what; `weight` and `split` are those of these names, unless taken otherwise."""

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
    header, index = _header(path, place)
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
    more = {"weight", "split"} & set(header) - {*features, *columns.targets, sequence, step}
    texts = {sequence, step, *(columns.targets if columns.classes else ())} | ({"split"} & more)
    table, lines = _table(path, place, [*index, *header], texts - {None})
    if index and not np.array_equal(table[""], np.arange(len(table))):
        raise DataError(
            f"{place}: the first column has no name, and is not the count of pandas: 0, 1, 2, ..."
        )
    names, codes = [place], np.zeros(len(table), int)
    if sequence:
        _there(table[sequence], place, lines)
        codes, found = pd.factorize(_identities(table[sequence]), sort=True)
        names = [f"sequence {name!r}" for name in found.tolist()]
    exact = times = np.arange(len(table))
    if step:
        exact, times = _times(table[step], place, lines)
    order = np.lexsort((exact, codes))
    codes, exact, times, lines = (values[order] for values in (codes, exact, times, lines))
    for i in np.flatnonzero((codes[1:] == codes[:-1]) & (exact[1:] == exact[:-1]))[:1]:
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
        ys = [_classes(each) if columns.classes else _numbers(each, place, lines) for each in given]
        if not columns.per_step:
            hint = f", or task.answer={'class' if columns.classes else 'number'}_per_step"
            asked = zip(ys, columns.targets, strict=True)
            ys = [_one_each(values, starts, place, names, name, hint) for values, name in asked]
        extra["ys"] = ys[0] if columns.classes else np.stack(ys, axis=1)
    if "weight" in more:
        weights = _numbers(table["weight"], place, lines)
        extra["weights"] = weights if columns.per_step else _one_each(weights, starts, place, names, "weight")
    if "split" in more:
        extra["split"] = _one_each(_texts(table["split"]), starts, place, names, "split")
    if columns.forecast and set(columns.targets) <= set(features):
        extra["targets"] = tuple(map(features.index, columns.targets)) or None
    lengths = np.diff(np.r_[starts, len(codes)])
    extra["times"] = None if step is None else times
    return Sequences(place, names, lengths, xs, list(features), **extra)


def _header(path: Path, place: str) -> tuple[list[str], list[str]]:
    """The names of the columns; and of the index that pandas writes, which has none and is passed over."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{place} is no table of UTF-8 text: {type(error).__name__}: {error}") from error
    if header is None:
        raise DataError(f"{place} is empty: needed: a line of column names, then a line for each step")
    header = [name.strip() for name in header]
    if not any(header):
        raise DataError(f"{place}: its first line is blank: needed: a line of column names")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(
                f"{place}: columns are separated by {name}: save it with commas, and decimal points"
            )
    for i in [i for i, name in enumerate(header) if not name and i]:
        raise DataError(f"{place}: column {i + 1} has no name: is there a comma too many in the first line?")
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"{place}: two columns are called {name!r}")
    return (header[1:], [""]) if header[0] == "" else (header, [])


def _others(header: list[str], columns: Columns) -> tuple[str, ...]:
    """The columns that are nothing else."""
    taken = {columns.sequence, columns.step, "weight", "split"}
    taken |= set() if columns.forecast else set(columns.targets)
    return tuple(name for name in header if name not in taken)


def _table(path: Path, place: str, header: list[str], texts: set[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """The lines that are not blank, columns of `texts` unread; and their numbers in the file."""
    lines = _lines(path, place, len(header))
    if not len(lines):
        raise DataError(f"{place}: a line of column names, and nothing below it")
    try:
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            header=0,
            names=header,
            index_col=False,
            dtype=dict.fromkeys(texts, str),
            na_values={name: [""] if name in texts else MISSING for name in header},
            keep_default_na=False,
            low_memory=False,
        )
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        raise DataError(f"{place} cannot be read: {' '.join(str(error).split())}") from error
    if len(table) != len(lines):
        raise DataError(f"{place} cannot be read: {len(table)} of its {len(lines)} lines: quotes, blanks?")
    return table, lines


def _lines(path: Path, place: str, width: int) -> np.ndarray:
    """The numbers of the lines below the first one that are not blank, which have a field for each column."""
    numbers = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            next(reader)
            for row in reader:
                blank = not row or len(row) == 1 and row[0].isspace()
                if len(row) != width and not blank:
                    raise DataError(
                        f"{place}, line {reader.line_num}: {len(row)} fields, in the first line {width}"
                    )
                if not blank:
                    numbers.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{place} cannot be read: {type(error).__name__}: {error}") from error
    return np.array(numbers, int)


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


def _times(column: pd.Series, place: str, lines) -> tuple[np.ndarray, np.ndarray]:
    """A column of steps, as what orders them exactly, and as numbers; of dates the seconds since 1970."""
    _there(column, place, lines)
    texts = column.str.strip()
    if texts.str.fullmatch(r"[+-]?\d{1,300}").all():
        whole = np.array([int(text) for text in texts], object)
        if np.abs(whole).max() < 2**63:
            return (whole.astype(np.int64),) * 2
        since = whole - whole.min()  # float64 would not tell them apart
        return np.unique(whole, return_inverse=True)[1], since.astype(float)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(float)
    good = np.isfinite(numbers)
    if good.all():
        return numbers, numbers
    dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    for i in np.flatnonzero(~good if good.any() else dates.isna())[:1]:
        said = "neither a number nor a date as 2024-01-31 12:00"
        if good.any() and not pd.isna(dates.iloc[i]):
            said = f"a date, and in line {lines[good][0]} {texts[good].iloc[0]!r}, a number"
        raise DataError(f"{place}, line {lines[i]}: column {column.name!r} holds {texts.iloc[i]!r}, {said}")
    since = dates - pd.Timestamp(0, tz="UTC")
    return since.to_numpy().astype(np.int64), since.dt.total_seconds().to_numpy(float)


def _texts(column: pd.Series) -> np.ndarray:
    """A column as text; empty where nothing stands there."""
    return column.fillna("").str.strip().to_numpy().astype(str)


def _identities(column: pd.Series) -> np.ndarray:
    """A column of names: integers where all are plain ones (2, 2.0), else text, so that 007 and 7 differ."""
    texts = column.str.strip()
    return _whole(texts) if texts.str.fullmatch(WHOLE).all() else texts.to_numpy()


def _classes(column: pd.Series) -> np.ndarray:
    """A column of classes, as `_identities`; NaN or empty where none is there."""
    texts = column.str.strip()
    texts = texts.where(~texts.isin(MISSING))
    there = texts.dropna()
    fractions = there.str.fullmatch(DECIMAL).all() and there.str.contains(".", regex=False).any()
    if fractions or there.str.fullmatch(WHOLE).all():  # fractions are no classes, which is said later
        return _whole(texts)
    return texts.fillna("").to_numpy().astype(str)


def _whole(texts: pd.Series) -> np.ndarray:
    return pd.to_numeric(texts.str.replace(r"\.0*$", "", regex=True)).to_numpy()


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
