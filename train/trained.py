"""A run that was trained: its parameters, and what they answer. Reading never changes a run's folder."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import jax
import numpy as np
from numpy.typing import ArrayLike

from cells import CELLS
from train import exchange, exported, given, metrics, reading
from train.model import Model, build
from train.record import read_summary
from train.summary import Evaluation, Summary
from train.tasks.base import Spec
from train.tasks.meaning import unscaled
from train.trace import Trace, make_trace

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

AT = ("best", "last")
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model answers; as an array (`np.asarray`) its `outputs`.

    At steps that are padding, or skipped, the answers mean nothing.

    Attributes:
      outputs: float32 (batch, outputs), or with an answer at every step (batch, time, outputs); of all seeds,
        with an axis of them before. Of classes logits; numbers in the units of the targets.
      classes: int32 (batch,) or (batch, time), the likeliest; None: the task has none.
      probabilities: as outputs, of classes or of events that are independent; None: the task has neither.
      deviations: as outputs, of numbers whose loss is "gaussian_nll"; None: of others.
      names: of the classes, or of the outputs; empty: they have none.
    """

    outputs: np.ndarray
    classes: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    deviations: np.ndarray | None = None
    names: tuple[str, ...] = ()

    @property
    def labels(self) -> np.ndarray:
        """The names of `classes`, an array of text.

        Raises:
          ValueError: they have none.
        """
        if self.classes is None or not self.names:
            raise ValueError("these answers are no classes with names; see outputs")
        return np.asarray(self.names)[self.classes]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.outputs, dtype=dtype, copy=True if copy is None else copy)


