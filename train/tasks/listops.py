"""ListOps (Nangia & Bowman 2018, "ListOps: a diagnostic dataset for latent tree learning"), with the grammar
of the Long range arena (Tay et al. 2021, `listops.py`)."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from train.tasks import base

OPERATORS = ("MIN", "MAX", "MED", "SM")  # smallest, largest, median (rounded down), sum modulo 10
PADDING, DIGIT, OPERATOR, CLOSE = 0, 1, 11, 15  # the first token of each kind
IS_OPERATOR = 0.25  # of a node above the deepest level
ROUND, PATIENCE = 20_000, 50  # trees grown at a time, and rounds with next to no new ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOps(base.InMemory):
    """An expression of nested lists, [MAX 2 9 [MIN 4 7 ] 0 ]: which digit is it?

    A node is an operator with a probability of 1/4, with 2 to `max_args` arguments, else a digit; below
    `max_depth` - 1 operators all are digits. Expressions of other lengths than asked for are drawn again. All
    differ, over the splits too. No file is read: they are drawn when the data is loaded.

    The Long range arena has 500 to 2,000 tokens and 96,000 expressions to train on, which take a minute or
    two to draw. The defaults are lengths that the same grammar gives often, drawn in a second, and that a CPU
    trains on in minutes.

    xs (batch, max_length) int32: 0 padding, 1..10 the digits, 11..14 [MIN [MAX [MED [SM, 15 the closing ].
    ys (batch,) int32.

    Options:
      max_depth: levels of nodes, the digits at the bottom among them.
      max_args: arguments of an operator, at most.
      min_length, max_length: tokens of an expression, brackets among them.
      train_examples: expressions to train on.
      eval_examples: expressions in each held-out split.
      data_seed: which expressions are drawn.
    """

    name: ClassVar[str] = "listops"
    input_kind: ClassVar[str] = "tokens"
    max_depth: int = 10
    max_args: int = 10
    min_length: int = 10
    max_length: int = 100
    train_examples: int = 20_000
    eval_examples: int = 1000
    data_seed: int = 0

    def __post_init__(self):
        base.at_least(self, max_depth=2, max_args=2, min_length=1, max_length=4, data_seed=0)
        base.at_least(self, train_examples=1, eval_examples=1)
        for option in ("max_depth", "max_args"):  # nearly all trees would be too long
            base.require(self, option, getattr(self, option) <= 100, "at most 100")
        fits = self.min_length <= self.max_length
        base.require(self, "min_length", fits, f"at most max_length = {self.max_length}")

    def spec(self, data):
        return base.Spec(
            inputs=self.input_kind,
            input_size=CLOSE + 1,
            output_size=10,
            per_step=self.per_step,
            pooling="last",
            loss="cross_entropy",
            metric="accuracy",
            threshold=0.95,
            baseline=base.majority(data),
            time=self.max_length,
        )

    def load(self, data_dir=None):
        """As `InMemory`. Raises ValueError where the grammar has hardly any such expressions."""
        sizes = {"train": self.train_examples, "valid": self.eval_examples, "test": self.eval_examples}
        grammar = (self.max_depth, self.max_args, self.min_length, self.max_length)
        drawn = expressions(sum(sizes.values()), *grammar, self.data_seed)
        ends = np.cumsum(list(sizes.values()))[:-1]
        parts = {name: np.split(array, ends) for name, array in drawn.items()}
        return {split: {name: parts[name][i] for name in parts} for i, split in enumerate(sizes)}


@functools.lru_cache(1)
def expressions(
    count: int, max_depth: int, max_args: int, min_length: int, max_length: int, seed: int
) -> dict[str, np.ndarray]:
    """So many different ones: xs (count, max_length) uint8, ys (count,) int32, lengths (count,) int32.

    Raises:
      ValueError: there are hardly any.
    """
    rng = np.random.RandomState(seed)  # whose streams never change
    found, tries = {}, 0
    while len(found) < count:
        before, tries = len(found), tries + 1
        for x, y, length in zip(*grown(rng, max_depth, max_args, min_length, max_length), strict=True):
            found.setdefault(x.tobytes(), (x, y, length))
        if tries >= PATIENCE and len(found) - before < 1 + count // 10_000:
            raise ValueError(
                f"listops: {len(found)} different expressions of {min_length} to {max_length} tokens in "
                f"{tries * ROUND} draws, {count} are asked for: take other lengths, or fewer examples"
            )
    xs, ys, lengths = zip(*list(found.values())[:count], strict=True)
    drawn = {"xs": np.stack(xs), "ys": np.array(ys, np.int32), "lengths": np.array(lengths, np.int32)}
    for array in drawn.values():
        array.flags.writeable = False
    return drawn


def grown(rng, max_depth: int, max_args: int, min_length: int, max_length: int):
    """Trees of ROUND draws, of which those with such a length are kept: tokens (n, max_length) uint8, values
    (n,), lengths (n,). All grow level by level; a node's children stand side by side in the next level."""
    tree, total, levels = np.arange(ROUND), np.zeros(ROUND, np.int64), []
    for depth in range(1, max_depth + 1):
        inner = (rng.random_sample(len(tree)) < IS_OPERATOR) & (depth < max_depth)
        symbol = np.where(inner, rng.randint(len(OPERATORS), size=len(tree)), rng.randint(10, size=len(tree)))
        args = np.where(inner, rng.randint(2, max_args + 1, size=len(tree)), 0)
        total += np.bincount(tree, 1 + inner, ROUND).astype(np.int64)
        args[total[tree] > max_length] = 0  # too long already
        levels.append((tree, inner, symbol, args))
        tree = np.repeat(tree, args)
        if not len(tree):
            break

    kept = (total >= min_length) & (total <= max_length)
    levels = [[part[kept[level[0]]] for part in level] for level in levels]
    values = sizes = np.zeros(0, np.int64)
    below = []
    for _, inner, symbol, args in levels[::-1]:
        below.append(sizes)
        values, sizes = evaluated(inner, symbol, args, values, sizes)

    row = np.cumsum(kept) - 1
    xs = np.zeros((kept.sum(), max_length), np.uint8)
    start = np.zeros(len(xs), np.int64)
    for (tree, inner, symbol, args), children in zip(levels, below[::-1], strict=True):
        xs[row[tree], start] = symbol + np.where(inner, OPERATOR, DIGIT)
        before = np.cumsum(children) - children  # tokens of the nodes to the left
        first = np.cumsum(args) - args
        own = np.repeat(np.arange(len(args)), args)
        ends = np.append(before, children.sum())
        end = start + 1 + ends[first + args] - ends[first]
        xs[row[tree[inner]], end[inner]] = CLOSE
        start = start[own] + 1 + before - before[first[own]] if len(own) else own
    return xs, values, total[kept]


def evaluated(inner, symbol, args, values, sizes):
    """Values and numbers of tokens of the nodes of a level, from those of their children."""
    own_values, own_sizes = symbol.copy(), np.ones(len(symbol), np.int64)
    if not inner.any():
        return own_values, own_sizes
    count = args[inner]
    first = np.cumsum(count) - count
    parent = np.repeat(np.arange(len(count)), count)
    ordered = values[np.lexsort((values, parent))]
    results = [
        ordered[first],
        ordered[first + count - 1],
        (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) // 2,
        np.add.reduceat(values, first) % 10,
    ]
    own_values[inner] = np.choose(symbol[inner], results)
    own_sizes[inner] = 2 + np.add.reduceat(sizes, first)
    return own_values, own_sizes
