"""Kernels, in the interpreters of Pallas, against "sequential".

Mosaic GPU's interpreter (jax 0.12) watches for races, and raises where it sees one. What is compiled, and for
what, is in test_lowering.py.
"""

import importlib
import random
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells import scans
from cells.scans import kernels
from quickly import quickly

GPU = pytest.param(
    "gpu",
    marks=pytest.mark.skipif(
        jax.__version_info__ < (0, 12), reason="Mosaic GPU's interpreter came with jax 0.12"
    ),
)
TARGETS = ["tpu", GPU]
CELLS = ("sru", "sru_feedback", "mingru", "lru", "rnn:diagonal", "rglru", "sru:reset_feedback", "s5")


def made(text, size):
    name, *options = text.split(":")
    return cells.get(name, hidden_size=size, **dict.fromkeys(options, True))


class Drawn:
    """A problem with a shape, lengths, resets, a carry and a direction that were drawn."""

    def __init__(self, number, dtype=jnp.float32, larger=1):
        draw = random.Random(number)
        self.batch, self.time = draw.randint(1, 3), draw.randint(1, 11 * larger)
        self.size, self.features = draw.choice([1, 3, 70 if larger == 1 else 300]), draw.randint(1, 3)
        self.cell = made(CELLS[number % len(CELLS)], self.size)
        keys = jax.random.split(jax.random.key(number), 5)
        self.params = self.cell.init(keys[0], self.features, dtype)
        self.xs = jax.random.normal(keys[1], (self.batch, self.time, self.features), dtype)
        self.flags = {"reverse": draw.random() < 0.5}
        if draw.random() < 0.6:
            self.flags["lengths"] = jax.random.randint(keys[2], (self.batch,), 0, self.time + 1)
        if draw.random() < 0.6:
            self.flags["resets"] = jax.random.bernoulli(keys[3], 0.3, (self.batch, self.time))
        initial = self.cell.initial_carry(self.batch)
        self.carry = jax.tree.map(lambda c: c + jax.random.normal(keys[4], c.shape), initial)
        chunk = draw.choice([0, 1, 3] if larger == 1 else [0, 3, 8, 32])
        depth, segments = draw.randint(1, 3), draw.choice([0, 1, 2, 5])
        self.options = f":chunk={chunk}:depth={depth}:segments={segments}"

    def loss(self, strategy, params, xs, carry):
        last, ys = cells.scan(self.cell, params, xs, carry, strategy=strategy, **self.flags)
        last, ys = jnp.asarray(last), ys.astype(jnp.float32)
        weights = jnp.arange(1.0, self.size + 1) / self.size
        of_last = (jnp.sin(last.real) + jnp.sin(last.imag)).sum()
        return of_last + (jnp.sin(ys) * weights).sum(), (last, ys)

    def run(self, strategy):
        """The last carry and outputs; gradients of parameters, inputs, first carry."""
        holomorphic = jnp.iscomplexobj(self.carry)
        of = jax.value_and_grad(
            lambda *args: self.loss(strategy, *args), (0, 1) if holomorphic else (0, 1, 2), has_aux=True
        )
        (_, out), gradients = jax.jit(of)(self.params, self.xs, self.carry)
        return out, gradients

    def kernel(self, target=None):
        """On a target's interpreter, or on the accelerator that is here."""
        return f"kernel:target={target}:interpret=True{self.options}" if target else f"kernel{self.options}"


