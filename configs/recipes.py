"""What each task is trained with, the same for every cell: budgets and sizes, not tuned per cell."""

RECIPES = {
    "adding": {
        "train": {"steps": 3000, "batch_size": 32},
    },
    "delayed_recall": {
        "train": {"steps": 2000, "batch_size": 32},
    },
    "copy_memory": {
        "train": {"steps": 4000, "batch_size": 32},
    },
    "digits": {
        "train": {"steps": 2000, "batch_size": 64},
    },
    "mnist": {
        "train": {"steps": 10_000, "batch_size": 64, "eval_every": 500},
    },
    "permuted_mnist": {
        "train": {"steps": 10_000, "batch_size": 64, "eval_every": 500},
    },
    "sentence": {
        "model": {"dropout": 0.3},
        "train": {"steps": 1500, "batch_size": 32},
    },
}
