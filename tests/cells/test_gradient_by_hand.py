"""Laws of gradients, first of all of those that a cell writes by hand (`backward`, `products`)."""

import copy
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import cells

pytestmark = pytest.mark.usefixtures("x64")
ALL = (0, 1, 2)  # params, xs, carry


def by_scan(laws, cell, flags=(), reverse=False):
    """params, xs, carry -> a scalar of the outputs and the final carry."""
    run = functools.partial(cells.scan, cell, reverse=reverse, strategy="sequential")
    return lambda params, xs, carry: laws.scalar(run(params, xs, carry, *flags))


def by_step(laws, cell, flags, reverse=False):
    """The same in plain JAX: `lax.scan` over the textbook step, which it differentiates by itself."""
    lengths, mask, resets = flags

    def where(condition, then, otherwise):
        return jax.tree.map(lambda a, b: jnp.where(condition[:, None], a, b), then, otherwise)

    def loss(params, xs, carry):
        fresh = cell.initial_carry(len(xs), xs.dtype)
        valid = mask & (jnp.arange(xs.shape[1]) < lengths[:, None])

        def body(carry, inputs):
            x, ok, reset = inputs
            after, y = cell.step(params, where(reset, fresh, carry), x)
            return where(ok, after, carry), where(ok, y, jnp.zeros_like(y))

        over = (jnp.swapaxes(xs, 0, 1), valid.T, jnp.asarray(resets).T)
        carry, ys = jax.lax.scan(body, carry, over, reverse=reverse)
        return laws.scalar((carry, jnp.swapaxes(ys, 0, 1)))

    return loss


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def without_backward(cell):
    """The same cell, had its author written no gradient."""
    derived = copy.copy(cell)
    object.__setattr__(derived, "__class__", _without_backward(type(cell)))
    return derived


@functools.cache
def _without_backward(cls):
    return type(cls)(f"Derived{cls.__name__}", (cls,), {"gradient_by_hand": False})


# --- every way to differentiate


@pytest.mark.kinds
def test_a_cell_without_a_gradient_by_hand_has_the_same_one(laws, recurrence):
    cell = recurrence.cell(3)
    p = laws.problem(cell)
    assert not without_backward(cell).gradient_by_hand
    derive = laws.jit(jax.grad(by_scan(laws, without_backward(cell), p[3:]), ALL))
    laws.same(derive(*p[:3]), laws.runner(cell, "sequential")(p).gradients)


@pytest.mark.kinds
def test_jacobians_are_the_same_in_both_modes(laws, recurrence):
    """Of the final carry: many tangents, and many gradients, at once."""
    cell = recurrence.cell(2)
    p = laws.problem(cell, (1, 3, 2))

    def last(*args):
        return cells.scan(cell, *args, *p[3:], strategy="sequential")[0]

    laws.same(*(laws.jit(jacobian(last, ALL))(*p[:3]) for jacobian in (jax.jacfwd, jax.jacrev)))


@pytest.mark.kinds
def test_a_gradient_does_not_depend_on_what_else_is_differentiated(laws, recurrence):
    """Of xs, of the carry and of one recurrent parameter alone: all else is constant."""
    cell = recurrence.cell(3)
    p = laws.problem(cell)
    loss = by_scan(laws, cell, p[3:])
    name = next((name for name in p.params if name[0] in "Upv"), next(iter(p.params)))

    @laws.jit
    def alone(params, xs, carry):
        of_one = jax.grad(lambda one: loss(params | {name: one}, xs, carry))(params[name])
        return of_one, *(jax.grad(loss, i)(params, xs, carry) for i in (1, 2))

    want = laws.runner(cell, "sequential")(p).gradients
    laws.same(alone(*p[:3]), (want[0][name], *want[1:]))


# --- precision