class TrainedRun:
    """A run's folder, read; see `load`.

    Attributes:
      folder: where it is.
      config: what was run, derived values included (`RunConfig`); `asked`: as it was asked for.
      spec, meaning: what the task's inputs and answers are.
      model: pure functions of parameters (`train.model.Model`).
      summary: how it ended; None: it has not.
      steps: that it had taken at the last checkpoint.
    """

    def __init__(self, folder: Path, data_dir: str | None = None):
        self.folder = folder
        self.asked, self.config, self.spec, self.meaning = reading.described(folder, data_dir)
        self.model: Model = build(self.config.cell, self.spec, self.config.model)
        self._lanes: reading.Lanes = reading.restored(folder, self.config, self.spec, self.model)
        self.steps = self._lanes.step
        self._program, self._kept_params = functools.cache(self._program), functools.cache(self._kept_params)
        try:
            self.summary: Summary | None = read_summary(folder)[0]
        except FileNotFoundError:
            self.summary = None

    def __repr__(self) -> str:
        cell, task = CELLS.name_of(self.config.cell), self.config.task.name
        status = self.summary.run.status if self.summary else "not ended"
        seeds = self.config.train.seeds
        told = f"{cell} on {task}, {seeds} seed{'s' * (seeds > 1)}, step {self.steps:,}, {status}"
        return f"TrainedRun({str(self.folder)!r}: {told})"

    def curves(self) -> "pd.DataFrame":
        """A pandas DataFrame with a row for each evaluation and seed: `train.summary.Evaluation`'s fields.

        Raises:
          ValueError: the file is not what the run wrote.
        """
        import pandas as pd

        rows = reading.evaluations(self.folder, self.summary is not None)
        return pd.DataFrame(rows, columns=list(Evaluation.names()))

    def lane(self, seed: int | None = None, learning_rate: float | None = None) -> tuple[int, float]:
        """The seed and learning rate that have the best validation result, of those that are asked for.

        Raises:
          ValueError: the run has none such.
        """
        return self.config.lanes[self._lane(seed, learning_rate)]

    def params(
        self, seed: int | str | None = None, learning_rate: float | None = None, at: str = "best"
    ) -> dict[str, Any]:
        """Parameters, a nested dict of float32 arrays, as `model.apply` takes them.

        Args:
          seed: None: the one with the best validation result; "all": of all, with a leading axis.
          learning_rate: of a run with several; None: that of the best validation result.
          at: "best": the evaluation with the best validation metric; "last": the last step.

        Raises:
          ValueError: the run has none such.
        """
        if at not in AT:
            raise ValueError(f"at must be 'best' or 'last', got {at!r}")
        if seed == ALL:
            rate = self.lane(None, learning_rate)[1]
            lanes = np.array([i for i, (_, other) in enumerate(self.config.lanes) if other == rate])
        else:
            lanes = self._lane(seed, learning_rate)
        if at == "last":
            return jax.tree.map(lambda x: x[lanes], self._lanes.last.params)
        best = self._lanes.best
        if best is None or np.min(best.step[lanes]) < 0:
            raise ValueError(
                f"{self.folder}: no evaluation was kept that is the best; at='last' has the rest"
            )
        return jax.tree.map(lambda x: x[lanes], best.params)

    def _lane(self, seed, learning_rate) -> int:
        lanes = self.config.lanes
        if not isinstance(learning_rate, int | float | None) or not isinstance(
            seed, int | np.integer | str | None
        ):
            raise ValueError(f"seed and learning_rate must be numbers, got {seed!r}, {learning_rate!r}")
        rates = sorted({rate for _, rate in lanes})
        seeds = sorted({seed for seed, _ in lanes})
        if learning_rate is not None and not any(math.isclose(learning_rate, rate) for rate in rates):
            raise ValueError(f"{self.folder}: no learning_rate {learning_rate!r}; there are {rates}")
        if seed is not None and (isinstance(seed, str) or seed not in seeds):
            raise ValueError(
                f"{self.folder}: no seed {seed!r}; there are {seeds[0]} to {seeds[-1]}, or 'all'"
            )
        fit = [
            i
            for i, (own, rate) in enumerate(lanes)
            if (seed is None or own == seed) and (learning_rate is None or math.isclose(learning_rate, rate))
        ]
        best = self._lanes.best
        if best is None:
            return fit[0]
        sign = 1 if metrics.higher_is_better(self.spec) else -1
        return max(fit, key=lambda i: (best.step[i] >= 0, sign * float(best.metric[i]), -i))

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts as the task reads them: tokens (batch, time) int32, and lengths (batch,) int32.

        Raises:
          ValueError: the task reads no text, or one has what no token stands for.
        """
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ValueError("encode takes a list of texts")
        ids = {name: number for number, name in enumerate(self.meaning.tokens)}
        rows = [self.config.task.as_tokens(text) for text in texts]
        unknown = ids.get("<unknown>")
        for token in (token for row in rows for token in row if token not in ids and unknown is None):
            raise ValueError(f"the text that was trained on has no {token!r}")
        lengths = np.array([len(row) for row in rows], np.int32)
        xs = np.zeros((len(rows), max(1, lengths.max(initial=0))), np.int32)
        for row, tokens in zip(xs, rows, strict=True):
            row[: len(tokens)] = [ids.get(token, unknown) for token in tokens]
        return xs, lengths

    def inputs(
        self, xs: ArrayLike, mask: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """xs as `predict` takes them, as `model.apply` does; and the mask, with what gaps add to it.

        Raises:
          ValueError: as `predict` does.
        """
        xs, steps = given.inputs(self.spec, self.meaning, xs, lengths, mask)
        return xs, steps.get("mask")

    @overload
    def predict(
        self,
        xs: ArrayLike,
        lengths: ArrayLike | None = ...,
        mask: ArrayLike | None = ...,
        resets: ArrayLike | None = ...,
        *,
        seed: int | str | None = ...,
        learning_rate: float | None = ...,
        at: str = ...,
        carry: Any = ...,
        return_carry: Literal[False] = ...,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        xs: ArrayLike,
        lengths: ArrayLike | None = ...,
        mask: ArrayLike | None = ...,
        resets: ArrayLike | None = ...,
        *,
        seed: int | str | None = ...,
        learning_rate: float | None = ...,
        at: str = ...,
        carry: Any = ...,
        return_carry: Literal[True],
    ) -> tuple[Prediction, Any]: ...

    def predict(
        self,
        xs: ArrayLike,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        *,
        seed: int | str | None = None,
        learning_rate: float | None = None,
        at: str = "best",
        carry: Any = None,
        return_carry: bool = False,
    ) -> Prediction | tuple[Prediction, Any]:
        """What the trained model answers.

        Args:
          xs: NumPy or jax arrays. Tokens (batch, time), ints; of texts see `encode`. Features (batch, time,
            features), of your own data in their units (`meaning.features` names them, NaN is a gap where the
            run allows gaps), of other tasks as in their batches.
          lengths, mask, resets: as for `cells.scan`.
          seed, learning_rate, at: whose parameters, as for `params`; "all" seeds lead in what is returned.
          carry: of the piece of these sequences before, as it was returned; None: they begin.
          return_carry: also return the state after the last step, to go on from: in pieces of any length
            the answers are those of one pass. One answer per sequence is then that of the steps so far.

        Returns:
          `Prediction`; with return_carry (prediction, carry).

        Raises:
          ValueError: the inputs do not fit, the run has no such parameters, or the model cannot go on from a
            carry, since it reads from the end or looks at all steps.
        """
        params = self._kept_params(seed, learning_rate, at)
        xs, steps = given.inputs(self.spec, self.meaning, xs, lengths, mask, resets)
        if carry is not None:
            given.check_carry(self.model, carry, len(xs), self.config.train.seeds if seed == ALL else None)
        if return_carry or carry is not None:
            after, outputs = self._program(seed == ALL, True)(params, xs, steps, carry)
            return (self._prediction(outputs), after) if return_carry else self._prediction(outputs)
        program, size = self._program(seed == ALL, False), self.config.train.eval_batch_size
        pieces = []
        for first in range(0, len(xs), size):
            rows = [x[first : first + size] for x in (xs, *steps.values())]
            count = len(rows[0])
            if len(xs) > size:  # of one shape: one program
                rows = [np.concatenate([x, np.repeat(x[-1:], size - count, axis=0)]) for x in rows]
            outputs = program(params, rows[0], dict(zip(steps, rows[1:], strict=True)), None)
            pieces.append(np.asarray(outputs)[:, :count] if seed == ALL else np.asarray(outputs)[:count])
        return self._prediction(np.concatenate(pieces, axis=1 if seed == ALL else 0))

    def _program(self, all_seeds: bool, streams: bool):
        def one(params, xs, steps, carry):
            more = {"carry": carry, "return_carry": True} if streams else {}
            return self.model.apply(params, xs, **steps, **more)

        def first(params, xs, steps, carry):
            return jax.vmap(lambda params: one(params, xs, steps, None))(params)

        def going_on(params, xs, steps, carry):
            return jax.vmap(lambda params, carry: one(params, xs, steps, carry))(params, carry)

        if not all_seeds:
            return jax.jit(one)
        firsts, goings_on = jax.jit(first), jax.jit(going_on)
        return lambda *args: (firsts if args[-1] is None else goings_on)(*args)

    def _prediction(self, outputs) -> Prediction:
        outputs, loss = np.asarray(outputs), self.spec.loss
        if loss in metrics.CLASS_LOSSES:
            probabilities = np.asarray(jax.nn.softmax(outputs))
            classes = outputs.argmax(axis=-1).astype(np.int32)
            return Prediction(outputs, classes, probabilities, names=self.meaning.classes)
        if loss == "binary_cross_entropy":
            probabilities = np.asarray(jax.nn.sigmoid(outputs))
            return Prediction(outputs, probabilities=probabilities, names=self.meaning.targets)
        deviations, scales = None, self.meaning.target_scales
        if loss == "gaussian_nll":
            outputs, logs = np.split(outputs, 2, axis=-1)
            deviations = np.exp(np.clip(logs, -20, 20) / 2)
            if scales:
                size, _, factor = np.asarray(scales).T
                deviations = (deviations * size / factor).astype(np.float32)
        return Prediction(self._in_units(outputs), deviations=deviations, names=self.meaning.targets)

    def _in_units(self, outputs: np.ndarray) -> np.ndarray:
        """Means of numbers in the units of the targets; of a step's outputs what follows them stays."""
        scales = self.meaning.target_scales
        if not scales:
            return outputs
        means, rest = np.split(outputs, [len(scales)], axis=-1)
        means = unscaled(scales, means.astype(float)).astype(np.float32)
        return np.concatenate([means, rest], axis=-1)

    def initial_carry(self, batch: int = 1) -> Any:
        """The state before the first step, for `step` and `predict`."""
        return self.model.initial_carry(batch)

    def step(
        self,
        carry: Any,
        x: ArrayLike,
        *,
        seed: int | None = None,
        learning_rate: float | None = None,
        at: str = "best",
    ) -> tuple[Any, jax.Array]:
        """One step, compiled: for a loop in real time.

        Args:
          carry: the state, from `initial_carry(batch)` or the step before.
          x: (batch,) tokens or (batch, features), as for `predict`.
          seed, learning_rate, at: as for `params`, of one seed.

        Returns:
          The state after the step, and outputs (batch, outputs), those of `predict`.

        Raises:
          ValueError: as `predict` does.
        """
        x = given.array("x", x)
        if x.ndim != (1 if self.spec.inputs == "tokens" else 2):
            wanted = "(batch,)" if self.spec.inputs == "tokens" else "(batch, features)"
            raise ValueError(f"x must be one step, {wanted}, got {x.shape}")
        xs, steps = given.inputs(self.spec, self.meaning, x[:, None])
        given.check_carry(self.model, carry, len(xs))
        params = self._of_one(seed, learning_rate, at)
        carry, outputs = self._step(params, xs[:, 0], carry, steps.get("mask"))
        return carry, self._in_units(np.asarray(outputs)) if self.meaning.target_scales else outputs

    def _kept_params(self, seed, learning_rate, at):
        return jax.device_put(self.params(seed, learning_rate, at))

    def _of_one(self, seed, learning_rate, at):
        """The parameters of one seed, on the device.

        Raises:
          ValueError: all are asked for.
        """
        if seed == ALL:
            raise ValueError("seed='all': this is of one seed; leave it out for the best")
        return self._kept_params(seed, learning_rate, at)

    @functools.cached_property
    def _step(self):
        return jax.jit(one_step(self.model, self.spec))

    def trace(
        self,
        xs: ArrayLike,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        ys: ArrayLike | None = None,
        *,
        seed: int | None = None,
        learning_rate: float | None = None,
        at: str = "best",
    ) -> Trace:
        """What goes on inside: every layer's gates, states and gradients; see `train.trace.Trace`.

        Args:
          xs, lengths, mask, resets, seed, learning_rate, at: as for `predict`.
          ys: classes, by number, or numbers in their units: gradients are then those of the loss, summed over
            rows. None: of the answer, see `Trace`.
        """
        xs, steps = given.inputs(self.spec, self.meaning, xs, lengths, mask, resets)
        params = self._of_one(seed, learning_rate, at)
        traced = self._trace(
            params, xs, steps, None if ys is None else given.targets(self.spec, self.meaning, ys, xs.shape)
        )
        return jax.tree.map(np.asarray, traced)

    @functools.cached_property
    def _trace(self):
        return jax.jit(make_trace(self.config.cell, self.spec, self.config.model))

    def to_torch(
        self, seed: int | None = None, learning_rate: float | None = None, at: str = "best"
    ) -> dict[str, np.ndarray]:
        """The weights as a torch state dict of NumPy arrays, see `train.exchange.to_torch`; whose, as for
        `params`. Inputs and answers are in the model's units: see `inputs`."""
        return self._to(exchange.to_torch, seed, learning_rate, at)

    def to_flax_nnx(
        self,
        seed: int | None = None,
        learning_rate: float | None = None,
        at: str = "best",
        optimized: bool = False,
    ) -> dict[str, Any]:
        """Likewise for `nnx.update`, see `train.exchange.to_flax_nnx`."""
        return self._to(exchange.to_flax_nnx, seed, learning_rate, at, optimized)

    def to_flax_linen(
        self, seed: int | None = None, learning_rate: float | None = None, at: str = "best"
    ) -> dict[str, Any]:
        """Likewise as parameters of flax.linen, see `train.exchange.to_flax_linen`."""
        return self._to(exchange.to_flax_linen, seed, learning_rate, at)

    def to_keras(self, seed: int | None = None, learning_rate: float | None = None, at: str = "best") -> Any:
        """Likewise for `set_weights` of a Keras model, see `train.exchange.to_keras`."""
        return self._to(exchange.to_keras, seed, learning_rate, at)

    def _to(self, convert: Callable[..., Any], seed, learning_rate, at: str, *more) -> Any:
        if seed == ALL:
            raise ValueError("seed='all': weights are of one seed; leave it out for the best")
        return convert(self.config.cell, self.config.model, self.params(seed, learning_rate, at), *more)

    def export(
        self,
        seed: int | None = None,
        learning_rate: float | None = None,
        at: str = "best",
        lengths: bool = False,
        platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    ) -> jax.export.Exported:
        """One program with the parameters inside, for any batch and number of steps; whose, as for `params`.

        `.serialize()` of it is what `experiments.export` writes; see `train.exported.export`.
        """

        def program(cell, config, params):
            return exported.export(cell, config, self.spec, params, self.meaning, lengths, platforms)

        return self._to(program, seed, learning_rate, at)

    def plot_gates(
        self,
        xs: ArrayLike,
        row: int = 0,
        layer: int = 0,
        lengths: ArrayLike | None = None,
        **named: Any,
    ) -> "Figure":
        """A figure of one sequence over time: each gate of a layer, unit by unit, what the units give out,
        and how much the answer depends on each input.

        Args:
          row: which of xs. layer: from 0, that nearest to the inputs.
          lengths and the rest: as for `trace`.

        Returns:
          A matplotlib Figure.
        """
        from train.plot_gates import plot_gates

        xs = given.array("xs", xs)
        named = {name: value for name, value in named.items() if value is not None}
        if xs.ndim < 2 or type(row) is not int or not -len(xs) <= row < len(xs):
            raise ValueError(f"row={row}: xs has {xs.shape}")
        one = {
            name: np.asarray(named.pop(name))[row][None] for name in ("mask", "resets", "ys") if name in named
        }
        real = xs.shape[1] if lengths is None else int(np.asarray(lengths)[row])
        traced = self.trace(
            xs[row][None], lengths=None if lengths is None else np.array([real]), **one, **named
        )
        return plot_gates(self, traced, xs[row], max(real, 1), layer)


def one_step(model: Model, spec: Spec) -> Callable:
    """(params, x (batch, ...), carry, mask (batch, 1)) -> the carry after it, outputs (batch, outputs)."""

    def step(params, x, carry, mask=None):
        carry, outputs = model.apply(params, x[:, None], mask=mask, carry=carry, return_carry=True)
        return carry, outputs[:, 0] if spec.per_step else outputs

    return step


def load(folder: str | Path, data_dir: str | None = None) -> TrainedRun:
    """A trained run, finished or interrupted, to predict, stream and look inside. Its folder is only read.

    Args:
      folder: as `--workdir` said, or one of the runs in it.
      data_dir: where the real data sets are: needed only for runs of older versions.

    Warns:
      UserWarning: the last checkpoint is damaged, and this is the one before.

    Raises:
      ValueError: it is no run's folder (with those that are, below it), has no checkpoint yet, or is damaged.
    """
    if not isinstance(folder, str | Path):
        raise ValueError(f"a run's folder is a path, got {folder!r}")
    return TrainedRun(Path(folder).expanduser(), data_dir)
