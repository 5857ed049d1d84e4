"""The default comparison: what `python -m experiments.compare` runs when no flag says otherwise.

A sweep file gives the cells, the tasks with what each task's runs are trained with, and what all runs
share. Every cell gets the same parameter budget, learning rate, steps and seeds.
"""

CELLS = ("rnn", "lstm", "gru", "sru")

TASKS = {  # the short sequences first: while they train, programs for the long ones compile
    "digits": {},
    "delayed_recall": {"task": {"gap": 100}},
}

SHARED = {"parameters": 10_000, "train": {"seeds": 4, "on_nan": "drop"}}
