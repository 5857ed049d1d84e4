"""Learning rates and seeds of the main cells on two tasks: 64 small runs, a lane each.

A run per seed, so that a machine is filled evenly and a dead run costs little.
"""

CELLS = ("sru", "gru", "lstm", "rnn")

TASKS = {"delayed_recall": {"task": {"gap": 20}}, "adding": {"task": {"length": 20}}}

SHARED = {"parameters": 5000, "train": {"steps": 400, "seeds": 1, "on_nan": "drop"}}

VARY = {"optim.learning_rate": (0.003, 0.01), "train.seed": (0, 1, 2, 3)}
