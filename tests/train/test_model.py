"""The model as laws over all registered cells, against a model written out by hand, one row at a time."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from compiling import jit
from models import BATCH, FEATURES, LENGTHS, TIME, assert_close, cell_of, inputs_of, normal_params, spec_of
from train import model as model_module
from train.model import ModelConfig, build

HEADS = [(True, "task"), (False, "last"), (False, "mean"), (False, "max")]
COMBINATIONS = list(
    itertools.product(
        ("tokens", "features", "dense"), HEADS, (False, True), model_module.CONNECTIONS, model_module.NORMS
    )
)


def combinations():
    """(cell name, spec, config): each cell has a share of all, most of it behind -m slow."""
    cases, names = [], cells.names()
    for i, combination in enumerate(COMBINATIONS):
        inputs, (per_step, pooling), bidirectional, connection, norm = combination
        name = names[i % len(names)]
        config = ModelConfig(
            depth=2,
            bidirectional=bidirectional,
            connection=connection,
            layer_norm=norm,
            embedding_size=5 if inputs == "dense" else 0,
            pooling=pooling,
        )
        spec = spec_of("tokens" if inputs == "tokens" else "features", per_step)
        label = f"{name}-{inputs}-{'steps' if per_step else pooling}-{bidirectional:d}-{connection}-{norm}"
        cases.append(pytest.param(name, spec, config, id=label, marks=[pytest.mark.slow] * (i % 90 != 0)))
    wrapped = itertools.product(("residual", "gated"), ("tokens", "features"), HEADS, (False, True), (0, 2))
    for i, (block, inputs, (per_step, pooling), bidirectional, mlp) in enumerate(wrapped):
        own = {"conv_width": 2 + mlp, "mlp_expansion": mlp} if block == "gated" else {}
        if not own and mlp:
            continue
        name, spec = names[i % len(names)], spec_of(inputs, per_step)
        config = ModelConfig(depth=2, block=block, bidirectional=bidirectional, pooling=pooling, **own)
        label = f"{name}-{inputs}-{'steps' if per_step else pooling}-{bidirectional:d}-{block}-{mlp}"
        slow = [pytest.mark.slow] * (i != 35)
        cases.append(pytest.param(name, spec, config, id=label, marks=slow))
    return cases


# --- the model by hand


def by_hand(cell, spec, config, params, xs, resets):
    """One row without padding, xs (steps, ...): each layer's outputs and the outputs, in plain loops."""
    episodes = np.split(np.arange(len(xs)), np.flatnonzero(resets))

    def dense(p, x):
        return x @ p["kernel"] + p.get("bias", 0)

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def convolved(p, xs, reverse):
        ys = np.zeros_like(xs) + p["b"]
        for episode in episodes:
            steps = episode[::-1] if reverse else episode
            for i, t in enumerate(steps):
                for lag, w in enumerate(p["w"][: i + 1]):
                    ys[t] += w * xs[steps[i - lag]]
        return ys / (1 + np.exp(-ys))

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def gated(p, xs):
        normed = norm(p["norm"], xs)
        entered, ys = dense(p["enter"], normed), []
        for name in ("forward", "backward")[: 1 + config.bidirectional]:
            reverse = name == "backward"
            ys.append(run(p[name], convolved(p[f"{name}_convolution"], entered, reverse), reverse))
        xs = xs + dense(p["leave"], gelu(dense(p["gate"], normed)) * np.concatenate(ys, -1))
        if config.mlp_expansion:
            gate, value = np.split(dense(p["up"], norm(p["norm_mlp"], xs)), 2, axis=-1)
            xs = xs + dense(p["down"], gelu(gate) * value)
        return xs

    step = jit(cell.step)

    def run(p, xs, reverse):
        ys = np.zeros((len(xs), cell.hidden_size))
        for episode in episodes:
            carry = cell.initial_carry(1, jnp.float64)
            for t in episode[::-1] if reverse else episode:
                carry, y = step(p, carry, xs[t : t + 1])
                ys[t] = y[0]
        return ys

    if spec.inputs == "tokens":
        xs = params["embed"]["embedding"][xs]
    elif config.embedding_size or config.block != "bare":
        xs = dense(params["dense"], xs)
    states = []
    for number in range(config.depth):
        p = params["layers"][str(number)]
        if config.block == "gated":
            xs = gated(p, xs)
            states.append(xs)
            continue
        inputs = norm(p["norm"], xs) if "pre" == config.layer_norm or config.block == "residual" else xs
        ys = run(p["forward"], inputs, False)
        if config.bidirectional:
            ys = np.concatenate([ys, run(p["backward"], inputs, True)], -1)
        short = dense(p["shortcut"], xs) if "shortcut" in p else xs
        if "residual" in (config.connection, config.block):
            ys = ys + short
        if config.connection == "highway":
            t = 1 / (1 + np.exp(-dense(p["transform"], xs)))
            ys = t * ys + (1 - t) * short
        xs = norm(p["norm"], ys) if config.layer_norm == "post" else ys
        states.append(xs)
    if config.block != "bare":
        xs = norm(params["norm"], xs)
    if spec.per_step:
        return states, dense(params["head"], xs)
    pooling = spec.pooling if config.pooling == "task" else config.pooling
    if not len(xs):
        pooled = np.zeros(xs.shape[1])
    elif pooling == "last":
        pooled = np.concatenate([xs[-1, : cell.hidden_size], xs[0, cell.hidden_size :]])
    else:
        pooled = {"mean": np.mean, "max": np.max}[pooling](xs, axis=0)
    return states, dense(params["head"], pooled)


