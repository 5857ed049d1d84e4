"""People's own arrays, of a .npz or a folder of .npy files, as sequences of any length.

A .npz has `xs`, `ys` and perhaps `lengths`, `mask`, `resets`, `weights`, `times`, `split`, each with the rows
first; or the same for each split: `train_xs`, `valid_xs`, .... A folder, or folders `train`, `valid` and
`test` in it, has one of

  xs.npy, ys.npy, ...             as in a .npz
  xs/NAME.npy, ys/NAME.npy, ...   a file for each sequence; ys of one answer: a number, (k,) numbers, a text
  CLASS/NAME.npy                  a file for each sequence, a folder for each class

with xs of a sequence (time,) or (time, features).
"""

import difflib
import os
import zipfile
from pathlib import Path

import numpy as np

from cells.registry import nearest
from train.tasks.datasets import VARIABLE, DataError
from train.tasks.own.sequences import KEYS, Sequences, dense, joined, ragged
from train.tasks.own.splits import PARTS


def find(task: str, path: str, what: str, data_dir=None) -> Path:
    """A path from here, or from the folders of data.

    Args:
      what: it may be.

    Raises:
      DataError: nothing is there.
    """
    if not path.strip():
        raise DataError(f"{task}: path is empty: name {what} by --config.task.path=...")
    given = Path(path).expanduser()
    places = [Path(), *(Path(f).expanduser() for f in (data_dir, os.environ.get(VARIABLE)) if f)]
    for place in places:
        if (place / given).exists():
            return place / given
    beside = given.parent.iterdir() if given.parent.is_dir() else ()
    close = difflib.get_close_matches(given.name, [other.name for other in beside], n=1)
    hint = f"; did you mean {str(given.parent / close[0])!r}?" if close else f" (from {Path().absolute()})"
    raise DataError(f"{task}: no such file or folder: {path}{hint}")


def read(path: Path, place: str, per_step: bool, targets: bool = True) -> Sequences:
    """The sequences of a .npz or a folder.

    Args:
      per_step: whether `ys` and `weights` are of each step.
      targets: whether `ys` are wanted; else they are passed over.

    Raises:
      DataError: with the place.
    """
    if path.is_dir():
        parts = {part: _folder(one, at, per_step, targets) for part, one, at in held(path, place)}
        return parts[""] if "" in parts else joined(place, parts)
    parts, first = {}, {}
    for key, array in _npz(path, place).items():
        part, _, name = key.partition("_")
        part, name = (part, name) if part in PARTS else ("", key)
        if name not in KEYS:
            raise DataError(f"{place}: unknown array {key!r}; {nearest(key, KEYS)}")
        parts.setdefault(part, {})[name] = array
        first.setdefault(part, key)
    if not parts:
        raise DataError(f"{place}: no array in it; needed: xs, ys")
    if "" not in parts:
        there = [part for part in PARTS if part in parts]
        made = {part: dense(parts[part], f"{place}, {part}", per_step, targets) for part in there}
        return joined(place, made)
    if len(parts) > 1:
        one, other = list(first.values())[:2]
        raise DataError(f"{place}: {one} and {other}: one is of all rows, the other of a split")
    return dense(parts[""], place, per_step, targets)


def _npz(path: Path, place: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {key: _whole(lambda key=key: content[key], f"{place}, {key}") for key in content.files}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{place} is no .npz of arrays: {_line(error)}") from error


def _whole(load, place: str) -> np.ndarray:
    try:
        return load()
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{place} holds Python objects, which are not read: pad the sequences and add `lengths`, or "
                "make a folder with a .npy file for each"
            ) from error
        cause = "it is no .npy" if "pickle" in str(error) else _line(error)
        raise DataError(f"{place} cannot be read: {cause}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _npy(path: Path, place: str) -> np.ndarray:
    return _whole(lambda: np.load(path, allow_pickle=False), f"{place}/{path.name}")


def files(folder: Path, suffix: str) -> list[Path]:
    """Those of a folder that end so, by name, without hidden ones."""
    found = (path for path in folder.iterdir() if path.suffix.lower() == suffix and path.name[0] != ".")
    return sorted(found, key=lambda path: path.name)


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones."""
    found = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return sorted(found, key=lambda path: path.name)


def held(folder: Path, place: str) -> list[tuple[str, Path, str]]:
    """Split ("" for all), folder and what error lines call it: of a folder, or of those of the splits in it.

    Raises:
      DataError: there are other folders beside those of splits.
    """
    inside = [one.name for one in folders(folder)]
    parts = [part for part in PARTS if part in inside]
    for other in inside if parts else ():
        if other not in PARTS:
            raise DataError(f"{place}: folder {other!r} beside {parts[0]!r}; {nearest(other, PARTS)}")
    return [(part, folder / part, f"{place}/{part}") for part in parts] or [("", folder, place)]


def by_class(folder: Path, place: str, suffix: str) -> list[tuple[str, Path]]:
    """Class and file of each example, of a folder with a folder for each class.

    Raises:
      DataError: there is none, or one is empty.
    """
    found = []
    for one in folders(folder):
        inside = files(one, suffix)
        if not inside:
            raise DataError(f"{place}/{one.name}: no {suffix} file in this folder of a class")
        found += [(one.name, path) for path in inside]
    if not found:
        raise DataError(f"{place}: needed: a folder for each class, with its {suffix} files")
    return found


def _folder(folder: Path, place: str, per_step: bool, targets: bool) -> Sequences:
    if arrays := files(folder, ".npy"):
        for path in arrays:
            if path.stem not in KEYS:
                raise DataError(f"{place}: unknown array {path.name!r}; {nearest(path.stem, KEYS)}")
        return dense({path.stem: _npy(path, place) for path in arrays}, place, per_step, targets)
    inside = [one.name for one in folders(folder)]
    if "xs" in inside:
        keys = [key for key in KEYS if key != "lengths"]
        for name in inside:
            if name not in keys:
                raise DataError(f"{place}: unknown folder {name!r}; {nearest(name, keys)}")
        given = {key: {path.stem: path for path in files(folder / key, ".npy")} for key in inside}
        for key, paths in given.items():
            if odd := sorted(paths.keys() ^ given["xs"].keys()):
                raise DataError(f"{place}: {odd[0]}.npy must be in xs and in {key}")
        rows = [
            {key: _npy(paths[name], f"{place}/{key}") for key, paths in given.items()} for name in given["xs"]
        ]
        return ragged(rows, [f"{name}.npy" for name in given["xs"]], place, per_step, targets)
    if per_step and targets and inside:
        raise DataError(f"{place}: for answers at every step needed: xs/NAME.npy and ys/NAME.npy, or xs.npy")
    pairs = by_class(folder, place, ".npy")
    rows = [{"xs": _npy(path, f"{place}/{path.parent.name}"), "ys": np.array(name)} for name, path in pairs]
    return ragged(rows, [f"{path.parent.name}/{path.name}" for _, path in pairs], place, per_step, targets)
