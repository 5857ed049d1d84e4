"""Dropout: which masks, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from compiling import jit
from models import LENGTHS, assert_close, cell_of, inputs_of, normal_params, spec_of
from train.layers import dropout
from train.model import ModelConfig, build, row_keys


def test_dropout_keeps_the_mean():
    ys = dropout(jnp.ones((50, 40, 30)), 0.3, row_keys(jax.random.key(0), 50), variational=False)
    np.testing.assert_allclose(np.unique(ys), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_allclose(ys.mean(), 1, atol=0.02)  # standard error 0.003
    np.testing.assert_allclose(ys.mean((0, 1)), 1, atol=0.1)  # each unit: 0.015


def test_variational_masks_are_the_same_at_all_steps_and_others_are_not():
    ones, keys = jnp.ones((20, 6, 40)), row_keys(jax.random.key(0), 20)
    ys = np.array(dropout(ones, 0.5, keys, variational=True))
    np.testing.assert_array_equal(ys, np.broadcast_to(ys[:, :1], ys.shape))
    assert len({row.tobytes() for row in ys}) == 20
    ys = np.array(dropout(ones, 0.5, keys, variational=False))
    assert len({step.tobytes() for row in ys for step in row}) > 100


@pytest.mark.parametrize("variational", [False, True])
def test_a_step_is_masked_alike_however_many_steps_follow(variational):
    keys, ones = row_keys(jax.random.key(3), 4), jnp.ones((4, 9, 5))
    longer = dropout(ones, 0.5, keys, variational)
    np.testing.assert_array_equal(dropout(ones[:, :4], 0.5, keys, variational), longer[:, :4])


@pytest.mark.parametrize("variational", [False, True])
def test_a_row_is_masked_alike_whatever_rows_it_is_with(variational):
    spec, key = spec_of(per_step=True), jax.random.key(4)
    model = build(cell_of("gru"), spec, ModelConfig(depth=2, dropout=0.5, variational=variational))
    params, xs = normal_params(model), inputs_of(spec)
    whole = jit(model.apply)(params, xs, key=key)
    for first in (0, 2):
        part = jit(model.apply)(params, xs[first : first + 2], key=row_keys(key, 2, first))
        np.testing.assert_allclose(part, whole[first : first + 2], rtol=0, atol=1e-6)


def test_dropout_acts_only_with_a_key_and_each_layer_has_masks_of_its_own():
    spec = spec_of(per_step=True)
    model = build(cell_of("gru"), spec, ModelConfig(depth=2, dropout=0.5, variational=True))
    plain = build(cell_of("gru"), spec, ModelConfig(depth=2))
    params, xs = normal_params(model), inputs_of(spec)
    one, two = jax.random.split(jax.random.key(0))
    apply, apply_plain = jit(model.apply), jit(plain.apply)
    want, dropped = apply(params, xs), apply(params, xs, key=one)
    np.testing.assert_array_equal(apply_plain(params, xs), want)
    np.testing.assert_array_equal(apply_plain(params, xs, key=one), want)
    np.testing.assert_array_equal(apply(params, xs, key=one), dropped)
    assert np.any(apply(params, xs, key=two) != dropped)
    assert np.any(want != dropped)
    first, second = (np.array(ys == 0) for ys in jit(model.hidden_states)(params, xs, key=one))
    for dropped in (first, second):
        assert dropped.any() and not dropped.all()
        np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert np.any(first != second)


def test_strategies_agree_with_dropout_too(x64):
    spec, cell = spec_of(), cell_of("sru")
    models = [
        build(cell, spec, ModelConfig(bidirectional=True, dropout=0.5, strategy=strategy))
        for strategy in cells.strategies(cell)
    ]
    params, xs, key = normal_params(models[0]), inputs_of(spec), jax.random.key(1)
    first, *others = (jit(model.apply)(params, xs, LENGTHS, key) for model in models)
    for other in others:
        assert_close(other, first)
