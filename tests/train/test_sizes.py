"""Parameters: their names, their number, and the hidden size that meets a budget."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from compiling import jit
from models import HIDDEN, OUTPUTS, VOCABULARY, assert_close, cell_of, inputs_of, spec_of
from quickly import quickly
from train import sizes
from train.model import ModelConfig, build, count
from train.sizes import matched_hidden_size


@pytest.mark.parametrize("name", ["lstm"])
def test_seeds_under_vmap_are_the_single_ones_and_differ(name):
    spec = spec_of("tokens")
    model = build(cell_of(name), spec, ModelConfig(layer_norm="post"))
    keys = jax.random.split(jax.random.key(0), 3)
    params = jit(jax.vmap(model.init))(keys)
    init = jit(model.init)
    singles = [init(key) for key in keys]
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
    ("rnn", RAW, WIDE),
    pytest.param("sru", RAW, ModelConfig(), marks=pytest.mark.slow),  # dips at 24 and 12
    ("sru", spec_of("tokens"), dataclasses.replace(WIDE, embedding_size=2)),  # dips at 1 and 2
    pytest.param(
        "sru", spec_of("tokens"), dataclasses.replace(WIDE, embedding_size=9), marks=pytest.mark.slow
    ),
    pytest.param("sru", RAW, ModelConfig(block="gated"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name, spec, config", MATCHED)
def test_the_matched_hidden_size_is_the_nearest_of_all(name, spec, config, monkeypatch):
    monkeypatch.setattr(sizes, "build", functools.cache(build))
    counts = np.array([sizes.build(cell_of(name, H), spec, config).parameters for H in range(1, 37)])
    budgets = {int(c) + d for c in counts[:26] for d in (-1, 0, 1)}
    budgets |= {int(c) for c in (counts[1:26] + counts[:25]) // 2}
    for budget in sorted(budgets - {counts[0] - 1}):
        got = matched_hidden_size(name, {}, spec, config, budget)
        assert abs(counts[got - 1] - budget) == abs(counts - budget).min(), (budget, got)


@pytest.mark.parametrize("name", quickly(cells.names(), "sru", "mlstm"))
def test_every_cell_comes_near_a_budget(name):
    heads = {"heads": 4} if "heads" in cells.CELLS.cls(name).__dataclass_fields__ else {}
    config = ModelConfig(embedding_size=32)
    size = matched_hidden_size(name, heads, RAW, config, 10_000)
    assert size % cells.CELLS.cls(name).size_multiple(**heads) == 0
    got = build(cell_of(name, size, **heads), RAW, config).parameters
    assert abs(got - 10_000) < (600 if heads or name == "tcn" else 300), (size, got)


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