def check_by_hand(cell, spec, config):
    """Lengths, skipped elements and resets together."""
    model = build(cell, spec, config)
    params, xs = normal_params(model), inputs_of(spec)
    rng = np.random.default_rng(2)
    mask, resets = rng.random((BATCH, TIME)) < 0.8, rng.random((BATCH, TIME)) < 0.4
    mask[0] = resets[0, 2] = True
    real = mask & (np.arange(TIME) < LENGTHS[:, None])

    def both(params, xs, **steps):
        return model.hidden_states(params, xs, **steps), model.apply(params, xs, **steps)

    states, outputs = jit(both)(params, xs, lengths=LENGTHS, mask=mask, resets=resets)
    assert len(states) == config.depth
    for row, ok in enumerate(real):
        want_states, want = by_hand(cell, spec, config, params, xs[row, ok], resets[row, ok])
        assert_close(outputs[row][ok] if spec.per_step else outputs[row], want)
        for state, want_state in zip(states, want_states, strict=True):
            assert_close(state[row][ok], want_state)
            np.testing.assert_array_equal(state[row][~ok], 0)


@pytest.mark.parametrize("name, spec, config", combinations())
def test_the_model_is_the_one_written_out_by_hand(name, spec, config, x64):
    check_by_hand(cell_of(name), spec, config)


def test_layers_of_a_deep_stack_keep_their_order(x64):
    config = ModelConfig(depth=12)  # "10" sorts before "2"
    check_by_hand(cell_of("rnn", hidden_size=2), spec_of(), config)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_full_lengths_are_the_same_as_none(pooling, x64):
    model = build(cell_of("gru"), spec_of(), ModelConfig(bidirectional=True, pooling=pooling))
    params, xs, resets = normal_params(model), inputs_of(spec_of()), np.eye(BATCH, TIME, 1, dtype=bool)
    apply, full = jit(model.apply), np.full(BATCH, TIME)
    assert_close(apply(params, xs, resets=resets), apply(params, xs, full, resets=resets))
    assert np.any(apply(params, xs, resets=resets) != apply(params, xs))


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_the_task_suggests_the_pooling(pooling, x64):
    suggested = build(cell_of("gru"), spec_of(pooling=pooling), ModelConfig())
    chosen = build(cell_of("gru"), spec_of(), ModelConfig(pooling=pooling))
    params, xs = normal_params(chosen), inputs_of(spec_of())
    assert_close(jit(suggested.apply)(params, xs), jit(chosen.apply)(params, xs))


