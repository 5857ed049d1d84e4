"""Every cell and strategy becomes a program for a GPU and for a TPU, made here, where there is neither.

That is StableHLO, not machine code: it shows that nothing in a scan or its gradient is for CPUs only, and not
that a compiler for those devices takes it, nor how fast it is. Of kernels it holds Mosaic's program, which is
made and checked here, but not what becomes of it. For TPUs libtpu goes all the way, where it is installed.
"""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
import laws
from cells.scans import newton
from laws import BATCH, TIME
from quickly import quickly

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


KERNELS = {"sru": {}, "sru_feedback": {}, "mingru": {}, "lru": {}, "rnn": {"diagonal": True}}


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="kernels need jax 0.11")
@pytest.mark.parametrize("name", quickly(KERNELS, "sru_feedback", "mingru"))
@pytest.mark.parametrize(
    "target, platform, call", [("gpu", "cuda", "mosaic_gpu"), ("tpu", "tpu", "tpu_custom_call")]
)
def test_kernels_lower(name, target, platform, call):
    """With their gradients: at least two kernels."""
    program = lowered(
        cells.get(name, hidden_size=3, **KERNELS[name]), f"kernel:target={target}:chunk=2", platform
    )
    assert program.mlir_module().count(f"@{call}") >= 2 and "callback" not in program.mlir_module()


COMPILES = """
import json, sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
import cells

place = SingleDeviceSharding(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0])

def like(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

for name, strategy, dtype in json.loads(sys.argv[1]):
    cell = cells.get(name, hidden_size=128)

    def loss(params, xs, lengths, resets):
        ys = cells.scan(cell, params, xs, lengths=lengths, resets=resets, strategy=strategy)[1]
        return ys.astype(jnp.float32).sum()

    made = jax.eval_shape(lambda key: cell.init(key, 128, jnp.dtype(dtype)), jax.random.key(0))
    params = jax.tree.map(lambda p: like(p.shape, p.dtype), made)
    steps = like((8, 200, 128), jnp.dtype(dtype)), like((8,), jnp.int32), like((8, 200), jnp.bool_)
    traced = jax.jit(jax.grad(loss, (0, 1))).trace(params, *steps)
    memory = traced.lower(lowering_platforms=("tpu",)).compile().memory_analysis()
    print(name, strategy, dtype, memory.temp_size_in_bytes, "bytes of temporaries")
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, which compiles for TPUs")
def test_programs_of_linear_cells_compile_for_a_tpu():
    """In a process of its own: libtpu takes over the one it is in."""
    cases = [
        (name, strategy, dtype)
        for name in ("sru", "mingru", "lru", "sru_feedback")
        for strategy in ("sequential", "associative", "kernel:target=tpu")
        for dtype in ("float32", "bfloat16")
        if name != "sru_feedback" or strategy != "associative"
    ]
    own = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", COMPILES, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(cases)
