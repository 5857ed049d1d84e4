"""The default comparison: what `python -m experiments.compare` runs when no flag says otherwise.

A sweep file gives the cells, the tasks with what each task's runs are trained with, and what all runs
share. Every cell gets the same budgets of parameters and steps and the same seeds; its learning rate and its
initialisation are those that tuning found for it on that task (TUNED), as many trials for each cell.
"""

# The quickest to compile and to solve first: a result after seconds. The RNN has two initialisations.
IDENTITY = "rnn:activation=relu:recurrent_init=identity"
CELLS = ("sru", "gru", "lstm", "rnn", IDENTITY)

# As in the atlas (`experiments/lab/needs.py`): recall that nobody is told the gap of, parity of 4 to 32 bits
# validated and tested on 64 to 128, digits a pixel a step; about a half of its budgets, for a result soon.
_MODEL = {"embedding_size": 32, "depth": 1, "dropout": 0.0}
TASKS = {
    "delayed_recall": {
        "task": {"gap": 100, "eval_examples": 512},
        "model": _MODEL,
        "train": {"steps": 600, "batch_size": 32, "eval_every": 25},
        "parameters": 6000,
        "chrono": "cell",
    },
    "word_problem": {
        "task": {
            "group": "z2",
            "length": 32,
            "min_length": 4,
            "eval_length": 128,
            "eval_min_length": 64,
            "eval_examples": 512,
        },
        "model": _MODEL,
        "train": {"steps": 600, "batch_size": 32, "eval_every": 50},
        "parameters": 6000,
        "chrono": "cell",
    },
    "digits": {
        "task": {"pixels_per_step": 1},
        "model": _MODEL | {"dropout": 0.1},
        "train": {"steps": 500, "batch_size": 32, "eval_every": 50, "stop_when_solved": False},
        "parameters": 8000,
        "chrono": "cell",
    },
}


def _at(rate: float, **cell) -> dict:
    return {"optim": {"learning_rate": rate}, "cell": cell}


# What `experiments.atlas` picked, the best of its tuning.csv; of the RNN for each activation.
TUNED = {
    "delayed_recall": {
        "sru": _at(0.3, forget_bias=4.0),
        "gru": _at(0.3, update_bias=4.0),
        "lstm": _at(0.1, chrono=300),
        "rnn": _at(0.03),
        IDENTITY: _at(0.001, recurrent_scale=1.2),
    },
    "word_problem": {
        "sru": _at(0.01),
        "gru": _at(0.03),
        "lstm": _at(0.03),
        "rnn": _at(0.03),
        IDENTITY: _at(0.01),
    },
    "digits": {
        "sru": _at(0.03, forget_bias=2.0),
        "gru": _at(0.03, update_bias=2.0),
        "lstm": _at(0.01),
        "rnn": _at(0.003, recurrent_scale=1.2),
        IDENTITY: _at(0.001),
    },
}

SHARED = {"parameters": 10_000, "train": {"seeds": 5, "on_nan": "drop"}}
