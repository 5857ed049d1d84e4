"""The contract of a task: what the training loop asks of it, and what generators and data sets share.

A task is a frozen dataclass without state. A batch is a pure function of (data, key, step), so a run that
resumes at a step sees the same examples, bit for bit.
"""

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train.tasks.buckets import Bucket
from train.tasks.datasets import DataError
from train.tasks.meaning import Meaning
from train.tasks.shuffle import shuffled

Array = jax.Array
Data = Any  # a pytree of arrays, see `Synthetic.load` and `InMemory`

SPLITS = ("valid", "test")


class Batch(NamedTuple):
    """What one step trains on, or what one step of an evaluation scores.

    Rows past the end of a held-out split are there, for static shapes, with `weights` and `scored` 0.
    """

    xs: Array  # (batch, time) int32 tokens, or (batch, time, features) float32
    ys: Array  # int32 classes, (batch,) or, per step, (batch, time); float32 numbers, (..., outputs)
    lengths: Array | None  # (batch,) int32 real length of each row, may be 0; None: all rows are full
    weights: Array  # float32 loss weights, (batch,) or, per step, (batch, time); 0 does not count
    scored: Array  # float32, shaped like weights: what counts in the metric
    mask: Array | None = None  # (batch, time) bool: False skips the step, as if it were not there; None: none
    resets: Array | None = None  # (batch, time) bool: True forgets all before the step; None: nowhere
    starts: Array | None = None  # (batch,) bool, where `Spec.reads_on`: False goes on from the batch before

    @property
    def steps(self) -> dict[str, Array | None]:
        """What `Model.apply` is told of the steps."""
        return {"lengths": self.lengths, "mask": self.mask, "resets": self.resets}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a model needs to know of a task, and when the task counts as solved."""

    inputs: str  # "tokens" | "features"
    input_size: int  # size of the vocabulary, or number of features
    output_size: int  # classes, or regression outputs
    per_step: bool  # an answer at every step, or one per sequence
    pooling: str  # "last" | "mean" | "max": suggested pooling where there is one answer
    loss: str  # of train.metrics.LOSSES
    metric: str  # of train.metrics.METRICS
    threshold: float  # solved when the metric is as good as that
    baseline: float  # metric of the best answer without memory or learning
    time: int  # steps of a training batch: the longest sequence
    eval_time: int = 0  # of a held-out batch; 0: the same
    reads_on: bool = False  # row i of a batch goes on where row i of the batch before ended
    looks_ahead: bool = False  # targets are inputs of later steps, which who reads backwards would see


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """Options in the fields, everything else passed in. What can be said without data is said by the class:
    `name`, the registry's; `input_kind` and `per_step`, as `inputs` and `per_step` in `Spec`. Where the data
    decide, `input_kind` is empty; where options do, `per_step` is a property."""

    name: ClassVar[str]
    input_kind: ClassVar[str] = ""
    per_step: ClassVar[bool] = False
    of_recall: ClassVar[bool] = False  # what can be kept grows with the state, whose size tables then show

    @abc.abstractmethod
    def spec(self, data: Data) -> Spec:
        """Sizes, loss and thresholds, given what `load` returned (concrete arrays: not under jit)."""

    def static(self) -> "Task":
        """The task without what `load` gives as values: two runs with the same one share a program."""
        return self

    @abc.abstractmethod
    def load(self, data_dir: str | None = None) -> Data:
        """The data as a pytree of NumPy arrays; the loop moves it to the device.

        Args:
          data_dir: a folder that holds the files; see `train.tasks.datasets`.

        Raises:
          DataError: the files are damaged, or nowhere to be had.
        """

    def check(self, data: Data) -> None:
        """Refuses what `load` gave where it cannot be right.

        Raises:
          DataError: with what is wrong, and where.
        """
        return

    def describe(self, data: Data) -> str:
        """A line for a person on what was read; empty: there is nothing to tell."""
        return ""

    def meaning(self, data: Data) -> Meaning:
        """What the numbers of a batch stand for."""
        return data.get("meaning", Meaning())

    def as_tokens(self, text: str) -> list[str]:
        """A text as its tokens' names, where the task is of texts."""
        raise ValueError(f"{self.name} reads no text")

    @abc.abstractmethod
    def train_batch(self, data: Data, key: Array, step: Array | int, batch_size: int) -> Batch:
        """The batch of training step `step` (int32, may be traced) of the run whose data key is `key`."""

    @abc.abstractmethod
    def eval_size(self, data: Data, split: str) -> int:
        """Number of examples in "valid" or "test", static."""

    @abc.abstractmethod
    def eval_batch(self, data: Data, split: str, index: Array | int, batch_size: int) -> Batch:
        """Rows index * batch_size onwards of "valid" or "test"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthetic(Task):
    """Examples made on the device: a subclass says `sample` and `spec`.

    Options:
      eval_examples: number of examples in each held-out split.
    """

    eval_examples: int = 1024

    def __post_init__(self):
        at_least(self, eval_examples=1)

    @abc.abstractmethod
    def sample(self, key: Array, batch_size: int, **values) -> tuple[Array, Array, Array, Array]:
        """Independent examples: xs, ys, weights, scored as in `Batch`, and, where rows are drawn of different
        lengths, those too; `values` as in `load`."""

    def lengths(self, rows: int, **values) -> Array | None:
        """The number of real steps of each row, the rest is padding; None: all rows are full."""
        return None

    def held_out(self, data: Data) -> tuple["Synthetic", Data]:
        """The task that held-out examples are of, and what its `load` would give."""
        return self, data

    def load(self, data_dir=None):
        """{}, or the options that a compiled program takes as values: see `Task.static`."""
        return {}

    def train_batch(self, data, key, step, batch_size):
        return self._batch(data, *self.sample(jax.random.fold_in(key, step), batch_size, **data))

    def eval_size(self, data, split):
        check_split(self, split)
        return self.eval_examples

    def eval_batch(self, data, split, index, batch_size):
        check_split(self, split)
        rows = index * batch_size + jnp.arange(batch_size)
        # A key for each row: the held-out set is the same whatever the batch size.
        keys = jax.vmap(jax.random.fold_in, (None, 0))(held_out_key(split), rows)
        task, data = self.held_out(data)
        examples = jax.vmap(lambda key: task.sample(key, 1, **data))(keys)
        xs, ys, weights, scored, *lengths = jax.tree.map(lambda x: x[:, 0], examples)
        inside = (rows < self.eval_examples).astype(jnp.float32)
        inside = inside.reshape(inside.shape + (1,) * (weights.ndim - 1))
        return task._batch(data, xs, ys, weights * inside, scored * inside, *lengths)

    def _batch(self, data, xs, ys, weights, scored, lengths=None):
        lengths = self.lengths(len(xs), **data) if lengths is None else lengths
        return Batch(xs, ys, lengths, weights, scored)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretchable(Synthetic):
    """A generated task of any length, up to a longest one that one compiled program serves.

    A subclass names its option of length in `stretch` (such as "gap") and has two more. Where "max_gap" is
    above 0, `load` gives {"gap": ...}, sequences are padded to max_gap, and a run with another gap needs no
    compilation. Where "eval_gap" is, held-out examples are of that length.
    """

    stretch: ClassVar[str]
    shortest: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        name, longest, held_out = self.stretch, f"max_{self.stretch}", f"eval_{self.stretch}"
        at_least(self, **{name: self.shortest, longest: 0, held_out: 0})
        length = getattr(self, name)
        ok = getattr(self, longest) == 0 or getattr(self, longest) >= length
        require(self, longest, ok, f"0 (off) or at least {name} = {length}")
        ok = getattr(self, held_out) == 0 or getattr(self, held_out) >= self.shortest
        require(self, held_out, ok, f"0 (as {name}) or at least {self.shortest}")

    @property
    def longest(self) -> int:
        """The length that shapes are made for."""
        return getattr(self, f"max_{self.stretch}") or getattr(self, self.stretch)

    def load(self, data_dir=None):
        padded = getattr(self, f"max_{self.stretch}") > 0
        return {self.stretch: np.int32(getattr(self, self.stretch))} if padded else {}

    @property
    def eval_time(self) -> int:
        """As in `Spec`."""
        length = getattr(self, f"eval_{self.stretch}")
        return self.real_length(**{self.stretch: length}) if length else 0

    def held_out(self, data, **options):
        """`options`: others that held-out examples have."""
        name, length = self.stretch, getattr(self, f"eval_{self.stretch}")
        if length:
            options, data = options | {name: length, f"max_{name}": 0, f"eval_{name}": 0}, {}
        return dataclasses.replace(self, **options) if options else self, data

    def static(self):
        return dataclasses.replace(self, **{self.stretch: self.longest})

    @abc.abstractmethod
    def real_length(self, **values) -> Array:
        """The number of real steps of every row (the most, where they differ), of what `load` may give."""

    def lengths(self, rows, **values):
        return jnp.full(rows, self.real_length(**values), jnp.int32) if values else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InMemory(Task):
    """A data set that fits in memory: a subclass says `load` and `spec`.

    `load` gives {"train" | "valid" | "test": {"xs": (n, ...), "ys": (n, ...), ...}}, ys int32 classes or
    float32 numbers (..., outputs), as in `Batch`; where rows differ "lengths" (n,) int32; "mask" and "resets"
    (n, time) bool; "weights" and "scored" (n,) or, per step, (n, time) float32, both 1 where they are left
    out; and perhaps "meaning". A subclass whose rows are stored otherwise says `example` and `check` as well.
    With `per_step` all real steps that `mask` does not skip count. Training goes through exact
    epochs: every row once in each, in an order of the epoch's own. A boundary between epochs may fall inside
    a batch.
    """

    def check(self, data):
        for split in ("train", *SPLITS):
            part, place = data[split], f"{self.name}, {split}"
            rows, labels = (len(part[name]) for name in ("xs", "ys"))
            if not labels or rows != labels:
                raise DataError(f"{place}: {rows} rows and {labels} labels")
            for name, array in part.items():
                if len(array) != rows:
                    raise DataError(f"{place}: {rows} rows and {len(array)} {name}")
        spec = self.sizes(data)
        for split in ("train", *SPLITS):
            part, place = data[split], f"{self.name}, {split}"
            xs, ys = (np.asarray(part[name]) for name in ("xs", "ys"))
            real = np.ones(xs.shape[:2], bool)
            if "lengths" in part:
                lengths = np.asarray(part["lengths"])
                _all((lengths >= 0) & (lengths <= xs.shape[1]), place, "length", lengths)
                real = np.arange(xs.shape[1]) < lengths[:, None]
            if "mask" in part:
                real &= part["mask"]
            counts = real if spec.per_step else np.ones(len(xs), bool)
            used = [counts & (part[name] > 0) if name in part else counts for name in ("weights", "scored")]
            for name, use in zip(("weights", "scored"), used, strict=True):
                if name in part:
                    _all(np.isfinite(part[name]) & (part[name] >= 0), place, name, part[name])
                if not use.any():
                    raise DataError(f"{place}: nothing counts in its {name}")
            counts = used[0] | used[1]
            if np.issubdtype(ys.dtype, np.floating):
                _all(np.isfinite(ys) | ~_as(counts, ys), place, "target", ys)
            else:
                _all((ys >= 0) & (ys < spec.output_size) | ~_as(counts, ys), place, "label", ys)
            if np.issubdtype(xs.dtype, np.floating):
                _all(np.isfinite(xs) | ~_as(real, xs), place, "input", xs)
            elif spec.inputs == "tokens":
                _all((xs >= 0) & (xs < spec.input_size) | ~_as(real, xs), place, "token", xs)

    def sizes(self, data: Data) -> Spec:
        """The spec; its threshold and baseline may be left out."""
        return self.spec(data)

    def inputs(self, xs: Array) -> Array:
        """Stored rows (batch, ...) as the model's inputs."""
        return xs.astype(jnp.int32)

    def example(self, stored: dict[str, Array]) -> tuple[Array, Array]:
        """xs and ys as in `Batch`, of stored rows."""
        return self.inputs(stored["xs"]), stored["ys"]

    def train_batch(self, data, key, step, batch_size):
        rows = self.train_rows(len(data["train"]["xs"]), key, step, batch_size)
        return self.batch_of(_picked(data["train"], rows))

    def bucket_batch(self, data, key, step, batch_size, bucket: Bucket) -> Batch:
        """The batch `step` of those of a bucket, of data whose training rows are sorted by length."""
        rows = self.train_rows(len(data["train"]["xs"]), key, step, batch_size, bucket)
        return self.batch_of(_picked(data["train"], rows), bucket)

    def train_rows(self, n, key, step, batch_size, bucket: Bucket | None = None) -> Array:
        """Which of n training rows, or of a bucket's, the batch of a step has: (batch,) int32."""
        if bucket is None:
            return self._rows(key, step, batch_size, n)
        key = jax.random.fold_in(key, bucket.first)
        return bucket.first + self._rows(key, step, batch_size, bucket.rows)

    def _rows(self, key, step, batch_size, n):
        if n * batch_size >= 2**31:
            raise ValueError(f"{self.name}: batch size {batch_size} is too large for {n} training rows")
        # Position step * batch_size + i of an endless stream, without int32 overflow: n steps are
        # exactly batch_size epochs.
        ahead = step % n * batch_size + jnp.arange(batch_size)
        return shuffled(key, step // n * batch_size + ahead // n, ahead % n, n)

    def eval_size(self, data, split):
        check_split(self, split)
        return len(data[split]["xs"])

    def eval_batch(self, data, split, index, batch_size):
        n = self.eval_size(data, split)
        rows = index * batch_size + jnp.arange(batch_size)
        return self._batch(data[split], jnp.minimum(rows, n - 1), (rows < n).astype(jnp.float32))

    def _batch(self, arrays, rows, weights):
        return self.batch_of(_picked(arrays, rows), weights=weights)

    def batch_of(
        self, picked: dict[str, Array], bucket: Bucket | None = None, weights: Array | None = None
    ) -> Batch:
        """The batch that stored rows make, wherever they were gathered.

        Args:
          bucket: the one they are of, to whose steps they are cut; None: all steps.
          weights: (batch,) float32, 0 for a row that does not count; None: all do.
        """
        xs, ys = self.example(picked)
        weights = jnp.ones(len(xs)) if weights is None else weights
        lengths, mask, resets = (picked.get(name) for name in ("lengths", "mask", "resets"))
        if self.per_step:
            steps = jnp.arange(xs.shape[1]) < (xs.shape[1] if lengths is None else lengths[:, None])
            weights = weights[:, None] * (steps if mask is None else steps & mask)
        scored = weights * picked["scored"] if "scored" in picked else weights
        weights = weights * picked["weights"] if "weights" in picked else weights
        batch = Batch(xs, ys, lengths, weights, scored, mask, resets)
        if bucket is None:
            return batch
        names = ("xs", "mask", "resets", *(("ys", "weights", "scored") if self.per_step else ()))
        steps = {name: getattr(batch, name) for name in names}
        return batch._replace(**{name: x[:, : bucket.time] for name, x in steps.items() if x is not None})


def _picked(arrays: dict[str, Array], rows: Array) -> dict[str, Array]:
    return {name: jnp.asarray(array)[rows] for name, array in arrays.items()}


def _as(flags: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Flags of rows or steps, of values (rows, ...) or (rows, steps, ...)."""
    return flags.reshape(flags.shape + (1,) * (values.ndim - flags.ndim))


def _all(good: np.ndarray, place: str, what: str, values: np.ndarray) -> None:
    if not good.all():
        where = tuple(int(i[0]) for i in np.nonzero(~good))
        raise DataError(f"{place}, row {where[0]}: the {what} {values[where]} cannot be right")


def held_out_key(split: str) -> Array:
    """The fixed key of a held-out split: no `jax.random.key(seed)` of a 32-bit seed equals it."""
    words = np.frombuffer(split.ljust(8).encode(), ">u4").astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def majority(data: Data) -> float:
    """The accuracy, on the validation split, of always saying the commonest class of training."""
    train, valid = (np.asarray(data[split]["ys"]) for split in ("train", "valid"))
    return float(np.mean(valid == np.bincount(train).argmax()))


def require(task: Task, option: str, ok: bool, wanted: str) -> None:
    """Refuses a bad option of `task` with one line.

    Raises:
      ValueError: `ok` is false.
    """
    if not ok:
        raise ValueError(f"{task.name}: {option} must be {wanted}, got {getattr(task, option)!r}")


def at_least(task: Task, **least: int) -> None:
    """Each named option is an integer of at least so much."""
    for option, minimum in least.items():
        value = getattr(task, option)
        require(task, option, isinstance(value, int) and not isinstance(value, bool), "an integer")
        require(task, option, value >= minimum, f"at least {minimum}")
        require(task, option, value < 2**31, f"below {2**31}")  # counted in int32 on the device


def check_split(task: Task, split: str) -> None:
    """Raises ValueError unless `split` is a held-out split."""
    if split not in SPLITS:
        raise ValueError(f"{task.name}: split must be 'valid' or 'test', got {split!r}")
