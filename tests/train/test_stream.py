"""Long streams in pieces: exactly the numbers of one pass, for every cell and depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from compiling import jit
from models import BATCH, TIME, assert_close, cell_of, inputs_of, normal_params, spec_of
from train.model import BLOCKS, ModelConfig, build

QUICK = {("gru", 1)}
STACKS = 1, 2, 3, "residual", "gated"  # so many bare layers, two blocks, one
MODELS = [
    pytest.param(name, stack, id=f"{name}-{stack}", marks=[] if (name, stack) in QUICK else pytest.mark.slow)
    for name in cells.names()
    for stack in STACKS
]
HIGHWAY = {"connection": "highway", "layer_norm": "pre", "embedding_size": 5}


def problem(seed, spec):
    rng = np.random.default_rng(seed)
    steps = {"lengths": rng.integers(0, TIME + 1, BATCH)}
    steps |= {"mask": rng.random((BATCH, TIME)) < 0.8, "resets": rng.random((BATCH, TIME)) < 0.2}
    return inputs_of(spec), steps


def piece(xs, steps, first, last):
    """The steps from `first` to `last` of each row, and what there is to say of them."""
    lengths = np.clip(steps["lengths"] - first, 0, last - first)
    flags = {name: steps[name][:, first:last] for name in ("mask", "resets")}
    return xs[:, first:last], {"lengths": lengths, **flags}


@pytest.mark.parametrize("name, stack", MODELS)
def test_pieces_give_the_numbers_of_one_pass(name, stack, x64):
    """Outputs, the carry at the end, and gradients through all pieces; of any length, with all flags."""
    spec = spec_of(per_step=True)
    options = {"depth": 2, "block": stack} if stack in BLOCKS else {"depth": stack, **HIGHWAY}
    if stack == "gated":
        options |= {"depth": 1, "conv_width": 3, "mlp_expansion": 1}
    model = build(cell_of(name), spec, ModelConfig(**options))
    params = normal_params(model)

    def whole(params, xs, steps):
        carry, outputs = model.apply(params, xs, **steps, return_carry=True)
        return jnp.sum(outputs**2), (carry, outputs)

    def one(params, xs, steps, carry):
        return model.apply(params, xs, **steps, carry=carry, return_carry=True)

    one = jit(one)

    def in_pieces(params, xs, steps, cuts):
        carry, parts = model.initial_carry(BATCH, xs.dtype), []
        for first, last in zip((0, *cuts), (*cuts, TIME), strict=True):
            carry, outputs = one(params, *piece(xs, steps, first, last), carry)
            parts.append(outputs)
        outputs = jnp.concatenate(parts, axis=1)
        return jnp.sum(outputs**2), (carry, outputs)

    whole = jit(jax.value_and_grad(whole, has_aux=True))
    for seed, cuts in enumerate([(1, 3), tuple(range(1, TIME))]):
        xs, steps = problem(seed, spec)
        want = whole(params, xs, steps)
        got = jax.value_and_grad(in_pieces, has_aux=True)(params, xs, steps, cuts)
        jax.tree.map(assert_close, got, want)


@pytest.mark.parametrize("cut", [pytest.param(1, marks=pytest.mark.slow), TIME - 1])
def test_the_answer_of_a_sequence_is_that_of_its_last_piece(cut, x64):
    model = build(cell_of("gru"), spec := spec_of("tokens", per_step=False), ModelConfig(pooling="last"))
    params, xs = normal_params(model), inputs_of(spec)
    apply = jit(model.apply, static_argnames="return_carry")
    carry, _ = apply(params, xs[:, :cut], return_carry=True)
    assert_close(apply(params, xs[:, cut:], carry=carry), apply(params, xs))


@pytest.mark.parametrize(
    "config, per_step, carry, wanted",
    [
        ({"bidirectional": True}, True, None, "reads from the end"),
        ({"pooling": "mean"}, False, None, "model.pooling=mean looks at all steps"),
        ({"depth": 2}, True, {"0": ()}, "carry must be that of 2 layers"),
        ({}, True, ((),), "carry must be that of 1 layers"),
        ({}, True, {"0": jnp.zeros((BATCH + 1, 3))}, "carry"),
        ({"block": "gated"}, True, {"0": jnp.zeros((BATCH, 3))}, "carry must be that of 1 gated layers"),
    ],
    ids=["bidirectional", "pooling", "depth", "kind", "shape", "block"],
)
def test_what_has_no_carry_is_refused(config, per_step, carry, wanted):
    model = build(cell_of("gru"), spec := spec_of("tokens", per_step), ModelConfig(**config))
    with pytest.raises(ValueError, match=wanted):
        model.apply(normal_params(model), inputs_of(spec), carry=carry, return_carry=True)