def close(got, want, tolerance):
    """To so much of the largest number of each array."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = (np.asarray(x, np.complex128) for x in (a, b))
        assert np.abs(a - b).max(initial=0) <= tolerance * (1 + np.abs(b).max(initial=0))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("number", quickly(range(32), 0, 3))
def test_kernels_do_what_sequential_does(target, number):
    problem = Drawn(number)
    (out, gradients), (want_out, want) = problem.run(problem.kernel(target)), problem.run("sequential")
    close(out, want_out, 2e-6)
    close(gradients, want, 2e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("number", quickly(range(8), 2))
def test_bfloat16_goes_in_and_comes_out(target, number):
    """The state is in float32."""
    problem = Drawn(number, jnp.bfloat16)
    (out, gradients), (want_out, want) = problem.run(problem.kernel(target)), problem.run("sequential")
    assert cells.scan(problem.cell, problem.params, problem.xs, strategy=problem.kernel(target))[1].dtype == (
        jnp.bfloat16
    )
    close(out, want_out, 2e-2)
    close(gradients, want, 5e-2)


@pytest.mark.parametrize("target", ["tpu", pytest.param("gpu", marks=(*GPU.marks, pytest.mark.slow))])
@pytest.mark.parametrize("name", quickly(CELLS[:3], "sru"))
def test_seeds_and_higher_derivatives(target, name):
    """`vmap` over parameters, and over both; forward mode, forward over reverse, reverse over reverse."""
    cell, xs = made(name, 3), jax.random.normal(jax.random.key(1), (2, 3, 3))
    one = cell.init(jax.random.key(0), 3)
    several = jax.vmap(lambda key: cell.init(key, 3))(jax.random.split(jax.random.key(0), 2))

    def all_of(strategy):
        def loss(params, xs):
            return jnp.sin(cells.scan(cell, params, xs, strategy=strategy)[1]).sum()

        ones, gradient = jax.tree.map(jnp.ones_like, one), jax.grad(loss, (0, 1))

        def of_gradient(params):
            return sum(jnp.sin(g).sum() for g in jax.tree.leaves(gradient(params, xs)))

        return (
            jax.vmap(gradient, (0, None))(several, xs),
            jax.vmap(gradient)(several, jnp.stack([xs, 2 * xs])),
            jax.jvp(loss, (one, xs), (ones, xs)),
            jax.jvp(gradient, (one, xs), (ones, xs)),
            jax.grad(of_gradient)(one),
        )

    run = jax.jit(all_of, static_argnums=0)
    close(run(f"kernel:target={target}:interpret=True:segments=2"), run("sequential"), 1e-5)


@pytest.mark.parametrize("target", TARGETS[1:])
def test_the_detector_sees_a_race(target, monkeypatch):
    """The positive control: without the fence the next chunk comes into tiles that are still being read."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    cell, xs = made("mingru", 3), jnp.ones((1, 6, 3))
    params = cell.init(jax.random.key(0), 3)
    monkeypatch.setattr(plgpu, "commit_smem", lambda: None)
    with pytest.raises(Exception, match="[Rr]ace"):
        out = cells.scan(cell, params, xs, strategy=f"kernel:target={target}:interpret=True:chunk=1:depth=2")
        jax.block_until_ready(out)
    from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call

    interpret_pallas_call.reset_gpu_interpret_mode_state()


@pytest.mark.usefixtures("x64")
def test_float64_goes_without_kernels():
    problem = Drawn(3, jnp.float64)
    out, gradients = problem.run("kernel:target=gpu")
    want_out, want = problem.run("sequential")
    close((out, gradients), (want_out, want), 1e-10)


def test_where_there_are_none_it_is_said_once():
    cell = cells.get("sru", hidden_size=2)
    importlib.import_module("cells.scans.strategies")._say_once.cache_clear()
    with pytest.warns(
        RuntimeWarning, match="'kernel' is what 'auto' would be: kernels are for GPUs and TPUs"
    ):
        assert scans.resolve(cell, "kernel") == scans.resolve(cell, "auto") == "sequential"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scans.resolve(cell, "kernel") == "sequential"
    assert "kernel" not in cells.strategies(cell)
    is_old = jax.__version_info__ < (0, 11)
    for target in ("gpu", "tpu"):
        assert (kernels.available(target) is not None) == is_old
        if not is_old:
            assert scans.resolve(cell, "kernel:chunk=8", target) == f"kernel:target={target}:chunk=8"


