"""Drawn text is what the model says of all that stands before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import jit
from models import VOCABULARY, cell_of, normal_params, spec_of
from train.model import build
from train.sample import make_sample

PROMPT = np.array([0, 3, 1], np.int32)


@pytest.fixture(scope="module")
def sampled():
    model = build(cell_of("lstm"), spec_of("tokens", per_step=True))
    params = jax.tree.map(lambda x: 3 * x.astype(np.float32), normal_params(model))
    return model, params, jit(make_sample(model, 8))


@pytest.mark.slow
def test_at_temperature_0_each_token_is_the_likeliest_after_all_before_it(sampled):
    model, params, sample = sampled
    drawn = sample(params, jax.random.key(0), PROMPT, 0.0)
    assert drawn.shape == (8,) and drawn.dtype == jnp.int32
    whole = np.concatenate([PROMPT, drawn])
    outputs = model.apply(params, whole[None])[0]
    np.testing.assert_array_equal(drawn, jnp.argmax(outputs, -1)[len(PROMPT) - 1 : -1])


def test_other_keys_draw_other_texts_as_often_as_the_model_says(sampled):
    model, params, sample = sampled
    keys = jax.random.split(jax.random.key(1), 2000)
    first, second = np.asarray(jax.vmap(sample, (None, 0, None, None))(params, keys, PROMPT, 2.0))[:, :2].T
    likely = jax.nn.softmax(model.apply(params, PROMPT[None])[0, -1] / 2)
    np.testing.assert_allclose(np.bincount(first, minlength=2) / 2000, likely, atol=0.04)
    assert len(set(second.tolist())) > 1 and VOCABULARY > 2
