"""Every piece of work of an experiment is done once: its rows are kept in a file of their own."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from cells import CELLS
from experiments import screen
from experiments.lab import freshness, runs
from experiments.lab.protocol import NotYet
from train import same_run
from train.compile import make_room
from train.config import RunConfig
from train.files import WorkdirError, digest, lock, locked, write_json
from train.loop import Result, train
from train.record import check_own, clear, finished
from train.tasks import TASKS


class Lab:
    """The folder of one experiment.

    Args:
      workdir: made if it does not exist.
      console: is told what goes on.
      data_dir: folder of the real data sets, as for `train.loop.train`.
      overwrite: removes the pieces of work and the runs in it first; other files stay.
      code: what its pieces are made with, `freshness.code_of`; each of them says it, a training run what
        trained it, in `trained/`, whoever did.

    Raises:
      WorkdirError: another process has the folder.
    """

    def __init__(
        self,
        workdir: Path,
        console: Console,
        data_dir: str | None = None,
        overwrite: bool = False,
        code: dict[str, str] | None = None,
    ):
        self.workdir, self.console, self.data_dir = Path(workdir), console, data_dir
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.code = code or {}
        self.confirmed: dict[str, dict] = {}  # runs of which only the beginning was trained with today's code
        self.used = {path: self.code[path] for path in self.code.keys() - freshness.of_runs(self.code)}
        self._held = lock(self.workdir)
        if overwrite:
            self._clear()

    def close(self) -> None:
        """Lets others have the folder."""
        self._held.release()

    def _clear(self):
        folders = [folder for folder in self.workdir.glob("runs/*") if folder.is_dir()]
        for folder in folders:  # of all, before anything is removed
            check_own(folder)
        for piece in [*self.workdir.glob("done/*.json"), *self.workdir.glob("trained/*.json")]:
            if _is_piece(piece):
                piece.unlink()
        for folder in folders:  # one without a readable config too
            with locked(folder):
                clear(folder)

    def folder(self, name: str) -> Path:
        """Of a training run."""
        return self.workdir / "runs" / name

    def has(self, name: str, config: RunConfig) -> bool:
        """Whether a training run and what was measured on it have been done.

        Raises:
          WorkdirError: the folder holds the same piece of another run, or a damaged file.
        """
        path = self._file(name)
        if not path.exists():
            return False
        _kept(path, {"config": json.loads(json.dumps(config.to_dict()))}, all_of_them=False)
        return True

    def ended(self, name: str, config: RunConfig) -> list[dict] | None:
        """The rows of a training run without a probe; None: it has not ended.

        Raises:
          WorkdirError: as `has`; the run in its folder is another one.
        """
        if self.has(name, config):
            return _kept(self._file(name), {}, all_of_them=False)[0]
        folder = self.folder(name)
        summary = finished(folder)
        if summary:
            same_run.check_saved(folder / "config.json", config.to_dict(), {})
        return summary and _rows(summary)

    def kept(self, name: str, config: RunConfig) -> list[dict]:
        """As `train`, of what has been trained.

        Raises:
          NotYet: it has not.
        """
        if self.ended(name, config) is None:
            raise NotYet
        return self.train(name, config)

    def _file(self, name: str) -> Path:
        return self.workdir / "done" / f"{name}.json"

    def do(self, name: str, settings: dict, make: Callable[[], list[dict]]) -> list[dict]:
        """The rows of a piece of work: made now, or before, with the same settings.

        Args:
          name: of its file; unique in the experiment.
          settings: all that the rows depend on, JSON.
          make: measures; its rows are JSON too.

        Raises:
          WorkdirError: the folder holds the same piece with other settings, or a damaged file.
        """
        rows, piece = self._done(name, settings, make, self.code)
        self._note(piece.get("code", {}))
        return rows

    def _done(self, name, settings, make, code: dict) -> tuple[list[dict], dict]:
        """The rows, and the piece that they are kept in: made now, with `code`, or before."""
        path = self._file(name)
        settings = json.loads(json.dumps(settings))
        if path.exists():
            return _kept(path, settings)
        make_room()
        rows = _coded(json.loads(json.dumps(make())))
        path.parent.mkdir(exist_ok=True)
        kept = {"settings": settings, "rows": rows, "sha256": digest(rows), "code": code}
        if "config" in settings:
            kept["trained"] = read_note(self.workdir, name).get("code", {})
        write_json(path, kept)
        return _decoded(rows), kept

    def _note(self, code: dict[str, str]) -> None:
        """What the pieces that were asked for were made with; "several" where they differ in a file.

        What one lacks, or has beside, counts in others: it was made for other cells, or what imports it has
        changed. One that says nothing differs in all.
        """
        for path in self.code.keys() & code.keys() if code else self.code:
            digest = code.get(path)
            self.used[path] = digest if digest and self.used.get(path, digest) == digest else "several"

    def train(
        self,
        name: str,
        config: RunConfig,
        probe: Callable[[Result], list[dict]] | None = None,
        settings: dict | None = None,
    ) -> list[dict]:
        """The rows of a training run: one per seed and learning rate, as in summary.json, or the probe's.

        Args:
          probe: looks at the trained model and makes the rows.
          settings: what the probe depends on, beside the config.

        Raises:
          SystemExit: Ctrl-C or the like; the run goes on from its checkpoint next time.
        """

        labels = labels_of(config)
        measuring = {} if probe is None else freshness.of_labels(self.code, labels)

        def make():
            if probe is None and (rows := self.ended(name, config)):
                return rows  # another process has trained it
            self.begins(name, config)
            with screen.ProgressBar(self.console, name) as bar:
                result = train(config, self.folder(name), self.data_dir, watch=bar)
            if result.signal is not None:
                print(result.summary.run.message or "interrupted", file=sys.stderr)
                raise SystemExit(128 + result.signal)
            run, seeds = result.summary["run"], runs.seeds(result)
            solved = sum(seed["solved"] for seed in seeds)
            self.console.print(
                f"{name}: {solved}/{len(seeds)} solved it, {run['run_seconds']:.0f} s "
                f"+ {run['compile_seconds']:.0f} s to compile",
                soft_wrap=True,
            )
            return probe(result) if probe else _rows(result.summary)

        settings = {"config": config.to_dict()} | (settings or {})
        rows, piece = self._done(name, settings, make, measuring)
        note = read_note(self.workdir, name)
        trained, measured = made_with(piece, note)
        self._note(freshness.of_labels(trained, labels))
        if probe is not None:
            self._note(freshness.of_labels(measured, labels))
        if "confirmed" in note:
            self.confirmed[name] = note["confirmed"]
        return rows

    def begins(self, name: str, config: RunConfig) -> None:
        """Notes, before a run begins or goes on, that it is trained with the code of today: from here on."""
        folder = self.folder(name)
        if finished(folder) is not None:
            return
        code = freshness.of_labels(freshness.of_runs(self.code), labels_of(config))
        if (folder / "config.json").exists():
            before = read_note(self.workdir, name).get("code", {})
            code = {path: one if before.get(path) == one else "several" for path, one in code.items()}
        write_note(self.workdir, name, code)


def made_with(piece: dict, note: dict) -> tuple[dict[str, str], dict[str, str]]:
    """What trained the run of a piece of work, empty where nobody knows, and what measured it.

    Args:
      note: what `read_note` has of the run.
    """
    code = piece.get("code", {})
    if "code" in note:
        return note["code"], code
    if "trained" in piece:
        return piece["trained"], code
    # Of before there were notes: what had rows made of a run alone had trained it, too.
    return (code if freshness.of_runs(code) == code else {}), code


def labels_of(config: RunConfig) -> tuple[str, str]:
    """The registered cell and task of a run."""
    return CELLS.name_of(config.cell), TASKS.name_of(config.task)


def write_note(workdir: Path, name: str, code: dict[str, str], **more) -> None:
    """Notes what a training run was made with: `code`, and what else there is to say."""
    path = Path(workdir) / "trained" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"code": code} | more)


def read_note(workdir: Path, name: str) -> dict:
    """What `write_note` has written; empty: nothing, or what cannot be read."""
    try:
        found = json.loads((Path(workdir) / "trained" / f"{name}.json").read_text())
        return found if isinstance(found["code"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _rows(summary) -> list[dict]:
    """A row per seed and learning rate."""
    names = ("parameters", "hidden_size", "state_size", "budget_steps", "baseline", "threshold")
    shared = {name: summary["run"][name] for name in names}
    return [shared | dict(seed) for seed in summary["seeds"]]


def _is_piece(path: Path) -> bool:
    """Whether it is a piece of work, or was one before it was damaged."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return True
    return isinstance(content, dict) and ({"settings", "rows"} <= content.keys() or "code" in content)


