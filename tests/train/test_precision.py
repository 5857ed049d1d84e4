"""Laws of `model.compute_dtype`: what is low in precision, what is not, and that all cells learn with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells.base import Projected
from train import tasks
from train.loop import train
from train.model import ModelConfig, build


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["sru", "lstm", "mlstm"])
def test_cells_learn_to_recall_and_in_bfloat16_in_at_most_twice_the_steps(tiny, cell):
    """Parameters and the optimiser's state stay float32."""

    def solved_steps(dtype):
        run = tiny(cell, train={"steps": 400}, model={"compute_dtype": dtype})
        result = train(run)
        floats = [x.dtype for x in jax.tree.leaves(result.state) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert set(floats) == {np.dtype("float32")}
        assert result.summary["run"]["status"] == "finished"
        for seed in result.summary["seeds"]:
            assert seed["solved"] and seed["test_metric"] > 0.95
            assert seed["solved_step"] % run.train.eval_every == 0
            assert seed["solved_tokens"] == seed["solved_step"] * 8 * 5
        return np.array([seed["solved_step"] for seed in result.summary["seeds"]])

    assert (solved_steps("bfloat16") <= 2 * solved_steps("float32")).all()


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for part in eqn.params.values():
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("cell", cells.names())
def test_in_bfloat16_matmuls_read_it_and_the_state_and_the_outputs_do_not(cell):
    """Every one outside a cell's state does, and inside it where that is a plain vector."""
    spec = tasks.get("adding", length=5).spec({})
    cell = cells.get(cell, hidden_size=4)
    model = build(cell, spec, ModelConfig(depth=2, compute_dtype="bfloat16"))
    params, xs = jax.eval_shape(model.init, jax.random.key(0)), jax.ShapeDtypeStruct((2, 5, 2), jnp.float32)
    found = list(equations(jax.make_jaxpr(model.apply)(params, xs).jaxpr))
    read = [{x.aval.dtype for x in eqn.invars} for eqn in found if eqn.primitive.name == "dot_general"]
    low = {np.dtype(jnp.bfloat16)}
    if isinstance(cell, Projected):  # one that has its step alone multiplies in the state's precision
        # A matrix memory, LRU's and S5's readout and attention multiply states, which stay as they are.
        stay = cells.CELLS.name_of(cell) in (
            "lru",
            "s5",
            "mlstm",
            "mamba2",
            "mamba3",
            "deltanet",
            "attention",
        )
        assert stay or all(dtypes == low for dtypes in read)
        assert sum(dtypes == low for dtypes in read) >= 3  # each layer's input, the head
    assert jax.eval_shape(model.apply, params, xs).dtype == jnp.float32

    own, xs = (
        jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16), tree)
        for tree in (params["layers"]["0"]["forward"], xs)
    )
    carry, ys = jax.eval_shape(lambda p, xs: cells.scan(cell, p, xs), own, xs)
    assert {c.dtype for c in jax.tree.leaves(carry)} <= {np.dtype("float32"), np.dtype("complex64")}
    assert ys.dtype == jnp.bfloat16


def test_an_unknown_dtype_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="unknown compute_dtype 'bloat16'; did you mean 'bfloat16'?"
    ) as refusal:
        ModelConfig(compute_dtype="bloat16")
    assert "\n" not in str(refusal.value)