@pytest.mark.kinds
def test_gradients_in_float32_and_bfloat16(laws, recurrence):
    """In the dtype of what they belong to, and within 1e-4 and 10% of the largest one of the same rounded
    numbers in float64."""
    cell = recurrence.cell(3)
    p = laws.problem(cell)
    for dtype, tolerance in ((jnp.float32, 1e-4), (jnp.bfloat16, 0.1)):
        params, xs = jax.tree.map(lambda x, dtype=dtype: np.asarray(x, dtype), p[:2])
        carry = jax.tree.map(np.float32, p.carry)
        exact = jax.tree.map(np.float64, (params, xs, carry))
        want = laws.runner(cell, "sequential")(type(p)(*exact, *p[3:])).gradients
        with jax.enable_x64(False):
            got = laws.jit(jax.grad(by_scan(laws, cell, p[3:]), ALL))(params, xs, carry)
        assert {g.dtype for g in jax.tree.leaves(got[:2])} == {np.dtype(dtype)}
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(np.float64(g), w, atol=tolerance * np.abs(w).max(), rtol=0)


# --- what makes it fast


def scans(jaxpr):
    """The `lax.scan`s of a program, where they would run."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            yield eqn.params
        parts = eqn.params.values()
        if eqn.primitive.name == "custom_linear_solve":
            parts = [eqn.params["jaxprs"].solve]
        for part in parts:
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from scans(inner)


def primitives(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for part in eqn.params.values():
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize("by_hand", [True, False], ids=["by-hand", "by-jax"])
def test_a_step_has_one_matmul_for_each_recurrent_matrix_forwards_and_backwards(laws, recurrence, by_hand):
    """The gradients of weights are made after the loop. By hand, nothing is transposed inside it either, but
    states that are multiplied head by head."""
    cell = recurrence.cell(3)
    cell = cell if by_hand else without_backward(cell)
    p = laws.problem(cell, flags=False)
    weights = cell.recurrent_weights(p.params).values()
    matrices = [w.ndim for w in (w[0] if isinstance(w, tuple) else w for w in weights) if w.ndim > 1]
    loops = list(scans(jax.make_jaxpr(jax.grad(by_scan(laws, cell), ALL))(*p[:3]).jaxpr))
    assert {loop["reverse"] for loop in loops} == {False, True}
    for loop in loops:
        inside = list(primitives(loop["jaxpr"].jaxpr))
        assert inside.count("dot_general") == len(matrices)
        assert not (by_hand and "transpose" in inside) or 3 in matrices


@pytest.mark.kinds
def test_a_gradient_compiles_to_one_loop_each_way(laws, recurrence):
    """What forward mode would need is not computed along."""
    cell = recurrence.cell(3)
    p = laws.problem(cell, flags=False)
    program = laws.jit(jax.grad(by_scan(laws, cell), ALL)).lower(*p[:3]).compile().as_text()
    assert len(re.findall(r"\bwhile\(", program)) == 2


# --- more than one device


@pytest.mark.two_devices
@pytest.mark.kinds
def test_a_batch_split_over_devices_has_the_gradient_of_the_whole(laws, case):
    """Under `shard_map`, which checks what differs between devices; second derivatives pass its check too."""
    cell = case.cell(3)
    p = laws.problem(cell)

    def sharded(f, devices):
        specs = (P(), *[P("batch")] * 5)
        mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=specs[:3], check_vma=True)

    def gradient(params, xs, carry, *flags):
        def loss(*args):
            leaves = jax.tree.leaves(cells.scan(cell, *args, *flags, strategy="sequential"))
            return jax.lax.psum(sum(jnp.sin(x).real.sum() for x in leaves), "batch")

        return jax.grad(loss, ALL)(params, xs, carry)

    def product(*args):
        return jax.jvp(lambda *some: gradient(*some, *args[3:]), args[:3], args[:3])[1]

    split, whole = (laws.jit(sharded(gradient, devices))(*p) for devices in (2, 1))
    laws.same(split, whole)
    jax.eval_shape(sharded(product, 2), *p)


@pytest.mark.slow
def test_on_two_devices(on_two_devices):
    on_two_devices(__file__)


@pytest.mark.slow
def test_all_cells_on_two_devices(on_two_devices):
    on_two_devices(__file__, slow=True)
