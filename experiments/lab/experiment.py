"""An experiment is one value; it runs as a command, with settings from flags and all results on disk."""

import contextlib
import dataclasses
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from absl import flags
from rich.console import Console

from cells.registry import nearest
from experiments import cli, output, screen, tables
from train import files

flags.DEFINE_enum("preset", "fast", ["quick", "fast", "full"], "Values of all settings: see above.")
flags.DEFINE_list("cells", None, "Cells, with options after colons: lstm:peepholes=true; all: every cell.")
flags.DEFINE_integer("seeds", None, "Seeds per cell.", lower_bound=1)
flags.DEFINE_integer(
    "workers",
    0,
    "Train the models first, in so many processes side by side, a core each; 0: one after the other, in this "
    "process, on all cores.",
    lower_bound=0,
    upper_bound=1024,
)
flags.DEFINE_string("workdir", None, "Where everything is written (default: runs/NAME-PRESET).")
flags.DEFINE_string(
    "beside",
    None,
    "Evidence of the same experiment, trained alike, a workdir or what is committed: cells that it has are "
    "not trained here but stand beside those that are, which it lacks or has tuned otherwise.",
)
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS

OF_CELLS = ("cells", "trained", "timed", "biased")  # settings that hold labels of cells
TRUE, FALSE, UNDECIDED, NOT_TESTED = "true here", "false here", "undecided here", "not tested here"
VERDICTS = (TRUE, FALSE, UNDECIDED, NOT_TESTED)
Frames = dict[str, pd.DataFrame]


class Part(NamedTuple):
    """A part of a claim that a number can decide, and the rule by which it does, written before the run."""

    text: str
    rule: str


class Claim(NamedTuple):
    """A claim, its parts by id, and the name of its figure."""

    text: str
    parts: dict[str, Part]
    figure: str | None = None


class Verdict(NamedTuple):
    """What the numbers say of a part of a claim.

    Attributes:
      verdict: one of VERDICTS.
      number: that decides, with its interval.
      against: what it was measured against.
      seeds: how many it rests on; 0 where it needs none.
      note: what else a reader has to know, in a sentence.
    """

    verdict: str
    number: str = ""
    against: str = ""
    seeds: int = 0
    note: str = ""


