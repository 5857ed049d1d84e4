"""JSB chorales at the budget of table 1 of Bai et al. 2018 (TCN): 300,000 parameters.

There LSTM has 8.45 nats a frame, GRU 8.43, RNN 8.91, TCN 8.10, each after a search of its own. Here all cells
get one layer, the same two learning rates, half of the outputs dropped, and batches of 8, not single pieces;
the test to compare is that at the best validation result.
"""

CELLS = ("gru", "sru", "lstm", "rnn")

TASKS = {"music": {}}

SHARED = {
    "parameters": 300_000,
    "optim": {"learning_rates": (0.001, 0.003)},
    "train": {"seeds": 3, "steps": 1500, "on_nan": "drop"},
}
