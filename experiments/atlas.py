"""Which recurrence for which need: every cell, tuned alike, on a task for each need.

  python -m experiments.atlas
  python -m experiments.atlas --cells=lstm,gru,sru --config.columns=recall_100,parity --config.forms=bare,block
  python -m experiments.atlas --preset=full --workers=2

Each cell stands by itself ("bare") or in a gated residual block with a short convolution ("block", see
`train.layers.Gated`), always with the same number of parameters. It is tuned on seeds of its own
(`lab/tuning.py`), then ten others count. Made-up tasks are trained until they are solved, real data for the
whole budget, of which the best result on validation is tested. Attention is the control, the window of eight
inputs, which has no recurrence, the floor.
"""

import dataclasses
import itertools
from typing import Any, ClassVar, NamedTuple

import pandas as pd

import configs
from experiments.lab import experiment, runs, tuning
from experiments.lab.experiment import Experiment
from experiments.lab.protocol import Known
from train.config import RunConfig


class Column(NamedTuple):
    """A need, and the task that stands for it.

    Attributes:
      need: what a cell has to be able to do.
      title: the task in a table.
      task: with options after colons.
      parameters: budget of the whole model.
      train, model: sections of the run.
      told: whether cells with options for it are told the length of the dependency.
    """

    need: str
    title: str
    task: str
    parameters: int
    train: dict[str, Any]
    model: dict[str, Any] = {}
    told: bool = False


def _until_solved(steps: int, every: int) -> dict:
    return {"steps": steps, "eval_every": every, "batch_size": 32, "stop_when_solved": True}


def _whole(steps: int, every: int, batch_size: int = 32) -> dict:
    return {"steps": steps, "eval_every": every, "batch_size": batch_size, "stop_when_solved": False}