@pytest.mark.parametrize(
    "dtype, want", [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_outputs_are_float32_or_wider(dtype, want, x64):
    spec = spec_of()
    model = build(cell_of("gru"), spec, ModelConfig(layer_norm="pre", connection="residual"))
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), normal_params(model))
    assert jax.eval_shape(model.apply, params, jnp.asarray(inputs_of(spec), dtype)).dtype == want


# --- refusals


@pytest.mark.parametrize(
    "option, value, told",
    [
        ("depth", 0, "1 to 1000"),
        ("depth", 2.0, "an integer"),
        ("depth", True, "an integer"),
        ("embedding_size", -1, "0 to"),
        ("dropout", 1.0, "[0, 1)"),
        ("dropout", math.nan, "[0, 1)"),
        ("dropout", "0.1", "[0, 1)"),
        ("bidirectional", "yes", "True or False"),
        ("variational", 1, "True or False"),
        ("block", "gatd", "did you mean 'gated'?"),
        ("conv_width", 0, "1 to 1000"),
        ("mlp_expansion", 1.5, "an integer"),
        ("connection", "residul", "did you mean 'residual'?"),
        ("layer_norm", "Pre", "did you mean 'pre'?"),
        ("pooling", "men", "did you mean 'mean'?"),
        ("pooling", None, "choices: task, last, mean, max"),
        ("strategy", "asociative", "did you mean 'associative'?"),
    ],
)
def test_a_bad_option_is_refused_with_one_line(option, value, told):
    with pytest.raises(ValueError) as refusal:
        ModelConfig(**{option: value})
    message = str(refusal.value)
    assert "\n" not in message
    assert option in message and told in message and repr(value) in message


def test_a_strategy_that_the_cell_cannot_use_is_refused_when_the_model_is_built():
    with pytest.raises(ValueError, match="GRU cannot use strategy 'associative'"):
        build(cell_of("gru"), spec_of(), ModelConfig(strategy="associative"))


@pytest.mark.parametrize(
    "inputs, change, told",
    [
        (
            "tokens",
            {"xs": np.zeros((2, 3), np.float32)},
            "xs must be integers (batch, time), got float32 (2, 3)",
        ),
        ("tokens", {"xs": np.zeros((2, 3, 1), np.int32)}, "xs must be integers"),
        ("features", {"xs": np.zeros((2, 3), np.float32)}, f"floating (batch, time, {FEATURES})"),
        (
            "features",
            {"xs": np.zeros((2, 3, FEATURES + 1), np.float32)},
            f"floating (batch, time, {FEATURES})",
        ),
        ("features", {"xs": np.zeros((2, 3, FEATURES), np.int32)}, "xs must be floating"),
        ("tokens", {"xs": np.array([[0, 1, 2], [0, -1, 2]])}, "token -1 in row 1, step 1 is not in 0..5"),
        ("tokens", {"xs": np.array([[0, 1, 6], [0, 1, 2]])}, "token 6 in row 0, step 2 is not in 0..5"),
        ("features", {"lengths": np.array([1])}, "lengths must have shape (2,)"),
        ("features", {"lengths": np.array([1, 4])}, "0..3"),
        ("features", {"mask": np.ones((3, 2), bool)}, "mask must have shape (2, 3)"),
        ("features", {"resets": np.ones(2, bool)}, "resets must have shape (2, 3)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_one_line(inputs, change, told):
    spec = spec_of(inputs)
    model = build(cell_of("rnn"), spec, ModelConfig(bidirectional=True))
    arguments = {"xs": np.float32(inputs_of(spec, 2, 3)), **change}
    with pytest.raises(ValueError) as refusal:
        model.apply(normal_params(model), **arguments)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
