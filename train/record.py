"""What a run writes: configs, environment, metrics as append-only lines, summary, events."""

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax

from train import effects
from train.summary import Evaluation, Summary

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


class WorkdirError(RuntimeError):
    """A run directory holds something else than the run that was asked for."""


def environment() -> dict:
    """Versions, device, git commit, time and command line: what a figure's caption needs."""

    def git(*args):
        here = Path(__file__).parent
        try:
            done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": _command(),
    }


def _command() -> str:
    """The command line, as a person would type it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name.removesuffix(".__main__")] if module else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_json(path: Path, content: dict) -> None:
    """Writes JSON so that a crash leaves the old file or the new one, never half of one."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


# What a run writes into its directory. Everything else there is somebody else's.
FILES = ("config.json", "resolved.json", "environment.json", "metrics.jsonl", "summary.json", "failed.json")
FOLDERS = ("checkpoints", "tensorboard")


def clear(directory: Path) -> None:
    """Removes the run in a directory; other files there stay.

    Raises:
      WorkdirError: one of its files is no run's: nothing is removed.
    """
    directory = Path(directory)
    there = [name for name in (*FILES, *FOLDERS) if (directory / name).exists()]
    sure = {"resolved.json", "metrics.jsonl", "failed.json", "checkpoints"}
    if there and sure.isdisjoint(there) and not _is_of_a_run(directory / "config.json"):
        raise WorkdirError(
            f"{directory} holds {', '.join(there)}, but no run: nothing is overwritten; use another --workdir"
        )
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
        (directory / f"{name}.part").unlink(missing_ok=True)
    for name in FOLDERS:
        folder = directory / name
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def _is_of_a_run(config: Path) -> bool:
    try:
        saved = json.loads(config.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and {"task", "cell", "train"} <= saved.keys()


class Record:
    """The files of one run directory. What has finished is only read, until `begin`.

    Args:
      directory: made if it does not exist.
      asked, resolved: the config as asked for and as it runs, nested dicts: config.json, resolved.json.
      tensorboard: also write TensorBoard events.

    Raises:
      WorkdirError: the directory holds a run with another config.
    """

    def __init__(self, directory: Path, asked: dict, resolved: dict, tensorboard: bool = False):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._configs = {"resolved.json": resolved, "config.json": asked}
        path = self.directory / "config.json"
        if path.exists():
            _check_same(path, asked, resolved)
        self._metrics = self.directory / "metrics.jsonl"
        self._tensorboard, self._events = tensorboard, None
        self._grid = len(resolved.get("optim", {}).get("learning_rates", ())) > 1

    def begin(self) -> None:
        """Writes what the run is, and on what it runs."""
        for name, content in (self._configs | {"environment.json": environment()}).items():
            write_json(self.directory / name, content)
        self._events = _event_writer(self.directory) if self._tensorboard else None

    def keep_until(self, step: int) -> None:
        """Drops the metrics after `step` (and a torn last line): a resumed run writes them again."""
        if not self._metrics.exists():
            return
        kept = []
        for line in self._metrics.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                break
        part = self._metrics.with_name("metrics.jsonl.part")
        part.write_text("".join(kept))
        part.replace(self._metrics)

    def append(self, rows: list[Evaluation]) -> None:
        """Adds one line per row and pushes them to the disk."""
        with self._metrics.open("a") as file:
            file.writelines(json.dumps(row.to_dict()) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        if self._events:
            for row in rows:
                lane = f"seed_{row.seed}" + (f"_learning_rate_{row.learning_rate:g}" if self._grid else "")
                for name in ("train_loss", "valid_loss", "valid_metric"):
                    self._events.add_scalar(f"{name}/{lane}", row[name], row.step)
            self._events.flush()

    def summary(self, summary: Summary) -> None:
        """Writes summary.json."""
        write_json(self.directory / "summary.json", summary.to_dict())

    def finished(self) -> Summary | None:
        """The summary of a run that has finished."""
        return finished(self.directory)

    def close(self) -> None:
        """Closes the event file."""
        if self._events:
            self._events.close()


def finished(directory: Path) -> Summary | None:
    """The summary of the run in a directory, if it has finished."""
    try:
        summary = Summary.from_dict(json.loads((Path(directory) / "summary.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return summary if summary.run.status == "finished" else None


def _event_writer(directory):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise WorkdirError(
            "train.tensorboard needs the package tensorboardX: pip install 'recurrent-cells[tensorboard]'"
        ) from None
    return SummaryWriter(str(directory / "tensorboard"))


def _check_same(path: Path, asked: dict, resolved: dict) -> None:
    """Refuses to mix two runs in one directory."""

    def flat(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    try:
        saved = dict(flat(json.loads(path.read_text())))
    except ValueError:
        raise WorkdirError(
            f"{path} is damaged; use another --workdir, or --overwrite to start again"
        ) from None
    ignored = set()
    if not path.with_name("resolved.json").exists():
        # Older versions saved the cell as it ran, and options that were overruled.
        asked = asked | {"cell": resolved["cell"]}
        ignored = {"chrono"}
        for rule in effects.RULES:
            if rule.overrules(saved.get(rule.by), saved.get(rule.option)):
                ignored.add(rule.option)
    now = dict(flat(json.loads(json.dumps(asked))))
    differing = [name for name in saved | now if saved.get(name) != now.get(name) and name not in ignored]
    if differing:
        listed = ", ".join(
            f"{name} {saved.get(name)!r} there, {now.get(name)!r} now" for name in differing[:3]
        )
        raise WorkdirError(
            f"{path.parent} holds another run ({listed}{', ...' if len(differing) > 3 else ''}); "
            "use another --workdir, or --overwrite to start again"
        )
