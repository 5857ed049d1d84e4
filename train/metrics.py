"""Losses and metrics of a task, weighted so that evaluations over several batches add up exactly."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.tasks.base import Batch, Spec


def _check_alike(loss: str, outputs, ys) -> None:
    if outputs.shape != ys.shape:  # (batch, 1) and (batch,) would broadcast
        raise ValueError(f"{loss} needs outputs and targets alike, got {outputs.shape} and {ys.shape}")


def _squared_error(outputs, ys):
    """Mean over the outputs, as of the two below; (..., outputs) both."""
    _check_alike("squared error", outputs, ys)
    return jnp.mean((outputs - ys) ** 2, axis=-1)


def _absolute_error(outputs, ys):
    _check_alike("absolute error", outputs, ys)
    return jnp.mean(jnp.abs(outputs - ys), axis=-1)


def _huber(outputs, ys):
    """Huber 1964, section 3: squared within 1 of the target, halved, linear beyond."""
    _check_alike("Huber's loss", outputs, ys)
    return jnp.mean(optax.huber_loss(outputs, ys, delta=1.0), axis=-1)


def _gaussian_nll(outputs, ys):
    """Mean over the targets (..., k), nats; outputs (..., 2 k) are the means, then the logarithms of the
    variances (Nix & Weigend 1994, equation 4, with its constant)."""
    if outputs.shape != (*ys.shape[:-1], 2 * ys.shape[-1]):
        raise ValueError(
            f"Gaussian NLL needs two outputs for each target, got {outputs.shape} and {ys.shape}"
        )
    means, logs = jnp.split(outputs, 2, axis=-1)
    logs = jnp.clip(logs, -20, 20)  # where a variance vanishes or explodes, the gradient does not
    return jnp.mean(((ys - means) ** 2 * jnp.exp(-logs) + logs + math.log(2 * math.pi)) / 2, axis=-1)


def _bernoulli_nll(outputs, ys):
    """Sum over the outputs, which are logits of independent events; (..., outputs) both."""
    _check_alike("binary cross-entropy", outputs, ys)
    return jnp.sum(optax.sigmoid_binary_cross_entropy(outputs, ys), axis=-1)


def _is_right(outputs, ys):
    """1 or 0; NaN where the outputs hold one, of which argmax would make a class."""
    right = (jnp.argmax(outputs, axis=-1) == ys).astype(outputs.dtype)
    return jnp.where(jnp.isnan(outputs).any(-1), jnp.nan, right)


_class_nll = optax.softmax_cross_entropy_with_integer_labels


class Metric(NamedTuple):
    """How answers are judged.

    measure(outputs, ys) -> of each answer; finish: of their weighted mean.
    of_rows: of answers of at most 1, a row's worst one counts, once.
    """

    measure: Callable
    higher_is_better: bool = False
    finish: Callable = lambda mean: mean
    of_rows: bool = False


# Of ys that are classes, (...,), or numbers, (..., outputs).
CLASS_LOSSES = {"cross_entropy": _class_nll}
NUMBER_LOSSES = {
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": _huber,
    "gaussian_nll": _gaussian_nll,
    "binary_cross_entropy": _bernoulli_nll,
}
LOSSES = CLASS_LOSSES | NUMBER_LOSSES
CLASS_METRICS = {
    "accuracy": Metric(_is_right, higher_is_better=True),
    "sequence_accuracy": Metric(_is_right, higher_is_better=True, of_rows=True),
    "bits_per_character": Metric(_class_nll, finish=lambda nats: nats / math.log(2)),
    "perplexity": Metric(_class_nll, finish=jnp.exp),
}
NUMBER_METRICS = {
    "mse": Metric(_squared_error),
    "mae": Metric(_absolute_error),
    "frame_nll": Metric(_bernoulli_nll),
}
METRICS = CLASS_METRICS | NUMBER_METRICS


def _each(measure, outputs, ys, weights):
    """The measure of each answer. What stands where a weight is 0 does not matter."""
    if not outputs.shape[:-1] == ys.shape[: outputs.ndim - 1] == weights.shape:
        raise ValueError(f"outputs {outputs.shape}, targets {ys.shape}, weights {weights.shape} do not fit")
    if ys.ndim == weights.ndim and not any(isinstance(x, jax.core.Tracer) for x in (ys, weights)):
        _check_labels(np.asarray(ys), np.asarray(weights), outputs.shape[-1])

    def clear(x):
        return jnp.where((weights != 0).reshape(weights.shape + (1,) * (x.ndim - weights.ndim)), x, 0)

    return measure(clear(outputs), clear(ys))


def _weighted(measure, outputs, ys, weights):
    """Sum of weights * measure, and sum of weights."""
    return jnp.sum(weights * _each(measure, outputs, ys, weights)), jnp.sum(weights)


def _check_labels(ys, weights, classes: int) -> None:
    """Raises ValueError for a label that counts and is no class: under jit -1 would silently be the last."""
    if (wrong := (weights != 0) & ((ys < 0) | (ys >= classes))).any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"label {ys[place]} of target {place} is not in 0..{classes - 1}")


def mean(total, weight):
    """Of a sum of weighted values; 0 where nothing has weight."""
    return total / jnp.where(weight == 0, 1, weight)


def loss_sum(spec: Spec, outputs, batch: Batch):
    """Sum of the weighted losses and sum of the weights, two scalars."""
    return _weighted(LOSSES[spec.loss], outputs, batch.ys, batch.weights)


def loss(spec: Spec, outputs, batch: Batch):
    """Weighted mean loss of a batch, a scalar: sum(weights * losses) / sum(weights).

    Args:
      outputs: (batch, outputs), or per step (batch, time, outputs), from `Model.apply`.

    Raises:
      ValueError: shapes of outputs, targets and weights do not fit, or a label is no class.
    """
    return mean(*loss_sum(spec, outputs, batch))


def score(spec: Spec, outputs, batch: Batch):
    """Sum of the task's metric over what is scored, and how much is, two scalars; see `finished`."""
    metric = METRICS[spec.metric]
    if spec.loss == "gaussian_nll":
        outputs = outputs[..., : outputs.shape[-1] // 2]
    if not metric.of_rows or not spec.per_step:
        return _weighted(metric.measure, outputs, batch.ys, batch.scored)
    each = _each(metric.measure, outputs, batch.ys, batch.scored)
    counts = batch.scored != 0
    worst = jnp.where(counts, each, 1).min(axis=1)
    rows = counts.any(axis=1).astype(each.dtype)
    return jnp.sum(rows * worst), jnp.sum(rows)


def finished(spec: Spec, mean):
    """The metric, of the mean that `score` adds up to."""
    return METRICS[spec.metric].finish(mean)


def higher_is_better(spec: Spec) -> bool:
    """Whether a higher metric is a better one."""
    return METRICS[spec.metric].higher_is_better


def solved(spec: Spec, metric):
    """Whether a metric reaches the task's threshold, bool of its shape; NaN never does."""
    metric = jnp.asarray(metric)
    return metric >= spec.threshold if higher_is_better(spec) else metric <= spec.threshold
