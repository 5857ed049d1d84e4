"""What each task is trained with, the same for every cell: budgets and sizes, not tuned per cell."""

RECIPES = {
    "adding": {
        "optim": {"learning_rate": 0.01},
        "train": {"steps": 2000, "batch_size": 32},
    },
    "delayed_recall": {
        "train": {"steps": 1500, "batch_size": 32, "eval_every": 50},
    },
    "copy_memory": {
        "train": {"steps": 4000, "batch_size": 32},
    },
    # Half a row of pixels a step: 16 steps. Two layers, so that SRU, whose gates see no state, has one
    # that looks at another's; a dense input, so that no cell's size hangs on the 4 pixels.
    "digits": {
        "task": {"pixels_per_step": 4},
        "model": {"depth": 2, "embedding_size": 32, "dropout": 0.2},
        "optim": {"learning_rate": 0.01},
        "train": {"steps": 1500, "batch_size": 64, "eval_every": 50, "stop_when_solved": False},
    },
    "mnist": {
        "train": {"steps": 10_000, "batch_size": 64, "eval_every": 500},
    },
    "permuted_mnist": {
        "train": {"steps": 10_000, "batch_size": 64, "eval_every": 500},
    },
    # Words matter more than their distance: the gates start where the cells have them.
    "sentence": {
        "model": {"dropout": 0.3},
        "optim": {"learning_rate": 1e-3},
        "train": {"steps": 1500, "batch_size": 32},
        "chrono": "cell",
    },
}
