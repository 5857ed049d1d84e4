"""Laws of `remat`: states computed again in the backward pass change memory, and nothing else.

That nothing else changes with flags, for every cell and strategy, is in test_scan.py.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

import cells
from cells.scans import remat as rematerialise
from train import tasks
from train.model import ModelConfig, build


@pytest.mark.kinds("lstm", "sru", "mlstm", "step_alone")
@pytest.mark.slow
def test_without_flags_too_the_last_chunk_may_be_shorter(x64, laws, case):
    cell = case.cell(3)
    p = laws.problem(cell, flags=False)

    @laws.jit
    def results(*args):
        def loss(*args, remat):
            carry, ys = cells.scan(cell, *args, remat=remat)
            return laws.scalar((carry, ys)), (carry, ys)

        return [jax.grad(loss, (0, 1, 2), has_aux=True)(*args, remat=remat) for remat in (0, 3)]

    laws.same(*results(*p[:3]), 1e-12)


def test_as_many_chunks_as_steps_in_a_chunk():
    """-1: the square root of the time, rounded up, which keeps least."""
    for time in range(1, 300):
        size = rematerialise.chunk_size(-1, time)
        assert (size - 1) ** 2 < time <= size**2
        assert size + -(-time // size) == min(k + -(-time // k) for k in range(1, time + 1))
        assert rematerialise.chunk_size(7, time) == min(7, time)


def planned_bytes(laws, f, *args):
    """What XLA will allocate between the arguments and the results."""
    return laws.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.kinds("lstm", "sru")
def test_gradients_of_long_sequences_need_several_times_less_memory(laws, case):
    cell = case.cell(32)
    params = jax.eval_shape(functools.partial(cell.init, input_size=2), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((4, 4096, 2), jnp.float32)

    def gradient(remat):
        return jax.grad(lambda params, xs: cells.scan(cell, params, xs, remat=remat)[1].sum())

    kept, again = (planned_bytes(laws, gradient(remat), params, xs) for remat in (0, -1))
    assert again < kept / 5


def test_a_model_hands_remat_to_its_cells(laws):
    spec = tasks.get("adding", length=2048).spec({})
    xs = jax.ShapeDtypeStruct((4, 2048, 2), jnp.float32)

    def bytes_of(remat):
        model = build(cells.get("gru", hidden_size=32), spec, ModelConfig(remat=remat))
        params = jax.eval_shape(model.init, jax.random.key(0))
        return planned_bytes(laws, jax.grad(lambda *args: model.apply(*args).sum()), params, xs)

    assert bytes_of(-1) < bytes_of(0) / 3


@pytest.mark.parametrize("remat", [-2, 1.5, True, None, "4"])
def test_a_bad_remat_is_refused_with_one_line(remat):
    cell = cells.get("rnn", hidden_size=2)
    scan = functools.partial(cells.scan, cell, cell.init(jax.random.key(0), 1), jnp.ones((1, 2, 1)))
    for refuse in (scan, ModelConfig):
        with pytest.raises(ValueError, match="remat must be") as refusal:
            refuse(remat=remat)
        assert repr(remat) in str(refusal.value) and "\n" not in str(refusal.value)
