"""Losses and metrics of a task, weighted so that evaluations over several batches add up exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.tasks.base import Batch, Spec


def _check_alike(loss: str, outputs, ys) -> None:
    if outputs.shape != ys.shape:  # (batch, 1) and (batch,) would broadcast
        raise ValueError(f"{loss} needs outputs and targets alike, got {outputs.shape} and {ys.shape}")


def _squared_error(outputs, ys):
    """Mean over the outputs; (..., outputs) both."""
    _check_alike("squared error", outputs, ys)
    return jnp.mean((outputs - ys) ** 2, axis=-1)


def _bernoulli_nll(outputs, ys):
    """Sum over the outputs, which are logits of independent events; (..., outputs) both."""
    _check_alike("binary cross-entropy", outputs, ys)
    return jnp.sum(optax.sigmoid_binary_cross_entropy(outputs, ys), axis=-1)


def _is_right(outputs, ys):
    """1 or 0; NaN where the outputs hold one, of which argmax would make a class."""
    right = (jnp.argmax(outputs, axis=-1) == ys).astype(outputs.dtype)
    return jnp.where(jnp.isnan(outputs).any(-1), jnp.nan, right)


LOSSES = {
    "cross_entropy": optax.softmax_cross_entropy_with_integer_labels,
    "squared_error": _squared_error,
    "binary_cross_entropy": _bernoulli_nll,
}
METRICS = {"accuracy": _is_right, "mse": _squared_error, "frame_nll": _bernoulli_nll}


def _weighted(measure, outputs, ys, weights):
    """Sum of weights * measure and sum of weights. What stands where a weight is 0 does not matter."""
    if not outputs.shape[:-1] == ys.shape[: outputs.ndim - 1] == weights.shape:
        raise ValueError(f"outputs {outputs.shape}, targets {ys.shape}, weights {weights.shape} do not fit")
    if ys.ndim == weights.ndim and not any(isinstance(x, jax.core.Tracer) for x in (ys, weights)):
        _check_labels(np.asarray(ys), np.asarray(weights), outputs.shape[-1])

    def clear(x):
        return jnp.where((weights != 0).reshape(weights.shape + (1,) * (x.ndim - weights.ndim)), x, 0)

    return jnp.sum(weights * measure(clear(outputs), clear(ys))), jnp.sum(weights)


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
    """Sum of the task's metric over what is scored, and how much is, two scalars."""
    return _weighted(METRICS[spec.metric], outputs, batch.ys, batch.scored)


def higher_is_better(spec: Spec) -> bool:
    """Whether a higher metric is a better one."""
    return spec.metric == "accuracy"


def solved(spec: Spec, metric):
    """Whether a metric reaches the task's threshold, bool of its shape; NaN never does."""
    metric = jnp.asarray(metric)
    return metric >= spec.threshold if higher_is_better(spec) else metric <= spec.threshold
