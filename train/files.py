"""Files that are written whole or not at all, and directories that one process at a time writes to."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock

LOCK = ".lock"
SET_ASIDE = "set-aside"  # in a directory: what was found there and cannot be trusted


class WorkdirError(RuntimeError):
    """A directory holds something else than what was asked for, or is in use."""


class InUseError(WorkdirError):
    """Another process has the directory."""


def write(path: Path, content: str | bytes) -> None:
    """Writes a file so that a crash or a full disk leaves the old one or the new one, never half of one."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping) -> None:
    """Writes JSON, whole; what is no number there (NaN, infinity) becomes null."""
    write(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def plain(content):
    """Nested dicts and lists as JSON has them: no NaN, no infinity, no tuples."""
    if isinstance(content, Mapping):
        return {name: plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def digest(content) -> str:
    """The SHA-256 of text, or of what JSON says, in whatever order."""
    if not isinstance(content, str):
        as_read = json.loads(json.dumps(plain(content)))  # where all names are text
        content = json.dumps(as_read, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def set_aside(path: Path, directory: Path) -> Path:
    """Moves a file or folder of a directory that cannot be trusted to where nothing reads or overwrites it.

    Returns:
      Its new place.
    """
    folder = directory / SET_ASIDE
    folder.mkdir(exist_ok=True)
    taken = [int(old.name.split("-")[0]) for old in folder.iterdir() if old.name.split("-")[0].isdigit()]
    name = "-".join(path.relative_to(directory).parts)
    return path.rename(folder / f"{max(taken, default=0) + 1}-{name}")


def lock(directory: Path) -> filelock.BaseFileLock:
    """Takes a directory for this process until the lock's `release`, or until the process dies.

    Raises:
      InUseError: another process has it.
    """
    held = filelock.FileLock(Path(directory) / LOCK)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise InUseError(
            f"{directory} is in use by another process; wait for it, or use another --workdir"
        ) from None
    return held


def in_use(directory: Path) -> bool:
    """Whether a process has it now."""
    if not (Path(directory) / LOCK).exists():
        return False
    try:
        lock(directory).release()
    except InUseError:
        return True
    return False


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """`lock`, for a block."""
    held = lock(directory)
    try:
        yield
    finally:
        held.release()
