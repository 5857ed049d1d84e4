"""Every cell and strategy becomes a program for a GPU and for a TPU, made here, where there is neither.

That is StableHLO, not machine code: it shows that nothing in a scan or its gradient is for CPUs only, and not
that a compiler for those devices takes it, nor how fast it is.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
import laws
from cells.scans import newton
from laws import BATCH, TIME

FEATURES = 2


def lowered(cell, strategy, platform):
    """Of the outputs and of all gradients, with lengths and resets."""

    def loss(params, xs, carry, lengths, resets):
        last, ys = cells.scan(
            cell, params, xs, carry=carry, lengths=lengths, resets=resets, strategy=laws.strategy_of(strategy)
        )
        return laws.scalar((last, ys)), ys

    params = jax.eval_shape(lambda key: cell.init(key, FEATURES), jax.random.key(0))
    carry = jax.eval_shape(lambda: cell.initial_carry(BATCH))
    xs = jax.ShapeDtypeStruct((BATCH, TIME, FEATURES), jnp.float32)
    lengths = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    resets = jax.ShapeDtypeStruct((BATCH, TIME), jnp.bool_)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True, allow_int=True))
    return jax.export.export(run, platforms=[platform])(params, xs, carry, lengths, resets)


@pytest.mark.kinds("lstm", "sru", "lru", "mlstm", "tcn")
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_it_lowers_for_accelerators(case, strategy, platform, monkeypatch):
    # Its warning that it fell back is a callback, which a program for elsewhere cannot have.
    monkeypatch.setattr(newton, "warn", lambda report: None)
    program = lowered(case.cell(laws.HIDDEN), strategy, platform)
    assert program.platforms == (platform,)
    (_, ys), gradients = jax.tree.unflatten(program.out_tree, program.out_avals)
    assert ys.shape[:2] == (BATCH, TIME) and ys.dtype == np.float32
    assert len(jax.tree.leaves(gradients)) > 2
    # What runs on the host in the midst of a program, a callback, would be a custom call.
    assert "callback" not in program.mlir_module()
