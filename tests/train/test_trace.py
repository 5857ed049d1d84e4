"""Inside a model: the textbook step gives what the model gives, and its gradients are those of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from compiling import jit
from models import BATCH, LENGTHS, TIME, assert_close, cell_of, inputs_of, normal_params, spec_of
from train import metrics
from train.model import BLOCKS, ModelConfig, build
from train.tasks.base import Batch
from train.trace import make_trace

QUICK = {("lstm", 1)}
MODELS = [
    pytest.param(name, stack, id=f"{name}-{stack}", marks=[] if (name, stack) in QUICK else pytest.mark.slow)
    for name in cells.names()
    for stack in (1, 2, "residual", "gated")
]


def made(name, stack, **spec):
    options = (
        {"depth": 2, "block": stack} if stack in BLOCKS else {"depth": stack, "bidirectional": stack == 1}
    )
    config, cell, spec = ModelConfig(**options), cell_of(name), spec_of(**spec)
    model = build(cell, spec, config)
    return model, normal_params(model), jit(make_trace(cell, spec, config)), spec


@pytest.mark.parametrize("name, stack", MODELS)
def test_a_trace_gives_what_the_model_gives(name, stack, x64):
    model, params, trace, spec = made(name, stack)
    rng = np.random.default_rng(0)
    mask, resets = rng.random((BATCH, TIME)) < 0.8, rng.random((BATCH, TIME)) < 0.2
    xs, steps = inputs_of(spec), {"lengths": LENGTHS, "mask": mask, "resets": resets}
    found = trace(params, xs, steps, None)

    def answer(xs):
        outputs = model.apply(params, xs, **steps)
        return jnp.max(outputs, axis=-1).sum(), outputs

    gradients, outputs = jit(jax.grad(answer, has_aux=True))(xs)
    assert_close((found.outputs, found.gradients), (outputs, gradients))
    states = jit(lambda xs: model.hidden_states(params, xs, **steps))(xs)
    assert len(found.layers) == len(states) and len(found.backward) == (len(states) if stack == 1 else 0)
    for layer in (*found.layers, *found.backward):
        assert layer.outputs.shape == layer.gradients.shape == (BATCH, TIME, cell_of(name).hidden_size)
        for gate in layer.gates.values():
            assert gate.shape[:2] == (BATCH, TIME) and ((gate >= 0) & (gate <= 1)).all()
        assert all(leaf.shape[:2] == (BATCH, TIME) for leaf in jax.tree.leaves(layer.states))
    if stack == 1:  # bare: what the cell gives out is what the layer does
        ys = jnp.concatenate([found.layers[0].outputs, found.backward[0].outputs], axis=-1)
        assert_close(ys, states[0])


@pytest.mark.parametrize("per_step", [False, True])
def test_with_targets_gradients_are_those_of_the_loss_by_the_embedding(per_step, x64):
    model, params, trace, spec = made("gru", 2, inputs="tokens", per_step=per_step)
    xs, ys = inputs_of(spec), np.arange(BATCH * TIME).reshape(BATCH, TIME) % 2
    ys, steps = ys if per_step else ys[:, 0], {"lengths": np.array([TIME, 1, 2, 3])}
    real = np.arange(TIME) < steps["lengths"][:, None]
    weights = real.astype(float) if per_step else np.ones(BATCH)

    def loss(table):
        moved = params | {"embed": {"embedding": table}}
        outputs = model.apply(moved, xs, **steps)
        return metrics.loss_sum(spec, outputs, Batch(xs, ys, None, weights, weights))[0]

    by_word = jit(jax.grad(loss))(params["embed"]["embedding"])
    by_step = np.where(real[..., None], trace(params, xs, steps, ys).gradients, 0)
    for word in range(len(by_word)):
        assert_close(by_step[xs == word].sum(0), by_word[word])


def test_gradients_of_an_answer_at_every_step_are_of_the_last_real_one(x64):
    model, params, trace, spec = made("gru", 2, per_step=True)
    found = trace(params, inputs_of(spec), {"lengths": np.array([2, 3, 5, 1])}, None)
    reached = np.abs(found.gradients).max(axis=-1) > 0
    np.testing.assert_array_equal(reached, np.arange(TIME) < np.array([2, 3, 5, 1])[:, None])
