"""Ten-fold cross-validation of the four sentence sets without a test split, as in table 1 of Lei et al. 2018.

Each tenth is the test split once. A row of the table is a cell on a set, over all folds:
--tasks=sentence:dataset=cr for one of the sets. Two layers of 128 units as there, whole runs, tested at the
best validation result. What differs: words start at random, not from word2vec, and nothing is tuned.
"""

CELLS = ("sru", "gru", "lstm")

TASKS = {f"sentence:dataset={name}": {} for name in ("cr", "mr", "subj", "mpqa")}

SHARED = {
    "cell": {"hidden_size": 128},
    "model": {"depth": 2},
    "train": {"seeds": 1, "stop_when_solved": False, "on_nan": "drop"},
}

VARY = {"task.fold": tuple(range(10))}
