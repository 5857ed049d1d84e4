"""An experiment is one value; it runs as a command, with settings from flags. What it leaves: `evidence`."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from absl import flags

from cells.registry import nearest
from experiments import cli, screen

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

    from experiments.lab import beside, evidence

    def main(config, overrides):
        if config:
            raise ValueError(
                f"{experiment.name} has presets (--preset) and fields (--config.FIELD=VALUE), no --config"
            )
        settings = settings_of(experiment, FLAGS.preset, overrides | shared_flags(experiment))
        others = beside.read(experiment, settings, FLAGS.beside) if FLAGS.beside else None
        settings = others.missing if others else settings
        if FLAGS.workers and not settings.runs():
            raise ValueError(f"--workers has no effect: {experiment.name} trains no model")
        workdir = Path(FLAGS.workdir or f"runs/{experiment.name}-{FLAGS.preset}")
        how = FLAGS.data_dir, FLAGS.overwrite, FLAGS.workers, others
        evidence.run(experiment, settings, workdir, screen.console(), *how)
        return 0

    doc = help_of(experiment)
    cli.run(main, cli.with_cells(doc) if "cells" in _fields(experiment) else doc)


def help_of(experiment) -> str:
    """The text of its file, then its settings."""
    rows = []
    for name in _fields(experiment):
        values = ", ".join(f"{preset} {shown(getattr(p, name))}" for preset, p in experiment.protocol.items())
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


def shown(value) -> str:
    """A setting as a flag has it."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
