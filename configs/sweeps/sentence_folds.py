"""Ten-fold cross-validation of the four sentence sets without a test split, as in table 1 of Lei et al. 2018.

Each tenth is the test split once; all else, with its sources, is said in `sentences.py`. A row of the table
is a cell on a set, over all folds: --tasks=sentence:dataset=cr for one of the sets.
"""

from configs.sweeps import sentences

CELLS = sentences.CELLS

TASKS = {f"sentence:dataset={name}": {} for name in ("cr", "mr", "subj", "mpqa")}

SHARED = sentences.SHARED | {"train": sentences.SHARED["train"] | {"seeds": 1}}

VARY = {"task.fold": tuple(range(10))}
