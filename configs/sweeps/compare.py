"""The default comparison: what `python -m experiments.compare` runs when no flag says otherwise.

A sweep file gives the cells, the tasks with what each task's runs are trained with, and what all runs
share. Every cell gets the same parameter budget, learning rate, steps and seeds.
"""

CELLS = ("sru", "gru", "lstm", "rnn")  # the quickest to compile and to solve first: a result after seconds

TASKS = {"delayed_recall": {"task": {"gap": 100}}, "digits": {}}

SHARED = {"parameters": 10_000, "train": {"seeds": 4, "on_nan": "drop"}}
