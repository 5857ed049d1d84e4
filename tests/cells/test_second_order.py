"""Laws of second derivatives: every way to take them, of losses of the outputs, of the carry and of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
import laws

pytestmark = pytest.mark.usefixtures("x64")

LOSSES = {
    "outputs": lambda carry, ys: laws.scalar(ys),
    "carry": lambda carry, ys: laws.scalar(carry),
    "both": lambda carry, ys: laws.scalar((carry, ys)),
}


def losses(case, strategy, flags=()):
    """A loss of (params, xs, carry) for each of LOSSES."""
    cell = case.cell(2)

    def loss(of):
        return lambda *args: of(*cells.scan(cell, *args, *flags, strategy=laws.strategy_of(strategy)))

    return [loss(of) for of in LOSSES.values()]


def ways(f, args, tangents):
    """The product of the Hessian with the tangents, in every order of the two modes."""
    argnums = tuple(range(len(args)))

    def dot(gradients):
        return sum(
            jnp.vdot(jnp.conj(g), t).real for g, t in zip(*map(jax.tree.leaves, (gradients, tangents)))
        )

    return {
        "forward over reverse": jax.jvp(jax.grad(f, argnums), args, tangents)[1],
        "reverse over reverse": jax.grad(lambda *args: dot(jax.grad(f, argnums)(*args)), argnums)(*args),
        "reverse over forward": jax.grad(lambda *args: jax.jvp(f, args, tangents)[1], argnums)(*args),
    }


@pytest.mark.kinds
def test_every_way_gives_the_same_product_with_the_hessian(case, strategy):
    """With lengths, a mask and resets; forward over reverse is tested against differences in test_scan.py."""
    p, q = (laws.problem(case.cell(2), (2, 3, 2), seed) for seed in (0, 1))
    for name, f in zip(LOSSES, losses(case, strategy, p[3:]), strict=True):
        want, *others = laws.jit(lambda *args, f=f: ways(f, args, q[:3]))(*p[:3]).items()
        for way, got in others:
            laws.same(got, want[1], 1e-8, what=f"{name}, {way}: ")


def test_every_way_can_be_traced(case, strategy):
    """Hessians too, of the inputs alone: all else is constant, and parts of the problem have no tangents."""
    if case.options:
        pytest.skip("the equation does not matter to the scans")
    p = laws.problem(case.cell(2), (1, 2, 1), flags=False)
    for f in losses(case, strategy):

        def of_inputs(xs, f=f):
            return f(p.params, xs, p.carry)

        jax.eval_shape(lambda xs, g=of_inputs: ways(g, (xs,), (xs,)), p.xs)
        scaled = jax.grad(lambda a, g=of_inputs: jax.grad(lambda xs: a * g(xs))(p.xs).sum())
        jax.eval_shape(scaled, 1.0)  # only the loss's scale varies
        for hessian in (jax.hessian(of_inputs), jax.jacrev(jax.jacrev(of_inputs))):
            assert jax.eval_shape(hessian, p.xs).shape == p.xs.shape * 2


def test_the_losses_tell_the_parts_apart():
    carry, ys = np.ones((2, 3)), np.full((2, 4, 3), 2.0)
    values = [float(of(carry, ys)) for of in LOSSES.values()]
    assert len(set(values)) == 3 and np.isclose(values[2], values[0] + values[1], atol=10)
