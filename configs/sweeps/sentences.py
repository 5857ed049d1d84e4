"""Sentence classification as in table 1 of Lei et al. 2018 (SRU), but with random embeddings, all trained.

Those are what Kim 2014 calls rand. "Lei" is that paper's public code (`classification/train_classifier.py`),
"Kim" his paper. `python -m experiments.reference --result=mr` prints the published numbers.
"""

CELLS = ("sru", "gru", "lstm")

# Fold 0 of the four sets that come without a test split; Lei and Kim: the mean over ten, which
# --config.task.fold=1 and so on add.
TASKS = {f"sentence:dataset={name}": {} for name in ("cr", "mr", "subj", "mpqa", "trec", "sst2")}

SHARED = {
    "cell": {"hidden_size": 128},  # Lei; Kim has 3 x 100 convolutions
    "model": {
        "depth": 2,  # Lei
        "dropout": 0.5,  # Lei, on embeddings too; Kim, before the head alone
        "embedding_size": 300,  # Kim and Lei
    },
    "optim": {
        "optimizer": "adam",  # Lei; Kim: Adadelta
        "learning_rate": 0.001,  # Lei
        "clip_norm": 1.0,  # ours; Lei clips nothing, Kim bounds the norm of the head's weights
        "schedule": "cosine",  # ours, because a fixed budget ends well so; Lei: constant
    },
    "train": {
        "batch_size": 32,  # Lei; Kim: 50
        "steps": 3000,  # ours, 11 to 31 epochs (SST-2's phrases: 1); Lei stops at 100 epochs
        "eval_every": 100,  # ours: the best of these on validation is tested, as Lei does after each epoch
        "stop_when_solved": False,  # the threshold of the task is no published result
        "seeds": 3,  # ours
        "on_nan": "drop",  # ours: one lost seed does not cost the others
    },
}
