"""Padding changes nothing, whatever it holds and however long it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import jit
from models import (
    LENGTHS,
    OUTPUTS,
    TIME,
    VOCABULARY,
    assert_close,
    cell_of,
    inputs_of,
    normal_params,
    spec_of,
)
from train.model import ModelConfig, build

PADDED = [
    dict(bidirectional=True, connection="residual", layer_norm="pre", pooling="mean", embedding_size=5),
    dict(bidirectional=True, connection="highway", layer_norm="post", pooling="max"),
    dict(bidirectional=True, pooling="last", layer_norm="post", embedding_size=5),
    dict(block="gated", conv_width=2, mlp_expansion=1, dropout=0.4, pooling="mean"),
]


def value_and_gradient(model, spec):
    """Compiled: outputs, zero at padding, and the gradients of a scalar of them."""

    def loss(params, xs, lengths, key):
        outputs = model.apply(params, xs, lengths, key=key)
        if spec.per_step:
            outputs = jnp.where((jnp.arange(xs.shape[1]) < lengths[:, None])[..., None], outputs, 0)
        return jnp.sum(jnp.sin(outputs + jnp.arange(OUTPUTS))), outputs

    return jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


KINDS = ("gru", "sru", "window", "mlstm")  # a cell of each
CASES = [
    pytest.param(*case, marks=[] if case[0] == "gru" else pytest.mark.slow)
    for case in zip(KINDS, range(4), strict=True)
]


@pytest.mark.parametrize("name, number", CASES)
def test_padding_changes_neither_values_nor_gradients_and_all_may_be_padding(name, number, x64):
    spec = spec_of(per_step=number == 3)
    model = build(cell_of(name), spec, ModelConfig(depth=2 if number == 3 else 1, **PADDED[number]))
    run = value_and_gradient(model, spec)
    params, xs, key = normal_params(model), inputs_of(spec), jax.random.key(5)
    real = (np.arange(TIME) < LENGTHS[:, None])[..., None]
    (_, outputs), (d_params, d_xs) = run(params, xs, LENGTHS, key)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((outputs, d_params, d_xs)))
    np.testing.assert_array_equal(d_xs * ~real, 0)
    for path, gradient in jax.tree.leaves_with_path(d_params):
        assert np.any(gradient != 0), f"{jax.tree_util.keystr(path)} has no gradient"

    (_, got), gradients = run(params, np.where(real, xs, np.nan), LENGTHS, key)
    assert_close((got, *gradients), (outputs, d_params, d_xs), 0)

    (_, got), gradients = run(params, xs, 0 * LENGTHS, key)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert_close(got, np.broadcast_to(0 if spec.per_step else params["head"]["bias"], got.shape))

    if number != 0:
        return
    longer = np.concatenate([xs, np.full_like(xs[:, :3], 7)], 1)
    (_, got), (d_got, d_longer) = run(params, longer, LENGTHS, key)
    got = got[:, :TIME] if spec.per_step else got
    assert_close((got, d_got, d_longer[:, :TIME]), (outputs, d_params, d_xs), 1e-12)


def test_padding_may_hold_tokens_that_do_not_exist():
    spec = spec_of("tokens")
    model = build(cell_of("gru"), spec, ModelConfig(layer_norm="pre", connection="residual"))
    params, xs = normal_params(model), inputs_of(spec)
    real = np.arange(TIME) < LENGTHS[:, None]
    apply = jit(model.apply)
    want = apply(params, xs, LENGTHS)
    for token in (-1, VOCABULARY + 100):
        np.testing.assert_array_equal(apply(params, np.where(real, xs, token), LENGTHS), want)
