"""What the tests of the model share: a made-up task, its inputs, parameters that hide no mistake."""

import chex
import jax
import numpy as np

import cells
from train.tasks.base import Spec

HIDDEN, VOCABULARY, FEATURES, OUTPUTS = 4, 6, 3, 2
BATCH, TIME = 4, 5
LENGTHS = np.array([TIME, 0, 2, 3])


def spec_of(inputs="features", per_step=False, pooling="last", input_size=None):
    return Spec(
        inputs=inputs,
        input_size=input_size or (VOCABULARY if inputs == "tokens" else FEATURES),
        output_size=OUTPUTS,
        per_step=per_step,
        pooling=pooling,
        loss="cross_entropy",
        metric="accuracy",
        threshold=0.9,
        baseline=0.5,
        time=TIME,
    )


def cell_of(name, hidden_size=HIDDEN, **options):
    return cells.get(name, hidden_size=hidden_size, **options)


def normal_params(model, seed=0):
    """Not `init`, whose zeros would hide mistakes."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda x: 0.6 * rng.normal(size=x.shape), shapes)


def inputs_of(spec, batch=BATCH, time=TIME, seed=1):
    rng = np.random.default_rng(seed)
    if spec.inputs == "tokens":
        return rng.integers(spec.input_size, size=(batch, time))
    return rng.normal(size=(batch, time, spec.input_size))


def assert_close(got, want, tolerance=1e-10):
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)
