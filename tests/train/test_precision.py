"""Laws of `model.compute_dtype`: what is low in precision, what is not, and that all cells learn with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from train import tasks
from train.loop import train
from train.model import ModelConfig, build

pytestmark = pytest.mark.usefixtures("in_a_hurry")


@pytest.mark.parametrize("cell", cells.names())
def test_every_cell_learns_to_recall_and_in_bfloat16_in_at_most_twice_the_steps(tiny, cell):
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
def test_in_bfloat16_every_matmul_reads_it_and_the_state_and_the_outputs_do_not(cell):
    spec = tasks.get("adding", length=5).spec({})
    model = build(cells.get(cell, hidden_size=4), spec, ModelConfig(depth=2, compute_dtype="bfloat16"))
    params, xs = jax.eval_shape(model.init, jax.random.key(0)), jax.ShapeDtypeStruct((2, 5, 2), jnp.float32)
    found = list(equations(jax.make_jaxpr(model.apply)(params, xs).jaxpr))
    matmuls = [eqn for eqn in found if eqn.primitive.name == "dot_general"]
    assert {x.aval.dtype for eqn in matmuls for x in eqn.invars} == {np.dtype(jnp.bfloat16)}
    loops = [eqn.params for eqn in found if eqn.primitive.name == "scan"]
    states = [x for p in loops for x in p["jaxpr"].out_avals[: p["num_carry"]]]
    assert len(loops) == 2 and {x.dtype for x in states} == {np.dtype("float32")}
    assert jax.eval_shape(model.apply, params, xs).dtype == jnp.float32


def test_an_unknown_dtype_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="unknown compute_dtype 'bloat16'; did you mean 'bfloat16'?"
    ) as refusal:
        ModelConfig(compute_dtype="bloat16")
    assert "\n" not in str(refusal.value)
