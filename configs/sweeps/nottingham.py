"""Nottingham tunes as in table 1 of Bai et al. 2018 (TCN): nats a frame with 1,000,000 parameters.

There LSTM has 3.29, GRU 3.46, RNN 4.05, TCN 3.07; SRU is ours. "Paper" as in `jsb`. Tunes have up to 1,793
frames: on 2 cores this takes hours a cell; give it a GPU.
"""

# Paper: 4 levels, kernel 6 (table 2); LSTM 1 x 500 units, or 3 x 280 (table 3). One layer: ours.
CELLS = ("gru", "sru", "lstm", "rnn", "tcn:levels=4:kernel=6")

TASKS = {"music": {"task": {"dataset": "nottingham"}}}

SHARED = {
    "parameters": 1_000_000,  # paper
    "model": {
        "dropout": 0.2,  # paper: TCN 0.2, LSTM 0.1, the others by search in [0.05, 0.5]; here of outputs only
    },
    "optim": {
        "optimizer": "adam",  # paper: TCN and LSTM
        "learning_rates": (0.002, 0.004),  # paper: TCN 0.002, LSTM 0.004
        "clip_norm": 1.0,  # paper: LSTM 1 or 0.5, TCN 0.4
        "schedule": "cosine",  # ours, because a fixed budget ends well so; its code: a tenth on a plateau
    },
    "train": {
        "batch_size": 8,  # ours, because single tunes, as in its code, leave a machine idle
        "buckets": 4,  # ours, because else 6 of 7 frames of a batch are padding
        "steps": 4000,  # ours, 46 epochs; its code: 100
        "eval_every": 100,  # ours: the best of these on validation is tested; its code: every epoch
        "seeds": 3,  # ours; the paper does not say
        "on_nan": "drop",  # ours: one lost seed does not cost the others
    },
}