def _kept(path: Path, settings: dict, all_of_them: bool = True) -> tuple[list[dict], dict]:
    """The rows in a file, if they were made with these settings; others it may have too, or not. And all that
    the file holds."""
    try:
        kept = json.loads(path.read_text())
        old, rows = kept["settings"], kept["rows"]
        if kept.get("sha256", digest(rows)) != digest(rows):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WorkdirError(f"{path} is damaged; delete it, and it is measured again") from None
    if "config" in settings and "config" in old:
        old = old | {"config": _completed(old["config"])}
    if not all_of_them:
        old = {name: old.get(name) for name in settings}
    if old != settings:
        raise WorkdirError(
            f"{path.parent.parent} holds another experiment ({_difference(old, settings)}); "
            "use another --workdir, or --overwrite to start again"
        )
    return _decoded(rows), kept


def _completed(config: dict) -> dict:
    """A saved config with the options that have come since, at their defaults."""
    try:
        return json.loads(json.dumps(RunConfig.from_dict(config).to_dict()))
    except ValueError:  # what is not an option any more
        return config


# Numbers that JSON does not have, as texts.
_CODES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _coded(value):
    if isinstance(value, dict | list):
        return _mapped(_coded, value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else next(code for code, is_ in _CODES.items() if is_ == value)
    return value


def _decoded(value):
    if isinstance(value, dict | list):
        return _mapped(_decoded, value)
    return _CODES.get(value, value) if isinstance(value, str) else value


def _mapped(f, value):
    return {key: f(item) for key, item in value.items()} if isinstance(value, dict) else [*map(f, value)]


def _difference(old, new, path="") -> str:
    """The first field in which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *new]:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{path}.{key}".strip("."))
    return f"{path}: {old!r} there, {new!r} now"
