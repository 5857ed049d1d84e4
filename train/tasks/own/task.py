"""Sequences of a person's own: what is asked of them, and how they become rows of a task."""

import abc
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from cells.registry import nearest
from train import metrics
from train.tasks import base
from train.tasks.datasets import DataError
from train.tasks.own import inputs as own_inputs
from train.tasks.own import pieces, splits
from train.tasks.own import targets as own_targets
from train.tasks.own.baseline import with_baseline
from train.tasks.own.sequences import Sequences

ANSWERS = ("class", "number", "class_per_step", "number_per_step", "forecast")
SPLIT_BY = ("sequence", "time")
GAPS = ("refuse", "indicator", "skip")
TIMES = ("none", "value", "difference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(splits.Divided):
    """Sequences that `read` gives, of tokens or of features: what all tasks of one's own data share.

    xs (batch, time) int32 or (batch, time, features) float32; ys int32 classes in sorted order, or float32
    numbers. Features, and targets that are numbers, have mean 0 and standard deviation 1 over the steps that
    train, so that errors are in units of that deviation. A step does not count that is skipped, or whose
    target (any number of it) is missing, ignored or of weight 0: it has no part in scales, classes or counts.

    Options:
      answer: what is asked: a "class" or "number" of each sequence; "class_per_step", "number_per_step"; or
        a "forecast" of the features, or tokens, at every step, which passes over `ys` of arrays.
      horizon: how many steps ahead the forecast is.
      window: sequences are cut into pieces of so many steps, each a row of its own; 0: they are not. The
        answer of a sequence is that of its pieces.
      split_by: what is held out: whole "sequence"s, or the last part of the "time" of each. No piece is of
        two splits.
      gaps: inputs that are missing or infinite: "refuse"; "indicator": 0, and a second feature is 1 there;
        "skip": the step is passed over, as if it were not there, and its target does not count.
      times: time stamps as one more feature: "none", their "value", or the "difference" to the step before.
      standardize: False leaves features and targets as they are.
      ignore_label: a class that does not count.
      loss, metric: of `train.metrics`; "auto": cross_entropy and accuracy, or squared_error and mse.
        "gaussian_nll" learns variances, too; "binary_cross_entropy" takes numbers that are 0 or 1.
      threshold: the metric that counts as solved; None: half way from the baseline, which is that of the
        validation split, to a perfect one.
    """

    answers: ClassVar[tuple[str, ...]] = ANSWERS
    answer: str = "class"
    horizon: int = 1
    window: int = 0
    split_by: str = "sequence"
    gaps: str = "refuse"
    times: str = "none"
    standardize: bool = True
    ignore_label: int | None = None
    loss: str = "auto"
    metric: str = "auto"
    threshold: float | None = None

    def __post_init__(self):
        super().__post_init__()
        for option, choices in {
            "answer": self.answers, "split_by": SPLIT_BY, "gaps": GAPS, "times": TIMES,
            "loss": ("auto", *metrics.LOSSES), "metric": ("auto", *metrics.METRICS),
        }.items():  # fmt: skip
            value = getattr(self, option)
            base.require(self, option, value in choices, f"known ({nearest(value, choices)})")
        base.at_least(self, horizon=1, window=0)
        forecast, asked = self.answer == "forecast", f"with answer={self.answer}"
        base.require(self, "horizon", forecast or self.horizon == 1, f"1 {asked}")
        base.require(self, "split_by", self.per_step or self.split_by == "sequence", f"sequence {asked}")
        drawn = self.split_by == "sequence" or self.split_seed == 0
        base.require(self, "split_seed", drawn, "0 with split_by=time, where nothing is drawn")
        base.require(self, "standardize", isinstance(self.standardize, bool), "True or False")
        classes = forecast or self.answer.startswith("class")
        base.require(self, "class_weights", classes or not self.class_weights, f"empty {asked}")
        base.require(self, "ignore_label", classes or self.ignore_label is None, f"None {asked}")
        number = isinstance(self.threshold, int | float) and math.isfinite(self.threshold)
        base.require(self, "threshold", self.threshold is None or number, "a number")
        if not forecast:
            self.judged_by(classes)

    @property
    def per_step(self) -> bool:
        return self.answer not in ("class", "number")

    def judged_by(self, classes: bool) -> tuple[str, str]:
        """Loss and metric, of targets that are classes or numbers.

        Raises:
          ValueError: they do not fit the targets, or each other.
        """
        what = "of classes" if classes else "of numbers"
        losses = metrics.CLASS_LOSSES if classes else metrics.NUMBER_LOSSES
        loss = next(iter(losses)) if self.loss == "auto" else self.loss
        base.require(self, "loss", loss in losses, f"{what} ({nearest(self.loss, losses)})")
        fit = list(metrics.CLASS_METRICS)
        if not classes:  # the outputs are logits, or they are the answer
            events = loss == "binary_cross_entropy"
            fit = [name for name in metrics.NUMBER_METRICS if (name == "frame_nll") == events]
            what = f"of numbers with loss={loss}"
        metric = fit[0] if self.metric == "auto" else self.metric
        base.require(self, "metric", metric in fit, f"{what} ({nearest(self.metric, fit)})")
        return loss, metric

    def spec(self, data):
        return with_baseline(self, self.sizes(data), data, self.threshold)

    def sizes(self, data):
        part, read = data["train"], data["read"]
        tokens, classes = (np.issubdtype(part[name].dtype, np.integer) for name in ("xs", "ys"))
        loss, metric = self.judged_by(classes)
        outputs = len(read["classes"]) if classes else part["ys"].shape[-1]
        return base.Spec(
            inputs="tokens" if tokens else "features",
            input_size=int(read["vocabulary"]) if tokens else part["xs"].shape[-1],
            output_size=2 * outputs if loss == "gaussian_nll" else outputs,
            per_step=self.per_step,
            pooling="last",
            loss=loss,
            metric=metric,
            threshold=math.nan,
            baseline=math.nan,
            time=part["xs"].shape[1],
            looks_ahead=self.answer == "forecast",
        )

    def describe(self, data):
        read, (part, spec) = data["read"], (data["train"], self.sizes(data))
        short, longest = int(read["shortest"]), int(read["longest"])
        steps = f"{longest:,}" if short == longest else f"{short:,} to {longest:,}"
        number = int(read["sequences"])
        inputs = f"{spec.input_size} {spec.inputs[: -1 if spec.input_size == 1 else None]}"
        if self.answer == "forecast":
            what = f"to forecast {self.horizon} step{'s' * (self.horizon > 1)} ahead"
        else:
            classes = spec.loss in metrics.CLASS_LOSSES
            what = f"{spec.output_size} classes" if classes else f"targets of {part['ys'].shape[-1]}"
        counts = dict(zip(splits.PARTS, read["split"].tolist(), strict=True))
        line = f"{self.name}: {self.source()}: {number:,} sequence{'s' * (number > 1)} of {steps} steps, "
        line += f"{inputs}, {what}; " + self.split_said(counts, bool(read["drawn"]))
        if self.window:
            rows = (len(data[part]["xs"]) for part in splits.PARTS)
            line += f", in {'/'.join(f'{n:,}' for n in rows)} pieces of at most {spec.time} steps"
        line += f"; {int(read['cut'])} were cut to {self.max_length} steps" if read["cut"] else ""
        line += "; its ys are not used" if read["unused"] else ""
        if read["idle"]:
            what = "steps" if self.per_step else "pieces" if self.window else "sequences"
            line += f"; {int(read['idle']):,} of {int(read['answers']):,} {what} do not count"
        return line + (
            f"; {int(read['short'])} parts too short for a target are left out" if read["short"] else ""
        )

    @abc.abstractmethod
    def source(self) -> str:
        """What the data are called."""

    def inputs(self, xs):
        return xs.astype(jnp.int32 if jnp.issubdtype(xs.dtype, jnp.integer) else jnp.float32)

    @abc.abstractmethod
    def read(self, data_dir: str | None) -> Sequences:
        """The sequences. Raises DataError as `load` does."""

    def load(self, data_dir=None):
        """As `InMemory`; "read": numbers that `spec` and `describe` need; and "meaning"."""
        found, forecast = self.read(data_dir), self.answer == "forecast"
        if not forecast and found.ys is None:
            raise DataError(f"{found.place}: no targets (ys) in it, and answer={self.answer}")
        if self.answer.startswith("class") and found.ys.shape[1:] == (1,):
            found = found._replace(ys=found.ys[:, 0])
        read = {"unused": found.unused, "cut": 0, "short": 0, "sequences": len(found.lengths)}
        read["cut"] = self.cut(found.lengths, "sequence")
        if read["cut"]:
            found = pieces.shortened(found, self.max_length, self.per_step)
        read |= {"shortest": found.lengths.min(), "longest": found.lengths.max()}
        parts, read["drawn"] = self._parts(found)
        found = own_inputs.filled(self, found)
        trains = np.repeat(parts.split, parts.length) == 0  # of all steps
        xs, features, meaning = own_inputs.inputs(self, found, trains)
        weights = own_targets.weights(self, found)
        trains = trains if self.per_step else parts.split == 0
        targets = own_targets.targets(self, found, weights > 0, trains, features, meaning)
        if not found.features:
            read["vocabulary"] = found.xs.max(initial=0) + 1
        elif forecast and (found.ys is None or found.targets):
            read["now"] = found.targets or range(len(found.features))
        if forecast:
            parts, read["short"] = pieces.without_end(parts, self.horizon)
        time = int(parts.length.max(initial=0))
        if self.window:
            if self.window >= time > 0:
                raise DataError(
                    f"{self.name}: window={self.window} has no effect: the longest part has {time}"
                )
            parts = pieces.with_a_step(pieces.windows(parts, self.window), found.real)
            time = min(self.window, time)
        read["split"] = [len(np.unique(parts.row[parts.split == i])) for i in range(len(splits.PARTS))]
        for part, name in enumerate(splits.PARTS):
            if not (parts.split == part).any() or time == 0:
                raise DataError(
                    f"{self.name}: {found.place}: nothing is left for {name}: no steps, or too few"
                )
        arrays = self._arrays(found, xs, targets, weights, parts, time, read)
        data = {
            name: {key: array[parts.split == part] for key, array in arrays.items()}
            for part, name in enumerate(splits.PARTS)
        }
        said = {"classes": targets.classes or (), "target_scales": targets.scales}
        said["targets"] = tuple(map(str, targets.names))
        meaning = dataclasses.replace(meaning, **said)
        return data | {
            "read": {name: np.array(value, np.int32) for name, value in read.items()},
            "meaning": meaning,
        }

    def _arrays(self, found: Sequences, xs, targets, weights, parts, time: int, read: dict) -> dict:
        """What a row is made of, for the pieces of all splits; what counts of them is written to `read`."""

        def of_steps(values, ahead=0):
            return pieces.padded(values, parts.start + ahead, parts.length, time)

        def of_answers(values):
            ahead = self.horizon if self.answer == "forecast" else 0
            return of_steps(values, ahead) if self.per_step else values[parts.row]

        arrays = {"xs": of_steps(xs), "ys": of_answers(targets.ys)}
        if (parts.length != time).any():
            arrays["lengths"] = parts.length.astype(np.int32)
        if not found.real.all():
            arrays["mask"] = of_steps(found.real)
        if found.resets is not None and found.resets.any():
            arrays["resets"] = of_steps(found.resets)
        asked = of_steps(found.real) if self.per_step else np.ones(len(parts.row), bool)
        scored = of_answers(targets.counts) & asked
        weights = np.where(scored, of_answers(weights), 0)
        for part, name in enumerate(splits.PARTS):
            if not scored[of := parts.split == part].any():
                steps, skipped = parts.length[of].sum(), of_steps(~found.real)[of].sum()
                raise DataError(
                    f"{found.place}: no {'step' if self.per_step else 'sequence'} counts in {name}: of "
                    f"{steps} steps {skipped} are skipped, and nothing left has a weight and a whole target"
                )
        if targets.classes is not None:
            trains = (scored.T & (parts.split == 0)).T
            labels = arrays["ys"][trains]
            number = len(targets.classes)
            read["classes"] = np.bincount(labels, minlength=number)
            share = np.bincount(labels, weights[trains], minlength=number)
            weights = weights * self.loss_weights(share)[arrays["ys"]]
        slots = parts.length.sum() if self.per_step else len(parts.row)
        read |= {"answers": slots, "idle": slots - scored.sum()}
        if (weights != 1)[asked].any():
            arrays["weights"], arrays["scored"] = weights.astype(np.float32), scored.astype(np.float32)
        return arrays

    def _parts(self, found: Sequences) -> tuple[pieces.Pieces, bool]:
        """What of the sequences is of which split; and whether that was drawn."""
        if self.split_by == "time":
            if found.split is not None:
                raise DataError(f"{self.name}: split_by=time has no effect: {found.place} has its split")
            return pieces.in_time(found.lengths, self.fractions()), False
        kinds = np.zeros(len(found.lengths), int)
        if self.answer == "class":
            labels = found.ys if found.ys.ndim == 1 else kinds
            kinds = np.unique(labels, return_inverse=True)[1]
            kinds = kinds if found.weights is None else np.where(found.weights > 0, kinds, -1)
        if len(kinds) == 1:
            long = (
                "; a single one that is long can be split by time: split_by=time, for answers at every step"
            )
            raise DataError(f"{self.name}: {found.place} has one sequence, which cannot be split{long}")
        split = self.divide(found.place, kinds, found.split)
        given = found.split is not None and len(set(found.split.tolist())) == len(splits.PARTS)
        return pieces.whole(found.lengths, split), not given
