"""The adding problem over 600 steps at the budget of table 1 of Bai et al. 2018 (TCN): 70,000 parameters.

There LSTM has a test error (MSE) of 0.164, GRU 5.3e-5, RNN 0.177, TCN 5.8e-5, each after a search of its
own. Batches, Adam, its rate and the number of steps are those of the authors' add_test.py (10 epochs of
50,000 examples, here all of them new). What differs: a dense input of 32, gradients clipped at 1, gates
told the length (`--config.chrono=cell` turns that off).
"""

CELLS = ("gru", "sru", "lstm", "rnn", "tcn:levels=8:kernel=8")  # TCN as in its table 2

TASKS = {"adding": {"task": {"length": 600}}}

SHARED = {
    "parameters": 70_000,
    "optim": {"learning_rate": 4e-3, "schedule": "constant", "warmup_steps": 0},
    "train": {
        "seeds": 3,
        "steps": 15_630,
        "batch_size": 32,
        "eval_every": 521,  # a third of an epoch
        "stop_when_solved": False,
        "on_nan": "drop",
    },
}
