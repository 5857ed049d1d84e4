"""What the cells learn: generated and real tasks behind one contract.

    task = tasks.get("delayed_recall", gap=200)
    data = task.load()                            # {} for generated tasks, host arrays for real ones
    batch = task.train_batch(data, key, step, 32)

`base` says what a task is; a new one is a file with a dataclass, and a line in the table below.
"""

from cells.registry import Registry
from train.tasks.adding import Adding
from train.tasks.arrays import Arrays
from train.tasks.associative_recall import AssociativeRecall
from train.tasks.base import Batch, Spec, Stretchable, Task
from train.tasks.cifar10 import Cifar10
from train.tasks.copy_memory import CopyMemory
from train.tasks.datasets import DataError
from train.tasks.delayed_recall import DelayedRecall
from train.tasks.digits import Digits
from train.tasks.documents import Documents
from train.tasks.induction_heads import InductionHeads
from train.tasks.listops import ListOps
from train.tasks.mixed_recall import MixedRecall
from train.tasks.mnist import Mnist, PermutedMnist
from train.tasks.music import Music
from train.tasks.selective_copying import SelectiveCopying
from train.tasks.sentence import Sentence
from train.tasks.series import Series
from train.tasks.text import Text
from train.tasks.word_problem import WordProblem

_TASKS = (
    Adding, Arrays, AssociativeRecall, Cifar10, CopyMemory, DelayedRecall, Digits, Documents, InductionHeads,
    ListOps, MixedRecall, Mnist, Music, PermutedMnist, SelectiveCopying, Sentence, Series, Text, WordProblem,
)  # fmt: skip
TASKS = Registry("task", {task.name: task for task in _TASKS})

STRETCHABLE = tuple(name for name, task in TASKS.table.items() if issubclass(task, Stretchable))

get = TASKS.get
names = TASKS.names

__all__ = ["STRETCHABLE", "TASKS", "Batch", "DataError", "Spec", "Task", "get", "names"]
