"""`ptb_chars` for a quarter of an hour a cell on 2 cores: 500,000 parameters, 2 epochs."""

from configs.sweeps import ptb_chars

CELLS = ("gru", "sru", "lstm", "rnn")

TASKS = ptb_chars.TASKS

SHARED = ptb_chars.SHARED | {"parameters": 500_000, "train": ptb_chars.SHARED["train"] | {"steps": 2_450}}
