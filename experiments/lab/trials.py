"""Which cells of an experiment's evidence were tuned otherwise than tuning would do it today."""

from pathlib import Path

import pandas as pd

import cells
import configs
from experiments.lab import tuning

# What of a tuned experiment's settings says which initialisations it tries.
FIELDS = ("learning_rates", "initialisations")


def others(folder: Path, settings: dict) -> list[str]:
    """Labels of the cells whose `knobs` have changed since.

    Args:
      folder: of the evidence; an experiment that tunes has its trials in tuning.csv.
      settings: it was measured with, as in its environment.json.

    Variants of an experiment, which are no label of a cell, have initialisations of their own: they are code.
    """
    path = Path(folder) / "tuning.csv"
    if not path.exists() or not set(FIELDS) <= settings.keys():
        return []
    tried_then = pd.read_csv(path, usecols=["label", "trial"])
    rates, initialisations = (settings[name] for name in FIELDS)
    today = tuning.Settings(learning_rates=tuple(rates), initialisations=initialisations)
    found = []
    for label, rows in tried_then.groupby("label", sort=False):
        if configs.with_options(label)[0] not in cells.names():
            continue
        tried = set(rows["trial"])
        # A variant may be called like a cell, as `depth` has it: then the cell itself is not tried.
        if label in tried and tried != {trial.label for trial in tuning.trials(label, today)}:
            found.append(label)
    return found
