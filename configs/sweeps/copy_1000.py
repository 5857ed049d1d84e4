"""Copy memory over 1,000 steps at the budget of table 1 of Bai et al. 2018 (TCN): 16,000 parameters.

There LSTM has a test loss of 0.0204, GRU 0.0197, RNN 0.0202, TCN 3.5e-5: the mean over all 1,020 steps, of
which only the last 10 ask for a symbol, so that answering without memory costs 10 ln 8 / 1,020 = 0.0204.
Compare `test_loss` (seeds.csv); the metric here is the accuracy of those 10. Batches, RMSprop, its rate
and the number of steps are those of the authors' copymem_test.py (50 epochs of 10,000 examples, here all of
them new). What differs: symbols are embedded, not numbers; one delimiter asks, not a marker on each of the
last steps; gradients are clipped at 1, where theirs are clipped before they are computed; gates are told the
length (`--config.chrono=cell` turns that off).
"""

CELLS = ("gru", "sru", "lstm", "rnn", "tcn:levels=8:kernel=8")  # paper: 8 levels, kernel 8 (table 2)

TASKS = {"copy_memory": {"task": {"length": 1000}}}

SHARED = {
    "parameters": 16_000,
    "optim": {"optimizer": "rmsprop", "learning_rate": 5e-4, "schedule": "constant", "warmup_steps": 0},
    "train": {
        "seeds": 3,
        "steps": 15_650,
        "batch_size": 32,
        "eval_every": 313,  # an epoch
        "stop_when_solved": False,
        "on_nan": "drop",
    },
}
