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


def loss(case, strategy, of, flags=()):
    """A loss of (params, xs, carry)."""
    cell = case.cell(2)
    return lambda *args: LOSSES[of](*cells.scan(cell, *args, *flags, strategy=laws.strategy_of(strategy)))


def ways(f, args, tangents):
    """The product of the Hessian with the tangents, in every order of the two modes."""
    argnums = tuple(range(len(args)))

    def dot(gradients):
        pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(tangents), strict=True)
        return sum(jnp.vdot(jnp.conj(g), t).real for g, t in pairs)

    return {
        "forward over reverse": jax.jvp(jax.grad(f, argnums), args, tangents)[1],
        "reverse over reverse": jax.grad(lambda *args: dot(jax.grad(f, argnums)(*args)), argnums)(*args),
        "reverse over forward": jax.grad(lambda *args: jax.jvp(f, args, tangents)[1], argnums)(*args),
    }


# Where a loss leaves parts of a run out, those have no gradients: of the outputs alone is the hardest.
ALL_LOSSES = ["outputs", *(pytest.param(of, marks=pytest.mark.slow) for of in ("carry", "both"))]


@pytest.mark.slow
@pytest.mark.kinds("lstm", "sru")
@pytest.mark.default_options
@pytest.mark.parametrize("of", ALL_LOSSES)
def test_every_way_gives_the_same_product_with_the_hessian(case, strategy, of):
    """With lengths, a mask and resets; forward over reverse is tested against differences in test_scan.py."""
    p, q = (laws.problem(case.cell(2), (2, 3, 2), seed) for seed in (0, 1))
    f = loss(case, strategy, of, p[3:])
    want, *others = laws.jit(lambda *args: ways(f, args, q[:3]))(*p[:3]).items()
    for way, got in others:
        laws.same(got, want[1], 1e-8, what=f"{way}: ")


@pytest.mark.slow
@pytest.mark.kinds("lstm", "sru")
@pytest.mark.default_options
@pytest.mark.parametrize("of", ALL_LOSSES)
def test_every_way_can_be_traced(case, strategy, of):
    """Of the inputs alone: all else is constant, and parts of the problem have no tangents."""
    p = laws.problem(case.cell(2), (1, 2, 1), flags=False)
    f = loss(case, strategy, of)

    def of_inputs(xs):
        return f(p.params, xs, p.carry)

    jax.eval_shape(lambda xs: ways(of_inputs, (xs,), (xs,)), p.xs)
    # Only the loss's scale varies.
    jax.eval_shape(jax.grad(lambda a: jax.grad(lambda xs: a * of_inputs(xs))(p.xs).sum()), 1.0)
    assert jax.eval_shape(jax.jacrev(jax.jacrev(of_inputs)), p.xs).shape == p.xs.shape * 2


def test_the_losses_tell_the_parts_apart():
    carry, ys = np.ones((2, 3)), np.full((2, 4, 3), 2.0)
    values = [float(of(carry, ys)) for of in LOSSES.values()]
    assert len(set(values)) == 3 and np.isclose(values[2], values[0] + values[1], atol=10)
