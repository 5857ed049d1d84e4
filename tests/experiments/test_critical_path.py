"""The critical path is what one counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from experiments.lab import statistics
from experiments.lab.critical_path import NoCriticalPath, critical_path

X, W = jnp.ones((2, 6, 3)), jnp.ones((3, 3))


def over_time(body, *carry):
    """xs -> final carry and outputs of a scan over the second axis."""
    return lambda xs: jax.lax.scan(body, carry, jnp.swapaxes(xs, 0, 1))


def four_times(c, x):
    return jax.lax.scan(lambda d, y: (d * y, None), c, jnp.stack([x] * 4))[0]


START = jnp.zeros((2, 3))
BY_HAND = {
    "nothing": (lambda x: x, 0),
    "moves": (lambda x: jnp.concatenate([x[:, ::-1].T, jnp.zeros((3, 6, 1))], -1), 0),
    "a chain": (lambda x: jnp.tanh(x) * 2 + 1, 3),
    "a matmul is one": (lambda x: jnp.tanh(x @ W), 2),
    "the longer of two branches": (lambda x: jnp.sin(jnp.cos(jnp.tanh(x))) + jnp.exp(x), 4),
    "no chain from numbers alone": (lambda x: x + jnp.sin(jnp.cos(jnp.ones(3))), 1),
    "a sum is one": (lambda x: x.sum() + 1, 2),
    "a running sum is a tree": (lambda x: jax.lax.cumsum(x, 1), 3),
    "a call": (jax.jit(lambda x: jnp.sin(jax.jit(jnp.cos)(x))), 2),
    "a checkpoint": (jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))), 2),
    "the longer case": (lambda x: jax.lax.cond(True, jnp.sin, lambda x: jnp.sin(jnp.cos(x)), x), 2),
    "a recurrence": (over_time(lambda c, x: ((jnp.tanh(c[0] + x),), None), START), 2 * 6),
    "what comes before and after": (
        lambda xs: over_time(lambda c, x: ((c[0] * x,), c[0]), START)(jnp.sin(xs))[1] + 1, 1 + 5 + 1,
    ),
    "outputs off the path": (over_time(lambda c, x: ((c[0] + x,), jnp.tanh(jnp.sin(c[0]))), START), 5 + 2),
    "a scan without a recurrence": (over_time(lambda c, x: (c, jnp.tanh(x)), START), 1),
    "a shift register": (over_time(lambda c, x: ((jnp.tanh(c[1]), jnp.sin(x)), None), START, START), 2),
    "two that take turns": (over_time(lambda c, x: ((c[1], jnp.tanh(c[0])), x), START, START), 3),
    "a scan in a scan": (over_time(lambda c, x: ((four_times(c[0], x),), None), START), 4 * 6),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_paths_counted_by_hand(name):
    function, length = BY_HAND[name]
    # The second of those that take turns begins with a number, as the first does.
    assert critical_path(function, X) == (length if name != "two that take turns" else 0)


def test_a_start_that_is_given_counts():
    def turns(a, b):
        return jax.lax.scan(lambda c, _: ((c[1], jnp.tanh(c[0])), None), (a, b), length=6)[0]

    assert critical_path(turns, START, START) == 3
    held = lambda a: jax.lax.scan(lambda c, _: (jnp.tanh(c), None), a, length=0)[0]  # noqa: E731
    assert critical_path(held, START) == 0


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(NoCriticalPath):
        critical_path(lambda x: jax.lax.while_loop(lambda x: x.sum() < 3, jnp.sin, x), X)


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_a_loop_whose_turns_are_known_counts_like_the_one_written_out(turns):
    """The condition and the body side by side in every turn, and the condition once more."""

    def goes_on(a, x):
        return x.sum() < jnp.sin(a[0, 0])

    def body(a, x):
        return jnp.cos(x * jnp.exp(a))

    def loop(a, x):
        x = jax.lax.while_loop(lambda x: goes_on(a, x), lambda x: body(a, x), x)
        return jax.lax.while_loop(lambda y: y[0, 0] < 3, jnp.sin, x)  # which is asked once

    def written_out(a, x):
        for _ in range(turns):
            x = jax.lax.cond(goes_on(a, x), body, lambda a, x: x, a, x)
        return goes_on(a, x) & (x[0, 0] < 3)  # one more, as the other loop asks

    wanted = critical_path(written_out, START, START)
    assert critical_path(loop, START, START, turns=(turns, 0)) == wanted
    with pytest.raises(NoCriticalPath):
        critical_path(loop, START, START, turns=(turns,))


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "sru", "sru_feedback", "lru"])
@pytest.mark.parametrize("how", ["forward", "gradient"])
def test_a_scan_counts_like_the_loop_written_out(name, how):
    cell = cells.get(name, hidden_size=3)
    params = cell.init(jax.random.key(0), 3)

    def scanned(params, xs):
        return jax.lax.scan(lambda c, x: cell.step(params, c, x), cell.initial_carry(2), xs)[1]

    def unrolled(params, xs):
        carry, ys = cell.initial_carry(2), []
        for x in xs:
            carry, y = cell.step(params, carry, x)
            ys.append(y)
        return jnp.stack(ys)

    def with_gradient(run):
        return lambda *args: jax.value_and_grad(lambda *args: run(*args).sum(), (0, 1))(*args)

    xs = jnp.swapaxes(X, 0, 1)
    runs = (scanned, unrolled) if how == "forward" else map(with_gradient, (scanned, unrolled))
    a, b = (critical_path(run, params, xs) for run in runs)
    # Backwards the loop has one sum less over the gradients, and the scan first gathers what it adds up.
    assert a == b if how == "forward" else abs(a - b) <= 0.25 * b


def test_an_associative_scan_is_logarithmic_and_a_sequential_one_linear():
    cell = cells.get("sru", hidden_size=3)
    params = cell.init(jax.random.key(0), 3)

    def lengths(strategy, times):
        def run(params, xs):
            return cells.scan(cell, params, xs, strategy=strategy)[1]

        return [critical_path(run, params, jax.ShapeDtypeStruct((2, t, 3), jnp.float32)) for t in times]

    times = (64, 128, 256, 512)
    assert len(set(np.diff(lengths("associative", times)))) == 1
    assert np.array_equal(np.diff(lengths("sequential", times)), 2 * np.array([64, 128, 256]))
    assert statistics.growth(times, lengths("associative", times)) == "logarithmic"
    assert statistics.growth(times, lengths("sequential", times)) == "linear"
    times = (256, 1024, 4096)
    assert statistics.growth(times, lengths("chunked", times)) == "linear"