EXAMPLES = "eval_examples=512"
# Learned on words of 4 to 32 elements, tested on 64 to 128: who has learned only the length fails.
LONGER = f"length=32:min_length=4:eval_length=128:eval_min_length=64:{EXAMPLES}"
SOON, LONG = _until_solved(1000, 25), _until_solved(1500, 50)
COLUMNS = {
    "recall_30": Column("recall", "recall, 30", f"delayed_recall:gap=30:{EXAMPLES}", 6000, SOON),
    "recall_100": Column("recall", "recall, 100", f"delayed_recall:gap=100:{EXAMPLES}", 6000, SOON),
    "told_100": Column(
        "recall", "recall, 100, told", f"delayed_recall:gap=100:{EXAMPLES}", 6000, SOON, told=True
    ),
    "told_300": Column(
        "recall", "recall, 300, told", f"delayed_recall:gap=300:{EXAMPLES}", 6000,
        _until_solved(600, 25), told=True,
    ),
    "adding_200": Column("noise", "adding, 200", f"adding:length=200:{EXAMPLES}", 6000, _until_solved(800, 50)),
    "copy_30": Column("capacity", "copy 8, 30", f"copy_memory:length=30:items=8:{EXAMPLES}", 8000, LONG),
    "select_64": Column(
        "capacity", "select 4 of 64", f"selective_copying:length=64:symbols=8:{EXAMPLES}", 8000, LONG
    ),
    "keys_8": Column("keys", "8 keys", f"associative_recall:pairs=8:{EXAMPLES}", 12_000, LONG),
    "parity": Column("tracking", "parity", f"word_problem:group=z2:{LONGER}", 6000, LONG),
    "s3": Column("tracking", "S3", f"word_problem:group=s3:{LONGER}", 6000, LONG),
    "listops": Column(
        "nesting", "ListOps", "listops:max_length=50:max_depth=5:max_args=5", 12_000, _whole(1000, 100),
        {"depth": 2},
    ),
    "pixels": Column(
        "real data", "pixel digits", "digits:pixels_per_step=1", 8000, _whole(1000, 50), {"dropout": 0.1}
    ),
    "jsb": Column(
        "real data", "chorales", "music:dataset=jsb", 30_000, _whole(600, 50, batch_size=8), {"dropout": 0.3}
    ),
    "trec": Column(
        "real data", "questions", "sentence:dataset=trec:min_count=2", 120_000, _whole(500, 50),
        {"dropout": 0.3},
    ),
    "cr": Column(
        "real data", "reviews", "sentence:dataset=cr:min_count=2:max_length=40", 100_000, _whole(400, 50),
        {"dropout": 0.3},
    ),
    "characters": Column(
        "real data", "characters", "text:dataset=ptb:length=64:valid_limit=40000", 20_000, _whole(800, 100)
    ),
}  # fmt: skip
# Bare, all see embedded inputs of one size: else a cell without recurrent matrix were all embedding.
FORMS = {
    "bare": {"embedding_size": 32},
    "block": {"block": "gated", "mlp_expansion": 0},
}
EVERY = (
    "rnn", "lstm", "gru", "sru", "window", "attention", "mingru", "mamba2", "lru", "qrnn", "slstm", "mlstm",
    "rglru", "minlstm", "sru_feedback", "knn", "tcn",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = EVERY
    columns: tuple = tuple(COLUMNS)
    forms: tuple = ("bare",)
    shorter: int = 1  # divides every budget of steps, for trying things out

    choices: ClassVar = {"columns": tuple(COLUMNS), "forms": tuple(FORMS)}

    def models(self):
        """Form, cell, column."""
        return itertools.product(self.forms, self.cells, self.columns)

    def runs(self, ended=lambda name, config: None):
        known = Known(ended)
        for model in self.models():
            known.follow(_tuned_and_trained, self, *model)
        return known.runs

    def configs(self):
        return (_config(self, form, column, cell) for form, cell, column in self.models())


PRESETS = {
    "quick": Settings(
        cells=("rnn", "gru"), columns=("recall_30", "parity"), seeds=2, tuning_seeds=1,
        learning_rates=(0.003, 0.01), initialisations=1, widenings=0, shorter=50,
    ),
    "fast": Settings(cells=("rnn", "lstm", "gru", "sru", "window", "attention"), columns=(
        "recall_30", "told_100", "parity", "s3", "pixels",
    )),
    "full": Settings(forms=("bare", "block")),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial of every cell; `final`: the seeds that count."""
    tuned, final = [], []
    for form, cell, column in settings.models():
        told = {"column": column, "form": form, **runs.labels(cell)}
        trials, rows = _tuned_and_trained(lab.train, settings, form, cell, column)
        tuned += [told | row for row in trials]
        final += [told | row for row in rows]
    return {"tuning": pd.DataFrame(tuned), "final": pd.DataFrame(final)}


def _tuned_and_trained(train, settings, form, cell, column) -> tuple[list, list]:
    name = f"{column}-{form}-{runs.file_name(cell)}"
    trials, final = tuning.tuned(
        train, name, lambda text: _config(settings, form, column, text), cell, settings
    )
    picked = next(row for row in trials if row["picked"])
    shared = {name: picked[name] for name in ("trial", "higher_is_better", "stops", "inside")}
    return trials, [shared | row for row in train(name, final)]


def _config(settings: Settings, form: str, column: str, cell: str) -> RunConfig:
    column = COLUMNS[column]
    task, options = configs.with_options(column.task)
    train = dict(column.train)
    for name in ("steps", "eval_every"):
        train[name] = max(1, train[name] // settings.shorter)
    return runs.config(
        cell,
        task,
        task=options,
        model={"depth": 1, "dropout": 0.0} | column.model | FORMS[form],
        train=train,
        parameters=column.parameters,
        chrono="task" if column.told else "cell",
    )


def judge(frames):
    return {}


def tables(frames):
    return {}


def figures(frames):
    return {}


EXPERIMENT = Experiment("Which recurrence for which need?", {}, PRESETS, measure, judge, tables, figures)

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