@pytest.mark.parametrize("name", cells.names())
def test_kernels_are_for_elementwise_recurrences(name):
    """Of linear cells the recurrence alone, of others the whole step: it must be as wide as the state."""
    cell = cells.get(name, hidden_size=4)
    reason = scans.Kernel().refuses(cell)
    assert (reason is None) == (isinstance(cell, cells.Linear) or name == "sru_feedback")
    assert kernels.fusible(cell) == (name in ("sru", "sru_feedback"))


def test_options_of_kernels_are_checked():
    for text, line in (
        ("kernel:target=cuda", "Kernel: target must be 'auto', 'gpu' or 'tpu', got 'cuda'"),
        ("kernel:depth=0", "Kernel: depth must be a positive int, got 0"),
        ("kernel:chunk=-1", "Kernel: chunk must be an integer, 0 or more, got -1"),
        ("kernel:interpret=1", "Kernel: interpret must be True or False, got 1"),
        ("kernel:interpret=True", "Kernel: interpret must be False where no target is named"),
        ("kernel:segment=2", "has no option 'segment'; did you mean 'segments'?"),
    ):
        with pytest.raises(ValueError) as refusal:
            scans.parse(text)
        assert line in str(refusal.value)


def test_few_channels_have_time_in_segments():
    """Left out, as many as fill the chip, and none of fewer than SHORTEST steps."""
    from cells.scans.kernels import recurrence

    def segments(time, batch, channels, **options):
        xs = (jax.ShapeDtypeStruct((time, batch, channels), jnp.float32),)
        return recurrence._segments(recurrence.Way("gpu", **options), xs)

    assert segments(100, 1, 128) == 1
    assert segments(recurrence.SHORTEST * 4, 1, 128) == 4
    assert segments(10**6, 1, 128) == recurrence.FULL
    assert segments(10**6, 8, 128) == recurrence.FULL // 8
    assert segments(10**6, 512, 128) == 1
    assert segments(100, 1, 128, segments=7) == 7


def test_a_product_that_overflows_leaves_zeros_alone():
    """Of factors over a segment, or over several, where there is nothing for them to grow."""
    a = jnp.full((12, 1, 1), 1e30)
    b = jnp.zeros((12, 1, 1)).at[11].set(1.0)
    way = kernels.way(scans.parse("kernel:target=tpu:interpret=True:segments=4"))
    for reverse in (False, True):
        ys = kernels.solve(way, a, jnp.flip(b) if reverse else b, reverse)
        np.testing.assert_array_equal(ys, jnp.flip(b) if reverse else b)


on_a_card = pytest.mark.skipif(
    kernels.available(jax.default_backend()) is not None, reason="there is no accelerator with kernels here"
)


@on_a_card
@pytest.mark.parametrize("number", range(16))
def test_on_a_card_they_do_what_sequential_does(number):
    """Compiled, and at sizes of many blocks and chunks."""
    problem = Drawn(number, larger=40)
    with jax.default_matmul_precision("highest"):
        (out, gradients), (want_out, want) = problem.run(problem.kernel()), problem.run("sequential")
    close(out, want_out, 1e-5)
    close(gradients, want, 2e-4)


@on_a_card
@pytest.mark.parametrize("number", range(3))
def test_on_a_card_bfloat16_goes_in(number):
    problem = Drawn(number, jnp.bfloat16, larger=10)
    (out, gradients), (want_out, want) = problem.run(problem.kernel()), problem.run("sequential")
    close(out, want_out, 2e-2)
    close(gradients, want, 5e-2)


@on_a_card
def test_on_a_card_twice_is_the_same():
    """To the bit, as it is not where something is read before it has been written."""
    problem = Drawn(0, larger=100)
    one, other = problem.run(problem.kernel()), problem.run(problem.kernel())
    jax.tree.map(np.testing.assert_array_equal, one, other)