def untested(why: str) -> Verdict:
    """Evidence is missing."""
    return Verdict(NOT_TESTED, note=why)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, how it is measured, and the rule by which the numbers answer it.

    Args:
      question: one line.
      claims: by id, those that it judges.
      protocol: the settings, a frozen dataclass, of "quick", "fast" and "full".
      measure: (settings, `store.Lab`) -> frames by name, every row one measurement of one seed.
      judge: frames -> the verdict of each part of its claims.
      tables: frames -> tables of text by title.
      figures: frames -> figures by name.
      eligible: () -> the cells that --cells=all stands for; None: every one.
      models: the columns of frames that name a model, in the order of the settings' `models`, and the
        setting that lists each, where evidence of several workdirs can be joined.
    """

    question: str
    claims: dict[str, Claim]
    protocol: dict[str, Any]
    measure: Callable[..., Frames]
    judge: Callable[[Frames], dict[str, Verdict]]
    tables: Callable[[Frames], Frames]
    figures: Callable[[Frames], dict]
    eligible: Callable[[], list[str]] | None = None
    models: dict[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def module(self):
        """The file that it is written in."""
        return sys.modules[self.judge.__module__]

    @property
    def parts(self) -> dict[str, Part]:
        """Of all its claims."""
        return {key: part for claim in self.claims.values() for key, part in claim.parts.items()}

    @property
    def name(self) -> str:
        """That of its file, and of its command: `python -m experiments.NAME`."""
        return self.module.__spec__.name.split(".")[-1]


def of(name: str) -> Experiment:
    """The experiment in experiments/NAME.py."""
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def command(experiment: Experiment) -> None:
    """Runs an experiment as a command."""

    def main(config, overrides):
        if config:
            raise ValueError(
                f"{experiment.name} has presets (--preset) and fields (--config.FIELD=VALUE), no --config"
            )
        settings = settings_of(experiment, FLAGS.preset, overrides | shared_flags(experiment))
        evidence = None
        if FLAGS.beside:
            from experiments.lab import beside

            evidence = beside.read(experiment, settings, FLAGS.beside)
            settings = evidence.missing
        if FLAGS.workers and not settings.runs():
            raise ValueError(f"--workers has no effect: {experiment.name} trains no model")
        workdir = Path(FLAGS.workdir or f"runs/{experiment.name}-{FLAGS.preset}")
        console = screen.console()
        run(
            experiment,
            settings,
            workdir,
            console,
            FLAGS.data_dir,
            FLAGS.overwrite,
            FLAGS.workers,
            evidence,
        )
        return 0

    doc = help_of(experiment)
    cli.run(main, cli.with_cells(doc) if "cells" in _fields(experiment) else doc)


def help_of(experiment) -> str:
    """The text of its file, then its settings."""
    rows = []
    for name in _fields(experiment):
        values = ", ".join(
            f"{preset} {_shown(getattr(p, name))}" for preset, p in experiment.protocol.items()
        )
        rows.append(f"  --config.{name}: {values}")
    return experiment.module.__doc__.strip() + "\n\nSettings and their presets:\n" + "\n".join(rows) + "\n"


def _fields(experiment) -> list[str]:
    return [field.name for field in dataclasses.fields(experiment.protocol["fast"])]


def shared_flags(experiment) -> dict:
    """The settings that have flags of their own."""
    import configs

    given = {"cells": FLAGS.cells, "seeds": FLAGS.seeds}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in _fields(experiment):
            raise ValueError(f"this experiment has no --{name}")
    if "cells" in given:
        every = experiment.eligible() if experiment.eligible else None
        given["cells"] = tuple(configs.all_cells(given["cells"], every))
    return given


def settings_of(experiment, preset: str, overrides: dict):
    """A preset with fields replaced.

    Raises:
      ValueError: unknown field, with the experiment that has it or the nearest; a value of the wrong type;
        two labels for the same cell.
    """
    from configs import overrides as parser

    base = experiment.protocol[preset]
    for name in overrides:
        if name not in _fields(experiment):
            raise ValueError(f"{experiment.name} has no setting {name!r}; {_elsewhere(experiment, name)}")
    settings = parser.replaced(base, overrides)
    for name in OF_CELLS:
        if texts := getattr(settings, name, ()):
            _check_labels(name, texts)
    _check_tasks(getattr(settings, "tasks", ()))
    settings.check()
    return settings


def _check_labels(name, texts) -> None:
    import configs
    from experiments.lab import runs

    try:
        configs.distinct({text: runs.config(text, "delayed_recall") for text in texts})
    except ValueError as error:
        raise ValueError(f"config.{name}: {error}") from None


def _check_tasks(texts) -> None:
    import configs
    from experiments.lab import runs

    for text in texts:
        try:
            name, options = configs.with_options(text)
            runs.config("gru", name, task=options)
        except ValueError as error:
            raise ValueError(f"config.tasks: {error}") from None


def _elsewhere(experiment, name) -> str:
    """The experiments that have a setting of this name, else the nearest one here."""
    from experiments import claims

    found = [other for other in claims.EXPERIMENTS if name in _fields(of(other))]
    return (
        f"experiments.{' and experiments.'.join(found)} has it"
        if found
        else nearest(name, _fields(experiment))
    )


def run(
    experiment,
    settings,
    workdir: Path,
    console: Console,
    data_dir: str | None = None,
    overwrite: bool = False,
    workers: int = 0,
    evidence=None,
) -> Frames:
    """Measures (or goes on measuring), then writes and prints all that follows from it.

    Into `workdir`: a CSV per frame, a PNG per figure, report.md, environment.json, and `done/`, the pieces
    of work; `load` reads the frames again.
    """
    return run_all([(experiment, settings, workdir)], console, data_dir, overwrite, workers, evidence)[0]


def run_all(
    several: list[tuple],
    console: Console,
    data_dir: str | None = None,
    overwrite: bool = False,
    workers: int = 0,
    evidence=None,
) -> list[Frames]:
    """`run`, of one experiment after the other: (experiment, settings, workdir) each.

    Args:
      workers: 0, or how many processes first train the models of all of them.
      evidence: of the same experiment, that is joined: `beside.read`, whose `missing` are the settings.
    """
    from experiments.lab.store import Lab

    meanwhile = screen.meanwhile(console)
    with contextlib.ExitStack() as stack:
        labs = [
            stack.enter_context(
                contextlib.closing(Lab(workdir, meanwhile, data_dir, overwrite, code_of(one, its)))
            )
            for one, its, workdir in several
        ]
        if workers:
            from experiments.lab import workers as processes

            named = {one.name: (lab, its) for (one, its, _), lab in zip(several, labs, strict=True)}
            folder = several[0][2]
            log = (folder.parent if len(several) > 1 else folder) / "workers.log"
            processes.train(named, workers, log, meanwhile, data_dir)
        frames = []
        for number, ((one, its, workdir), lab) in enumerate(zip(several, labs, strict=True), 1):
            if len(several) > 1:
                meanwhile.print(f"[{number}/{len(several)}]", end=" ")
            frames.append(_run(one, its, workdir, console, lab, evidence))
        return frames


def _run(experiment, settings, workdir, console, lab, evidence) -> Frames:
    from experiments.lab import beside, confirmed
    from train.environment import environment

    lab.console.print(f"{experiment.name}: results go to {workdir}", soft_wrap=True)
    start = time.monotonic()
    asked = evidence.settings if evidence else settings
    record = environment() | {"settings": dataclasses.asdict(asked), "labels": labels_of(asked)}
    frames = experiment.measure(settings, lab)
    took = time.monotonic() - start
    record |= {"seconds_of_this_call": took, "code": lab.used}
    if lab.confirmed:
        record["confirmed"] = confirmed.summary(lab.confirmed)
    if evidence:
        frames, record = beside.joined(evidence, frames, record)
    for name, frame in frames.items():
        output.write_frame(workdir / f"{name}.csv", frame, float_format="%.8g")
    files.write_json(workdir / "environment.json", record)
    report(experiment, frames, workdir, console, record)
    lab.console.print(f"{experiment.name}: {took:.0f} s; wrote {workdir / 'report.md'}", soft_wrap=True)
    return frames


def labels_of(settings) -> list[str]:
    """The registered cells and tasks that its runs are of, or that it names."""
    from experiments.lab import store

    found = {label.split(":")[0] for name in OF_CELLS for label in getattr(settings, name, ())}
    for config in settings.configs():
        found |= set(store.labels_of(config))
    return sorted(found)


def code_of(experiment, settings) -> dict[str, str]:
    """Files that its numbers depend on, with digests of their code."""
    from experiments.lab import freshness

    return freshness.code_of(experiment.name, labels_of(settings))


def stale(experiment, workdir) -> dict[str, str] | None:
    """Files whose code is another one than that of the evidence in `workdir`, and cells that would be tuned
    otherwise today, with what is the matter; None: it does not say its code."""
    from experiments.lab import freshness, trials

    record = json.loads((Path(workdir) / "environment.json").read_text())
    if not record.get("code"):
        return None
    otherwise = trials.others(workdir, record.get("settings", {}))
    code = freshness.changed(record["code"], experiment.name, record["labels"])
    return code | dict.fromkeys(otherwise, "tuned otherwise")


def load(workdir) -> Frames:
    """The frames of an experiment that has run.

    Raises:
      FileNotFoundError: there are none.
    """
    frames = {path.stem: _read(path) for path in sorted(Path(workdir).glob("*.csv"))}
    if not frames:
        raise FileNotFoundError(f"no tables (CSV) in {workdir}")
    return frames


def _read(path: Path) -> pd.DataFrame:
    with contextlib.suppress(pd.errors.EmptyDataError):  # nothing was found to write
        return pd.read_csv(path)
    return pd.DataFrame()


def report(experiment, frames: Frames, workdir: Path, console: Console, record: dict) -> None:
    """Tables, figures and verdicts, on screen and in report.md."""
    parts = [f"# {experiment.name.replace('_', ' ').capitalize()}", caption(record)]
    for title, table in experiment.tables(frames).items():
        tables.show(console, title, table)
        parts += [f"## {title}", tables.markdown(table)]
    for name, figure in experiment.figures(frames).items():
        output.write_figure(workdir / f"{name}.png", figure, dpi=150)
        parts.append(f"![{name}]({name}.png)")
    verdicts = experiment.judge(frames)
    for claim in experiment.claims.values():
        table = verdict_table(claim.parts, verdicts)
        tables.show(console, claim.text, table)
        rules = [f"- {part.text}: {part.rule}" for part in claim.parts.values()]
        parts += [f"## {claim.text}", tables.markdown(table), "The rules:\n\n" + "\n".join(rules)]
    files.write(workdir / "report.md", "\n\n".join(parts) + "\n")


def verdict_table(parts: dict[str, Part], verdicts: dict[str, Verdict]) -> pd.DataFrame:
    """A line for each part of a claim."""
    rows = []
    for key, part in parts.items():
        verdict, number, against, seeds, note = verdicts[key]
        number = "; ".join(text for text in (number, note) if text)
        rows.append({"part": part.text, "verdict": verdict, "number": number, "against": against})
        rows[-1]["seeds"] = str(seeds or "")
    return pd.DataFrame(rows)


def caption(record: dict) -> str:
    """Where, when and with what settings."""
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in record["settings"].items())
    commit = (record["git_commit"] or "unknown")[:10] + (" with changes" if record["git_dirty"] else "")
    return (
        f"`{record['command']}`, {record['started'][:10]}, commit {commit}; {record['cpu']}, "
        f"{record['cores']} cores, {record['backend']}; Python {record['python']}, jax {record['jax']}."
        f"{''.join(map(_joined, record.get('beside', [])))}\n\nSettings: {settings}."
    )


def _joined(other: dict) -> str:
    commit, date = (other["git_commit"] or "unknown")[:10], other["started"][:10]
    return (
        f"\n\nBeside it, what it has not trained itself: `{other['command']}`, {date}, commit {commit}; "
        f"{other['cpu']}, {other['cores']} cores; Python {other['python']}, jax {other['jax']}."
    )


def _shown(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
