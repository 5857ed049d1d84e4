"""The model as laws over all registered cells, against a model written out by hand, one row at a time."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from train import model as model_module
from train.model import ModelConfig, build, count, dropout, matched_hidden_size
from train.tasks.base import Spec

HIDDEN, VOCABULARY, FEATURES, OUTPUTS = 4, 6, 3, 2
BATCH, TIME = 4, 5
LENGTHS = np.array([TIME, 0, 2, 3])

# Compile time is most of a test's time, so it is traded for run time here.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


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


SOME = ("lstm", "sru", "mlstm")  # where all cells would take their time


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
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.shape(g) == np.shape(w)
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


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
        cases.append(pytest.param(name, spec, config, id=label, marks=[pytest.mark.slow] * (i % 11 != 0)))
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

    def run(p, xs, reverse):
        ys = np.zeros((len(xs), cell.hidden_size))
        for episode in episodes:
            carry = cell.initial_carry(1, jnp.float64)
            for t in episode[::-1] if reverse else episode:
                carry, y = cell.step(p, carry, xs[t : t + 1])
                ys[t] = y[0]
        return ys

    if spec.inputs == "tokens":
        xs = params["embed"]["embedding"][xs]
    elif config.embedding_size:
        xs = dense(params["dense"], xs)
    states = []
    for number in range(config.depth):
        p = params["layers"][str(number)]
        inputs = norm(p["norm"], xs) if config.layer_norm == "pre" else xs
        ys = run(p["forward"], inputs, False)
        if config.bidirectional:
            ys = np.concatenate([ys, run(p["backward"], inputs, True)], -1)
        short = dense(p["shortcut"], xs) if "shortcut" in p else xs
        if config.connection == "residual":
            ys = ys + short
        if config.connection == "highway":
            t = 1 / (1 + np.exp(-dense(p["transform"], xs)))
            ys = t * ys + (1 - t) * short
        xs = norm(p["norm"], ys) if config.layer_norm == "post" else ys
        states.append(xs)
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


# --- padding

PADDED = [
    dict(bidirectional=True, connection="residual", layer_norm="pre", pooling="mean", embedding_size=5),
    dict(bidirectional=True, connection="highway", layer_norm="post", pooling="max"),
    dict(bidirectional=True, pooling="last", layer_norm="post", embedding_size=5),
    dict(connection="residual", dropout=0.4, pooling="mean"),
]


def value_and_gradient(model, spec):
    """Compiled: outputs, zero at padding, and the gradients of a scalar of them."""

    def loss(params, xs, lengths, key):
        outputs = model.apply(params, xs, lengths, key=key)
        if spec.per_step:
            outputs = jnp.where((jnp.arange(xs.shape[1]) < lengths[:, None])[..., None], outputs, 0)
        return jnp.sum(jnp.sin(outputs + jnp.arange(OUTPUTS))), outputs

    return jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


@pytest.mark.parametrize(
    "name, number",
    [
        pytest.param(name, i, marks=[pytest.mark.slow] * (i != n % len(PADDED)))
        for n, name in enumerate(cells.names())
        for i in range(len(PADDED))
    ],
)
def test_padding_changes_neither_values_nor_gradients_and_all_may_be_padding(name, number, x64):
    spec = spec_of(per_step=number == 3)
    model = build(cell_of(name), spec, ModelConfig(depth=2, **PADDED[number]))
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


# --- dropout


def test_dropout_keeps_the_mean():
    ys = dropout(jnp.ones((50, 40, 30)), 0.3, jax.random.key(0), variational=False)
    np.testing.assert_allclose(np.unique(ys), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_allclose(ys.mean(), 1, atol=0.02)  # standard error 0.003
    np.testing.assert_allclose(ys.mean((0, 1)), 1, atol=0.1)  # each unit: 0.015


def test_variational_masks_are_the_same_at_all_steps_and_others_are_not():
    ones = jnp.ones((20, 6, 40))
    ys = np.array(dropout(ones, 0.5, jax.random.key(0), variational=True))
    np.testing.assert_array_equal(ys, np.broadcast_to(ys[:, :1], ys.shape))
    assert len({row.tobytes() for row in ys}) == 20
    ys = np.array(dropout(ones, 0.5, jax.random.key(0), variational=False))
    assert len({step.tobytes() for row in ys for step in row}) > 100


@pytest.mark.parametrize("variational", [False, True])
def test_a_step_is_masked_alike_however_many_steps_follow(variational):
    key, ones = jax.random.key(3), jnp.ones((4, 9, 5))
    longer = dropout(ones, 0.5, key, variational)
    np.testing.assert_array_equal(dropout(ones[:, :4], 0.5, key, variational), longer[:, :4])


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


@pytest.mark.parametrize("name", ["sru", "mlstm"])
def test_strategies_agree_with_dropout_too(name, x64):
    spec = spec_of()
    strategies = cells.strategies(cell_of(name))
    models = [
        build(cell_of(name), spec, ModelConfig(depth=2, bidirectional=True, dropout=0.5, strategy=strategy))
        for strategy in strategies
    ]
    params, xs, key = normal_params(models[0]), inputs_of(spec), jax.random.key(1)
    first, *others = (jit(model.apply)(params, xs, LENGTHS, key) for model in models)
    for other in others:
        assert_close(other, first)


# --- parameters


@pytest.mark.parametrize("name", SOME)
def test_seeds_under_vmap_are_the_single_ones_and_differ(name):
    spec = spec_of("tokens")
    model = build(cell_of(name), spec, ModelConfig(layer_norm="post"))
    keys = jax.random.split(jax.random.key(0), 3)
    params = jit(jax.vmap(model.init))(keys)
    singles = [model.init(key) for key in keys]
    for i, single in enumerate(singles):
        assert_close(jax.tree.map(lambda p, i=i: p[i], params), single, 1e-6)
    for a, b in itertools.combinations(singles, 2):
        assert np.any(a["embed"]["embedding"] != b["embed"]["embedding"])
        assert np.any(a["head"]["kernel"] != b["head"]["kernel"])
    xs = inputs_of(spec)
    outputs, apply = jit(jax.vmap(model.apply, (0, None)))(params, xs), jit(model.apply)
    assert_close(list(outputs), [apply(single, xs) for single in singles], 1e-5)


def test_parameters_are_a_plain_dict_with_readable_names():
    config = ModelConfig(bidirectional=True, connection="highway", layer_norm="pre")
    params = build(cell_of("rnn"), spec_of("tokens"), config).init(jax.random.key(0))
    names = {"/".join(k.key for k in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
    assert names == {
        "embed/embedding": (VOCABULARY, HIDDEN),
        "head/bias": (OUTPUTS,),
        "head/kernel": (2 * HIDDEN, OUTPUTS),
        "layers/0/backward/U": (HIDDEN, HIDDEN),
        "layers/0/backward/W": (HIDDEN, HIDDEN),
        "layers/0/backward/b": (HIDDEN,),
        "layers/0/forward/U": (HIDDEN, HIDDEN),
        "layers/0/forward/W": (HIDDEN, HIDDEN),
        "layers/0/forward/b": (HIDDEN,),
        "layers/0/norm/bias": (HIDDEN,),
        "layers/0/norm/scale": (HIDDEN,),
        "layers/0/shortcut/kernel": (HIDDEN, 2 * HIDDEN),
        "layers/0/transform/bias": (2 * HIDDEN,),
        "layers/0/transform/kernel": (HIDDEN, 2 * HIDDEN),
    }
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    forward, backward = (params["layers"]["0"][name]["W"] for name in ("forward", "backward"))
    assert np.any(forward != backward)


# Parameters of a cell with D inputs and H units, counted by hand.
FORMULAS = {
    "rnn": lambda D, H: D * H + H * H + H,
    "lstm": lambda D, H: 4 * (D * H + H * H + H),
    "gru": lambda D, H: 3 * (D * H + H * H + H),
    "sru": lambda D, H: (3 if D == H else 4) * D * H + 2 * H,
    "sru_feedback": lambda D, H: (3 if D == H else 4) * D * H + 4 * H,
}


@pytest.mark.parametrize("D, H", [(3, 4), (4, 4)])
@pytest.mark.parametrize("name", FORMULAS)
def test_parameters_are_counted_as_by_hand(name, D, H):
    cell, of_cell = cell_of(name, H), FORMULAS[name]
    model = build(cell, spec_of(input_size=D), ModelConfig())
    assert model.parameters == of_cell(D, H) + H * OUTPUTS + OUTPUTS
    config = ModelConfig(
        depth=2, bidirectional=True, connection="residual", layer_norm="post", embedding_size=D
    )
    model = build(cell, spec_of("tokens"), config)
    first = 2 * of_cell(D, H) + D * 2 * H + 2 * 2 * H
    second = 2 * of_cell(2 * H, H) + 2 * 2 * H
    assert model.parameters == VOCABULARY * D + first + second + 2 * H * OUTPUTS + OUTPUTS


@pytest.mark.parametrize("name", cells.names())
def test_the_count_is_that_of_the_initial_parameters(name):
    model = build(cell_of(name), spec_of(), ModelConfig(depth=2, embedding_size=5))
    assert model.parameters == count(jax.eval_shape(model.init, jax.random.key(0)))


RAW, WIDE = spec_of(input_size=24), ModelConfig(bidirectional=True, connection="residual")
MATCHED = [
    (name, spec, config) for name in ("lstm", "sru") for spec, config in ((RAW, ModelConfig()), (RAW, WIDE))
] + [
    ("gru", spec_of("tokens"), ModelConfig()),
    ("sru", spec_of("tokens"), dataclasses.replace(WIDE, embedding_size=2)),  # dips at 1 and 2
    ("sru", spec_of("tokens"), dataclasses.replace(WIDE, embedding_size=9)),
]


@pytest.mark.parametrize("name, spec, config", MATCHED)
def test_the_matched_hidden_size_is_the_nearest_of_all(name, spec, config, monkeypatch):
    monkeypatch.setattr(model_module, "build", functools.cache(build))
    counts = np.array([model_module.build(cell_of(name, H), spec, config).parameters for H in range(1, 65)])
    budgets = {int(c) + d for c in counts[:48] for d in (-1, 0, 1)}
    budgets |= {int(c) for c in (counts[1:48] + counts[:47]) // 2}
    for budget in sorted(budgets - {counts[0] - 1}):
        got = matched_hidden_size(name, {}, spec, config, budget)
        assert abs(counts[got - 1] - budget) == abs(counts - budget).min(), (budget, got)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_comes_near_a_budget(name):
    heads = {"heads": 4} if "heads" in cells.CELLS.cls(name).__dataclass_fields__ else {}
    for spec, config, options in (
        (spec_of("tokens"), ModelConfig(), {}),
        (RAW, ModelConfig(embedding_size=32), heads),
    ):
        size = matched_hidden_size(name, options, spec, config, 10_000)
        assert size % cells.CELLS.cls(name).size_multiple(**options) == 0
        got = build(cell_of(name, size, **options), spec, config).parameters
        assert abs(got - 10_000) < (600 if options or name == "tcn" else 300), (size, got)


def test_a_matched_size_keeps_the_options_and_refuses_a_budget_that_is_too_small():
    spec, config = spec_of(), ModelConfig()
    budget = build(cell_of("lstm", 9, peepholes=True), spec, config).parameters
    assert matched_hidden_size("lstm", {"peepholes": True}, spec, config, budget) == 9
    smallest = build(cell_of("lstm", 1), spec, config).parameters
    assert matched_hidden_size("lstm", {}, spec, config, smallest) == 1
    with pytest.raises(ValueError, match=f"budget of {smallest - 1} .* hidden_size=1 has {smallest}$"):
        matched_hidden_size("lstm", {}, spec, config, smallest - 1)
    with pytest.raises(ValueError, match="did you mean 'lstm'"):
        matched_hidden_size("ltsm", {}, spec, config, 100)


# --- refusals


@pytest.mark.parametrize(
    "option, value, told",
    [
        ("depth", 0, "1 or more"),
        ("depth", 2.0, "an integer"),
        ("depth", True, "an integer"),
        ("embedding_size", -1, "0 or more"),
        ("dropout", 1.0, "[0, 1)"),
        ("dropout", math.nan, "[0, 1)"),
        ("dropout", "0.1", "[0, 1)"),
        ("bidirectional", "yes", "True or False"),
        ("variational", 1, "True or False"),
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
