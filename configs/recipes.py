"""What each task is trained with, the same for every cell: budgets and sizes, not tuned per cell.

Where the length of a task's dependency is known, cells are told it by the options that they have for it
(`chrono`, see `cells.Cell.for_length`).
"""

RECIPES = {
    # A dense input, here and below: else a cell that has only input weights, as SRU has, would need a
    # thousand units to make up a budget of parameters out of 2 features.
    "adding": {
        "model": {"embedding_size": 32},
        "optim": {"learning_rate": 0.01},
        "train": {"steps": 2000, "batch_size": 32},
    },
    "delayed_recall": {
        "task": {"eval_examples": 512},
        "train": {"steps": 1500, "batch_size": 32, "eval_every": 25},
    },
    "mixed_recall": {
        "task": {"eval_examples": 256},
        "train": {"steps": 1500, "batch_size": 32, "eval_every": 50},
    },
    # Two layers, as the papers of this and the next two have, so that a cell whose gates see no state has one
    # that does. Where what is recalled stands is drawn: no dependency is of a known length.
    "associative_recall": {
        "task": {"eval_examples": 512},
        "model": {"depth": 2},
        "train": {"steps": 4000, "batch_size": 64},
        "chrono": "cell",
    },
    "selective_copying": {
        "task": {"eval_examples": 512},
        "model": {"depth": 2},
        "train": {"steps": 4000, "batch_size": 64},
        "chrono": "cell",
    },
    "induction_heads": {
        "task": {"eval_examples": 512},
        "model": {"depth": 2},
        "train": {"steps": 4000, "batch_size": 8},
        "chrono": "cell",
    },
    "copy_memory": {
        "train": {"steps": 4000, "batch_size": 32},
    },
    # Half a row of pixels a step: 16 steps. Two layers, so that SRU, whose gates see no state, has one
    # that looks at another's.
    "digits": {
        "task": {"pixels_per_step": 4},
        "model": {"depth": 2, "embedding_size": 32, "dropout": 0.2},
        "optim": {"learning_rate": 0.01},
        "train": {"steps": 1500, "batch_size": 64, "eval_every": 50, "stop_when_solved": False},
    },
    # 64 images of 55,000 as Bai et al. 2018. A seed stops at the threshold, 0.95 (permuted: 0.90); published
    # numbers are of whole runs: sweeps/smnist.py.
    "mnist": {
        "model": {"embedding_size": 32},
        "train": {"steps": 10_000, "batch_size": 64, "eval_every": 500},
    },
    "permuted_mnist": {
        "model": {"embedding_size": 32},
        "train": {"steps": 10_000, "batch_size": 64, "eval_every": 500},
    },
    # As mnist, with as many epochs of fewer images.
    "cifar10": {
        "model": {"embedding_size": 32},
        "train": {"steps": 8200, "batch_size": 64, "eval_every": 410},
    },
    # No dependency is of a known length, here and for sentences: the gates start where the cells have them.
    "word_problem": {
        "task": {"eval_examples": 512},
        "train": {"steps": 2000, "batch_size": 32},
        "chrono": "cell",
    },
    # Batches of 32 as in the Long range arena; how deep brackets nest is no length in steps.
    "listops": {
        "train": {"steps": 5000, "batch_size": 32, "eval_every": 250},
        "chrono": "cell",
    },
    # Bai et al. 2018 regularise as much; pieces are longer than any dependency that is known of.
    "music": {
        "model": {"dropout": 0.5},
        "optim": {"learning_rate": 3e-3},
        "train": {
            "steps": 1500,
            "batch_size": 8,
            "eval_every": 50,
            "eval_batch_size": 16,
            "stop_when_solved": False,
            "buckets": 4,  # half the steps of a batch of JSB are padding without, 6 of 7 of Nottingham
        },
        "chrono": "cell",
    },
    # Graves 2013 clips and keeps the state likewise. No dependency is of a known length.
    "text": {
        "task": {"valid_limit": 100_000},
        "optim": {"learning_rate": 3e-3},
        "train": {
            "steps": 2000,
            "batch_size": 32,
            "eval_every": 200,
            "eval_batch_size": 32,
            "stop_when_solved": False,
        },
        "chrono": "cell",
    },
    "sentence": {
        "model": {"dropout": 0.3},
        "optim": {"learning_rate": 1e-3},
        "train": {"steps": 1500, "batch_size": 32},
        "chrono": "cell",
    },
}

# Of people's own data nothing is known but that they are mostly small. A dense input and two layers, as for
# digits, for the same reasons; some dropout; a rate at which no cell diverges; the whole budget, since the
# threshold is only half way from the baseline. The gates start where the cells have them, since the length of
# a sequence does not say how far back to look.
_OWN = {
    "model": {"depth": 2, "embedding_size": 32, "dropout": 0.2},
    "optim": {"learning_rate": 3e-3},
    "train": {"steps": 1500, "batch_size": 32, "eval_every": 50, "stop_when_solved": False},
    "chrono": "cell",
}
RECIPES |= {name: _OWN for name in ("arrays", "documents", "series")}
