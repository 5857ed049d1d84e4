"""Time over devices: the numbers of one device, values and gradients, under every flag."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import cells
from cells.base import Linear
from cells.scans import over_devices
from compiling import jit

LINEAR = [name for name in cells.names() if issubclass(cells.CELLS.cls(name), Linear)]
BATCH, TIME, FEATURES, HIDDEN = 4, 19, 5, 6  # steps that no number of devices divides
RNG = np.random.default_rng(0)
FLAGS = {
    "lengths": np.array([TIME, 7, 0, 12]),
    "mask": RNG.random((BATCH, TIME)) < 0.8,
    "resets": RNG.random((BATCH, TIME)) < 0.2,
}
CASES = [{}, *({name: flag} for name, flag in FLAGS.items()), FLAGS]


def meshes():
    """All devices along time; where there are enough, some of them along the batch."""
    devices = np.array(jax.devices())
    yield Mesh(devices, ("time",))
    if len(devices) >= 4:
        yield Mesh(devices.reshape(2, -1), ("batch", "time"))


def loss(run, flags, params, xs, carry):
    last, ys = run(params, xs, carry=carry, **flags)
    told = sum(jnp.sum(jnp.sin(jnp.abs(leaf) + jnp.real(leaf))) for leaf in jax.tree.leaves(last))
    return told + jnp.sum(jnp.cos(ys * jnp.arange(1, TIME + 1)[:, None]))


QUICK = ("lru",)  # its state is complex


@pytest.mark.two_devices
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "name, cases",
    [(name, "two") for name in QUICK] + [pytest.param(n, "all", marks=pytest.mark.slow) for n in LINEAR],
)
def test_values_and_gradients_are_those_of_one_device(name, cases, reverse):
    with jax.enable_x64(True):
        cell = cells.get(name, hidden_size=HIDDEN)
        keys = jax.random.split(jax.random.key(0), 3)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), cell.init(keys[0], FEATURES))
        xs = jax.random.normal(keys[1], (BATCH, TIME, FEATURES), jnp.float64)
        carry = jax.tree.map(lambda c: c + 0.3, cell.initial_carry(BATCH, jnp.float64))

        def all_gradients(scan):
            run = functools.partial(scan, reverse=reverse)
            of = jax.value_and_grad(lambda flags, *args: loss(run, flags, *args), (1, 2, 3))
            return [of(flags, params, xs, carry) for flags in (CASES if cases == "all" else CASES[::4])]

        want = jit(lambda: all_gradients(functools.partial(cells.scan, cell)))()
        for mesh in meshes():
            scan = functools.partial(over_devices.scan, cell, mesh=mesh)
            got = jit(lambda scan=scan: all_gradients(scan))()
            for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(g, w, rtol=0, atol=1e-10 * max(1, np.abs(w).max()))


@pytest.mark.two_devices
def test_float32_and_padding_that_is_not_a_number():
    cell = cells.get("sru", hidden_size=HIDDEN)
    params = cell.init(jax.random.key(0), FEATURES)
    xs = np.array(jax.random.normal(jax.random.key(1), (BATCH, TIME, FEATURES)))
    xs[1, 7:] = np.nan
    want = cells.scan(cell, params, xs, lengths=FLAGS["lengths"])
    got = over_devices.scan(cell, params, xs, next(meshes()), lengths=FLAGS["lengths"])
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=2e-6)


def test_on_two_devices(on_two_devices):
    on_two_devices(__file__)


@pytest.mark.slow
def test_on_eight_devices(on_two_devices):
    on_two_devices(__file__, slow=True, devices=8)


@pytest.mark.parametrize("name", [name for name in cells.names() if name not in LINEAR])
def test_other_cells_are_refused_with_one_line(name):
    cell = cells.get(name, hidden_size=4)
    params, xs = cell.init(jax.random.key(0), 4), jnp.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="cannot run with time over devices; it takes a Linear") as refusal:
        over_devices.scan(cell, params, xs, Mesh(np.array(jax.devices()[:1]), ("time",)))
    assert "\n" not in str(refusal.value)


def test_a_mesh_without_time_is_refused():
    cell = cells.get("sru", hidden_size=4)
    params, xs = cell.init(jax.random.key(0), 4), jnp.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="needs an axis 'time', it has rows"):
        over_devices.scan(cell, params, xs, Mesh(np.array(jax.devices()[:1]), ("rows",)))
