"""Parity, trained on words of 3 to 40 bits and tested on 40 to 256: Grazzi et al. 2025, "Unlocking
state-tracking in linear RNNs through negative eigenvalues" (after Deletang et al. 2023).

From the authors' configs (parity_*_single_layer.yaml): one layer of 16 units, batches of 256, 20,000 steps,
Adam at 0.001 with 2,000 steps of warm-up and a cosine down to a thousandth, no clipping, 8,192 words of
validation and of test, both of the longer kind, evaluated every 200 steps; the answer is asked at the last
bit. The paper rescales accuracy, 2 a - 1, so that guessing is 0: there sLSTM has 1.000, mLSTM and Mamba with
eigenvalues in [0, 1] have less than 0.1, Mamba with eigenvalues in [-1, 1] 1.000. The paper's cells sit in
blocks; here they are by themselves, and Mamba is Mamba-2's recurrence.
"""

NEGATIVE = "negative_eigenvalues=true"
CELLS = ("slstm", "lstm", "mlstm", "mamba2", f"mamba2:{NEGATIVE}", f"sru:{NEGATIVE}")

TASKS = {
    "word_problem": {
        "task": {
            "length": 40,
            "min_length": 3,
            "eval_length": 256,
            "eval_min_length": 40,
            "answers": "last",
            "eval_examples": 8192,
        },
        "train": {"steps": 20_000, "batch_size": 256, "eval_every": 200},
    }
}

SHARED = {
    "cell": {"hidden_size": 16},
    "model": {"embedding_size": 16},
    "optim": {"learning_rate": 1e-3, "warmup_steps": 2000, "final_fraction": 0.001, "clip_norm": 0.0},
    "train": {"seeds": 3, "on_nan": "drop", "stop_when_solved": False},
}
