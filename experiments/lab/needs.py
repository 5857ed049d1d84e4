"""What a recurrence may be needed for, and the tasks that stand for it."""

from typing import Any, NamedTuple


class Column(NamedTuple):
    """A task that stands for a need.

    Attributes:
      need: what a cell has to be able to do.
      title: the task in a table.
      task: with options after colons.
      parameters: budget of the whole model.
      train, model: sections of the run.
      told: whether cells with options for it are told the length of the dependency.
    """

    need: str
    title: str
    task: str
    parameters: int
    train: dict[str, Any]
    model: dict[str, Any] = {}
    told: bool = False


def _until_solved(steps: int, every: int) -> dict:
    return {"steps": steps, "eval_every": every, "batch_size": 32, "stop_when_solved": True}


def _whole(steps: int, every: int, batch_size: int = 32) -> dict:
    return {"steps": steps, "eval_every": every, "batch_size": batch_size, "stop_when_solved": False}


EXAMPLES = "eval_examples=512"
# Learned on words of 4 to 32 elements, tested on 64 to 128: who has learned only the length fails.
LONGER = f"length=32:min_length=4:eval_length=128:eval_min_length=64:{EXAMPLES}"
SOON, LONG, LONGEST = _until_solved(1000, 25), _until_solved(1500, 50), _until_solved(2000, 100)
COLUMNS = {
    "recall_30": Column("recall", "gap 30", f"delayed_recall:gap=30:{EXAMPLES}", 6000, SOON),
    "recall_100": Column("recall", "gap 100", f"delayed_recall:gap=100:{EXAMPLES}", 6000, SOON),
    "recall_300": Column(
        "recall", "gap 300", f"delayed_recall:gap=300:{EXAMPLES}", 6000, _until_solved(600, 25)
    ),
    "told_100": Column(
        "recall", "gap 100, told", f"delayed_recall:gap=100:{EXAMPLES}", 6000, SOON, told=True
    ),
    "told_300": Column(
        "recall", "gap 300, told", f"delayed_recall:gap=300:{EXAMPLES}", 6000,
        _until_solved(600, 25), told=True,
    ),
    "adding_200": Column(
        "noise", "adding 200", f"adding:length=200:{EXAMPLES}", 6000, _until_solved(800, 50)
    ),
    "adding_600": Column(
        "noise", "adding 600", f"adding:length=600:{EXAMPLES}", 6000, _until_solved(1000, 50)
    ),
    "copy_30": Column("capacity", "copy 8", f"copy_memory:length=30:items=8:{EXAMPLES}", 8000, LONG),
    "copy_200": Column(
        "capacity", "copy 10, 200", f"copy_memory:length=200:items=10:{EXAMPLES}", 8000, LONGEST
    ),
    "select_64": Column(
        "capacity", "select 4", f"selective_copying:length=64:symbols=8:{EXAMPLES}", 8000, LONG
    ),
    "select_256": Column(
        "capacity", "select 16", f"selective_copying:length=256:symbols=14:items=16:{EXAMPLES}", 12_000,
        LONGEST,
    ),
    "keys_8": Column("capacity", "8 keys", f"associative_recall:pairs=8:{EXAMPLES}", 12_000, LONG),
    "keys_64": Column(
        "capacity", "64 keys", f"associative_recall:pairs=64:length=256:vocabulary=256:{EXAMPLES}", 60_000,
        LONGEST,
    ),
    "parity": Column("tracking", "parity", f"word_problem:group=z2:{LONGER}", 6000, LONG),
    "s3": Column("tracking", "S3", f"word_problem:group=s3:{LONGER}", 6000, LONG),
    "listops": Column(
        "tracking", "ListOps", "listops:max_length=50:max_depth=5:max_args=5", 12_000, _whole(1000, 100),
        {"depth": 2},
    ),
    "trec": Column(
        "language", "questions", "sentence:dataset=trec:min_count=2", 120_000, _whole(500, 50),
        {"dropout": 0.3},
    ),
    "cr": Column(
        "language", "reviews", "sentence:dataset=cr:min_count=2:max_length=40", 100_000, _whole(400, 50),
        {"dropout": 0.3},
    ),
    "characters": Column(
        "language", "characters", "text:dataset=ptb:length=64:valid_limit=40000", 20_000, _whole(800, 100)
    ),
    "pixels": Column(
        "series", "digits", "digits:pixels_per_step=1", 8000, _whole(1000, 50), {"dropout": 0.1}
    ),
    "jsb": Column(
        "series", "chorales", "music:dataset=jsb", 30_000, _whole(600, 50, batch_size=8), {"dropout": 0.3}
    ),
    "vowels": Column(  # needs the extra `series`
        "series", "vowels", "series:dataset=JapaneseVowels", 8000, _whole(600, 50), {"dropout": 0.1}
    ),
}  # fmt: skip
NEEDS = {
    "recall": "recall over a gap",
    "noise": "a sum through long noise",
    "capacity": "much to keep",
    "tracking": "counting, tracking, nesting",
    "language": "language",
    "series": "digits, music, speech",
}
