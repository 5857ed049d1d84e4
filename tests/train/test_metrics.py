"""Losses and metrics against numbers worked by hand, and as laws of weights."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import metrics
from train.tasks.base import Batch, Spec

CLASSES = Spec(
    inputs="tokens",
    input_size=5,
    output_size=3,
    per_step=False,
    pooling="last",
    loss="cross_entropy",
    metric="accuracy",
    threshold=0.9,
    baseline=1 / 3,
    time=4,
)
STEPS = dataclasses.replace(CLASSES, per_step=True)
NUMBERS = dataclasses.replace(CLASSES, loss="squared_error", metric="mse", threshold=0.01)
SPECS = {"classes": CLASSES, "steps": STEPS, "numbers": NUMBERS}


def batch_of(ys, weights, scored=None):
    weights = np.array(weights, np.float32)
    scored = weights if scored is None else np.array(scored, np.float32)
    return Batch(None, np.array(ys), None, weights, scored)


def example(spec, rows=6, time=4):
    """Random outputs and a batch with weights of all kinds."""
    rng = np.random.default_rng(0)
    shape = (rows, time) if spec.per_step else (rows,)
    outputs = rng.normal(size=(*shape, spec.output_size)).astype(np.float32)
    if spec.loss == "squared_error":
        ys = rng.normal(size=outputs.shape).astype(np.float32)
    else:
        ys = rng.integers(spec.output_size, size=shape).astype(np.int32)
    weights, scored = rng.choice([0.0, 0.5, 1.0, 2.0], (2, *shape)).astype(np.float32)
    return outputs, Batch(None, ys, None, weights, scored)


def rows_of(outputs, batch, rows):
    picked = {name: getattr(batch, name)[rows] for name in ("ys", "weights", "scored")}
    return outputs[rows], batch._replace(**picked)


def test_cross_entropy_and_accuracy_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).astype(np.float32)
    batch = batch_of([0, 2, 1], weights=[1, 2, 0.5], scored=[1, 1, 1])
    total = -(math.log(0.5) + 2 * math.log(0.7) + 0.5 * math.log(0.3))
    np.testing.assert_allclose(metrics.loss_sum(CLASSES, logits, batch), (total, 3.5), rtol=1e-6)
    np.testing.assert_allclose(metrics.loss(CLASSES, logits, batch), total / 3.5, rtol=1e-6)
    np.testing.assert_allclose(metrics.score(CLASSES, logits, batch), (2.0, 3.0))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused_where_it_counts(label):
    logits = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=rf"label {label} of target \(1,\) is not in 0..2"):
        metrics.loss(CLASSES, logits, batch_of([0, label], weights=[1, 0.1]))
    metrics.loss(CLASSES, logits, batch_of([0, label], weights=[1, 0]))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_scale_of_weights_does_not_matter(scale):
    outputs, batch = example(STEPS)
    scaled = batch._replace(weights=scale * batch.weights)
    np.testing.assert_allclose(
        metrics.loss(STEPS, outputs, scaled), metrics.loss(STEPS, outputs, batch), rtol=1e-5
    )
    assert metrics.loss(STEPS, outputs, batch._replace(weights=0 * batch.weights)) == 0


def test_squared_error_by_hand():
    outputs = np.array([[1.0, 2.0], [0.0, 0.0]], np.float32)
    batch = batch_of([[1.0, 0.0], [3.0, 1.0]], weights=[1, 3], scored=[1, 0])
    np.testing.assert_allclose(metrics.loss_sum(NUMBERS, outputs, batch), (2 + 3 * 5, 4))
    np.testing.assert_allclose(metrics.loss(NUMBERS, outputs, batch), 17 / 4)
    np.testing.assert_allclose(metrics.score(NUMBERS, outputs, batch), (2, 1))


def test_binary_cross_entropy_sums_over_the_outputs_of_a_step():
    spec = dataclasses.replace(STEPS, loss="binary_cross_entropy", metric="frame_nll")
    p = np.array([[[0.5, 0.25, 0.1], [0.9, 0.2, 0.5]]])
    batch = batch_of([[[1.0, 0, 0], [1, 1, 1]]], weights=[[1, 3]])
    frames = [-math.log(0.5 * 0.75 * 0.9), -math.log(0.9 * 0.2 * 0.5)]
    for measure in (metrics.loss_sum, metrics.score):
        total = measure(spec, np.log(p / (1 - p)), batch)
        np.testing.assert_allclose(total, (frames[0] + 3 * frames[1], 4), rtol=1e-6)
    assert not metrics.higher_is_better(spec)


def test_an_answer_at_every_step_by_hand():
    logits = np.zeros((2, 2, 3), np.float32)
    logits[0, 1, 2] = logits[1, 0, 1] = 1000
    batch = batch_of([[0, 2], [0, 0]], weights=[[1, 1], [0, 0]], scored=[[0, 1], [1, 0]])
    np.testing.assert_allclose(metrics.loss(STEPS, logits, batch), math.log(3) / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics.score(STEPS, logits, batch), (1, 2))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("measure", [metrics.loss_sum, metrics.score], ids=["loss_sum", "score"])
def test_chunks_add_up_to_the_whole(spec, measure):
    measure = jax.jit(measure, static_argnums=0)
    outputs, batch = example(spec)
    chunks = [measure(spec, *rows_of(outputs, batch, slice(i, i + 2))) for i in (0, 2, 4)]
    np.testing.assert_allclose(np.sum(chunks, 0), measure(spec, outputs, batch), rtol=1e-6)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.slow
def test_what_has_no_weight_does_not_matter(spec):
    outputs, batch = example(spec)
    rubbish = -1 if np.issubdtype(batch.ys.dtype, np.integer) else np.nan

    def without(weights):
        off = weights == 0
        ys = np.where(off.reshape(off.shape + (1,) * (batch.ys.ndim - off.ndim)), rubbish, batch.ys)
        return np.where(off[..., None], np.nan, outputs), batch._replace(ys=ys.astype(batch.ys.dtype))

    value_and_grad = jax.value_and_grad(metrics.loss, argnums=1)
    want, d_want = value_and_grad(spec, outputs, batch)
    got, d_got = value_and_grad(spec, *without(batch.weights))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(d_got, d_want)
    np.testing.assert_array_equal(d_got[batch.weights == 0], 0)
    want, got = metrics.score(spec, outputs, batch), metrics.score(spec, *without(batch.scored))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_batch_without_any_weight_has_no_loss_and_no_gradient(spec):
    outputs, batch = example(spec)
    batch = batch._replace(weights=0 * batch.weights, scored=0 * batch.scored)
    loss, gradient = jax.value_and_grad(metrics.loss, argnums=1)(spec, outputs, batch)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(metrics.score(spec, outputs, batch), (0, 0))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_outputs_that_are_nan_never_count_as_right(spec):
    outputs, batch = example(spec)
    batch = batch._replace(ys=0 * batch.ys, scored=1 + batch.scored)  # argmax of NaN is class 0
    total, weight = metrics.score(spec, np.full_like(outputs, np.nan), batch)
    assert not metrics.solved(spec, total / weight)


def test_solved_at_the_threshold_and_better():
    metric = jnp.array([0.0, 0.01, 0.02, 0.89, 0.9, 1.0, jnp.nan])
    assert metrics.higher_is_better(CLASSES) and not metrics.higher_is_better(NUMBERS)
    np.testing.assert_array_equal(metrics.solved(CLASSES, metric), [0, 0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(
        jax.jit(lambda m: metrics.solved(NUMBERS, m))(metric), [1, 1, 0, 0, 0, 0, 0]
    )
    assert metrics.solved(CLASSES, 0.95) and not metrics.solved(CLASSES, math.nan)
    assert not metrics.solved(NUMBERS, math.nan)


@pytest.mark.parametrize(
    "spec, outputs, ys, weights",
    [
        (NUMBERS, (4, 1), (4,), (4,)),
        (NUMBERS, (4, 2), (4, 1), (4,)),
        (CLASSES, (4, 3), (3,), (4,)),
        (STEPS, (4, 5, 3), (4, 5), (4,)),
        (CLASSES, (4, 5, 3), (4,), (4,)),
    ],
)
def test_shapes_that_would_broadcast_are_refused_with_one_line(spec, outputs, ys, weights):
    ys = np.zeros(ys, np.float32 if spec is NUMBERS else np.int32)
    with pytest.raises(ValueError) as refusal:
        metrics.loss(spec, np.zeros(outputs, np.float32), batch_of(ys, np.ones(weights)))
    assert "\n" not in str(refusal.value)
    assert str(outputs) in str(refusal.value)
