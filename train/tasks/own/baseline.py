"""What an answer without memory is worth, by any metric."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from train import host, metrics
from train.tasks import base


def with_baseline(task: base.InMemory, spec: base.Spec, data, threshold: float | None = None) -> base.Spec:
    """The spec with `baseline` and `threshold`.

    The baseline is the best answer of training that looks at nothing, scored on the validation split; where
    later inputs are asked for, or the present ones in their place, if that is better. Best is: the logarithms
    of the classes' shares, the mean, or for absolute errors the median. Of the test split nothing is known.

    Args:
      threshold: None: half way from the baseline to a perfect answer.
    """
    now = data.get("read", {}).get("now")
    with jax.default_device(host.device()):  # which has the memory for all of training
        found = [float(x) for x in _scores(task, spec, data["train"], data["valid"], now)]
    higher = metrics.higher_is_better(spec)
    baseline = max(found) if higher else min(found)
    perfect = 1.0 if higher else float(metrics.finished(spec, jnp.zeros(())))
    halfway = (baseline + perfect) / 2
    return dataclasses.replace(spec, baseline=baseline, threshold=halfway if threshold is None else threshold)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(task, spec, train, valid, now):
    train, valid = (
        task._batch(part, jnp.arange(len(part["xs"])), jnp.ones(len(part["xs"]))) for part in (train, valid)
    )
    answers = [jnp.broadcast_to(_constant(spec, train), (*valid.scored.shape, spec.output_size))]
    if now is not None:
        answers.append(valid.xs[..., now])
    if now is not None and spec.loss == "gaussian_nll":
        answers[1] = jnp.concatenate([answers[1], jnp.zeros_like(answers[1])], axis=-1)
    return [metrics.finished(spec, metrics.mean(*metrics.score(spec, each, valid))) for each in answers]


def _constant(spec, train):
    """(outputs,) of the training split."""
    counts = train.scored.reshape(-1) > 0
    if spec.loss in metrics.CLASS_LOSSES:
        number = jnp.zeros(spec.output_size).at[train.ys.reshape(-1)].add(counts)
        return jnp.log((number + 1) / (counts.sum() + spec.output_size))
    ys = jnp.where(counts[:, None], train.ys.reshape(len(counts), -1), 0)
    mean = ys.sum(0) / counts.sum()
    if spec.loss == "binary_cross_entropy":  # a target that training never has is not impossible
        on, number = ys.sum(0) + 1, counts.sum() + 2
        return jnp.log(on) - jnp.log(number - on)
    if spec.metric == "mae":
        mean = jnp.nanmedian(jnp.where(counts[:, None], ys, jnp.nan), axis=0)
    return jnp.concatenate([mean, jnp.zeros_like(mean)]) if spec.loss == "gaussian_nll" else mean
