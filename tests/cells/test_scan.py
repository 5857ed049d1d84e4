"""Laws of a scan, for every cell, option and strategy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells import scans
from cells.scans import linear

pytestmark = pytest.mark.usefixtures("x64")
REVERSE = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@pytest.mark.parametrize(
    "shape, hidden, reverse",
    [((4, 5, 2), 3, False), ((4, 5, 2), 3, True), ((2, 3, 3), 3, True), ((1, 1, 1), 1, False)],
    ids=["forward", "reverse", "square", "ones"],
)
def test_a_scan_is_the_loop_over_step(laws, case, strategy, shape, hidden, reverse):
    """Outputs, final carry and all gradients, with mask, lengths, resets and an initial carry at once."""
    cell = case.cell(hidden)
    for seed in range(3):
        p = laws.problem(cell, shape, seed)
        got, want = (laws.runner(cell, s, reverse)(p) for s in (strategy, "loop"))
        laws.same(got, want)


def test_chained_scans_are_one_scan(laws, case, strategy):
    """Without flags too: pieces of the sequence, the carry handed on, in both directions."""
    cell = case.cell(3)
    p = laws.problem(cell, flags=False)

    @laws.jit
    def both(params, xs, carry):
        run = functools.partial(cells.scan, cell, params, strategy=strategy)
        middle, start = run(xs[:, :3], carry)
        last, end = run(xs[:, 3:], middle)
        r_middle, r_end = run(xs[:, 3:], carry, reverse=True)
        r_last, r_start = run(xs[:, :3], r_middle, reverse=True)
        chained = [(last, jnp.concatenate([start, end], 1)), (r_last, jnp.concatenate([r_start, r_end], 1))]
        return chained, [run(xs, carry), run(xs, carry, reverse=True)]

    chained, whole = both(*p[:3])
    laws.same(chained, whole)
    loop = laws.runner(cell, "loop")(p)
    laws.same(whole[0], (loop.carry, loop.ys))


@REVERSE
def test_a_run_may_stop_and_go_on_at_any_step(laws, case, strategy, reverse):
    """The final carry is the one after the last real step."""
    cell = case.cell(3)
    p, run = laws.problem(cell), laws.runner(cell, strategy, reverse)
    whole, time = run(p), np.arange(p.xs.shape[1])
    for k in range(len(time) + 1):
        early, late = time < k, time >= k
        first, second = (late, early) if reverse else (early, late)
        one = run(p._replace(mask=p.mask & first))
        two = run(p._replace(mask=p.mask & second, carry=one.carry))
        laws.same((one.ys + two.ys, two.carry), (whole.ys, whole.carry))


@REVERSE
def test_padding_holds_anything_and_changes_nothing(laws, case, strategy, reverse):
    cell = case.cell(3)
    p, run = laws.problem(cell), laws.runner(cell, strategy, reverse)
    want, padding = run(p), ~p.valid
    assert not np.any(want.ys[padding])
    for junk in (np.nan, np.inf, -np.inf, 1e30, 1e300):
        got = run(p._replace(xs=np.where(padding[..., None], junk, p.xs)))
        jax.tree.map(np.testing.assert_array_equal, got, want)
        assert not np.any(got.gradients[1][padding])
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(got))


@REVERSE
def test_a_row_of_padding_keeps_its_carry(laws, case, strategy, reverse):
    cell = case.cell(3)
    p = laws.problem(cell)
    empty = p._replace(lengths=np.zeros_like(p.lengths), resets=np.ones_like(p.resets))
    got = laws.runner(cell, strategy, reverse)(empty)
    assert not np.any(got.ys) and not any(np.any(g) for g in jax.tree.leaves(got.gradients[:2]))
    jax.tree.map(np.testing.assert_array_equal, got.carry, p.carry)


@REVERSE
def test_skipped_elements_are_as_if_they_were_not_there(laws, case, strategy, reverse):
    """A masked run is the run on what is left when the masked elements, resets and all, are cut out."""
    cell = case.cell(3)
    p, run = laws.problem(cell, seed=1), laws.runner(cell, strategy, reverse)
    xs, resets = np.full_like(p.xs, 7.0), np.ones_like(p.resets)
    for row, keep in enumerate(p.valid):
        xs[row, : keep.sum()], resets[row, : keep.sum()] = p.xs[row, keep], p.resets[row, keep]
    short = p._replace(xs=xs, resets=resets, lengths=p.valid.sum(1), mask=np.ones_like(p.mask))
    got, want = run(p), run(short)
    laws.same((got.carry, got.gradients[0]), (want.carry, want.gradients[0]))
    for row, keep in enumerate(p.valid):
        laws.same(got.ys[row, keep], want.ys[row, : keep.sum()])


def test_resets_are_fresh_runs_of_the_episodes(laws, case, strategy):
    cell = case.cell(3)
    p, run = laws.problem(cell, seed=2), laws.runner(cell, strategy)
    p = p._replace(mask=np.ones_like(p.mask))
    got = run(p)
    episode = np.cumsum(p.resets, 1)
    fresh = jax.tree.map(np.asarray, cell.initial_carry(len(p.xs), np.float64))
    for number in range(episode.max() + 1):
        here = p.valid & (episode == number)
        xs = np.zeros_like(p.xs)
        for row in range(len(xs)):
            xs[row, : here[row].sum()] = p.xs[row, here[row]]
        start = p.carry if number == 0 else fresh
        alone = run(p._replace(xs=xs, carry=start, lengths=here.sum(1), resets=np.zeros_like(p.resets)))
        last = here.sum(1) > 0
        last &= episode[np.arange(len(xs)), np.maximum(p.lengths - 1, 0)] == number
        for row in range(len(xs)):
            laws.same(got.ys[row, here[row]], alone.ys[row, : here[row].sum()])
        laws.same(*(jax.tree.map(lambda c, last=last: c[last], r.carry) for r in (got, alone)))


@REVERSE
def test_a_reset_forgets_even_infinity(laws, case, strategy, reverse):
    cell = case.cell(3)
    p, run = laws.problem(cell, flags=False), laws.runner(cell, strategy, reverse)
    p.resets[:, 2] = True
    bad = p.xs.copy()
    bad[:, 3 if reverse else 1] = np.inf
    after = slice(None, 3) if reverse else slice(2, None)
    laws.same(run(p._replace(xs=bad)).ys[:, after], run(p).ys[:, after])


@REVERSE
def test_a_reset_at_a_skipped_element_is_skipped(laws, case, strategy, reverse):
    cell = case.cell(3)
    p, run = laws.problem(cell), laws.runner(cell, strategy, reverse)
    more, fewer = (run(p._replace(resets=r)) for r in (p.resets | ~p.valid, p.resets & p.valid))
    jax.tree.map(np.testing.assert_array_equal, more, fewer)


def test_reverse_is_flipping_inside_each_length(laws, case, strategy):
    cell = case.cell(3)
    p = laws.problem(cell)

    def flip(x):
        x = np.array(x)
        for row, length in enumerate(p.lengths):
            x[row, :length] = x[row, :length][::-1]
        return x

    flipped = p._replace(**{name: flip(getattr(p, name)) for name in ("xs", "mask", "resets")})
    got, want = laws.runner(cell, strategy, True)(p), laws.runner(cell, strategy)(flipped)
    laws.same((got.carry, got.gradients[0]), (want.carry, want.gradients[0]))
    laws.same((got.ys, got.gradients[1]), (flip(want.ys), flip(want.gradients[1])))


@REVERSE
def test_no_step_sees_later_ones_and_no_row_sees_others(laws, case, strategy, reverse):
    cell = case.cell(3)
    p, run = laws.problem(cell), laws.runner(cell, strategy, reverse)
    want = run(p)
    for t in range(p.xs.shape[1]):
        xs = p.xs.copy()
        xs[:, t] += 1.0
        unseen = slice(t + 1, None) if reverse else slice(t)
        laws.same(run(p._replace(xs=xs)).ys[:, unseen], want.ys[:, unseen], 1e-13)
    others = p._replace(xs=p.xs.copy(), carry=jax.tree.map(np.copy, p.carry))
    for x in (others.xs, *jax.tree.leaves(others.carry)):
        x[1:] += 1.0
    got = run(others)
    laws.same(*((r.ys[0], jax.tree.map(lambda c: c[0], r.carry)) for r in (got, want)), 1e-13)


# --- transformations


@functools.cache
def _transforms(laws, cell, strategy):
    """First and second derivatives, in one program."""

    def loss(params, xs, carry, *flags):
        if strategy == "loop":
            return laws.scalar(laws.loop(cell, params, xs, carry, *flags))
        return laws.scalar(cells.scan(cell, params, xs, carry, *flags, strategy=strategy))

    @laws.jit
    def derivatives(p, tangents):
        def grad(*args, loss=loss):
            return jax.grad(loss, (0, 1, 2))(*args, *p[3:])

        gradient, hvp = jax.jvp(grad, p[:3], tangents)
        result = {"gradient": gradient, "hessian-vector product": hvp}
        if strategy == "loop":
            return result
        _, jvp = jax.jvp(lambda *args: loss(*args, *p[3:]), p[:3], tangents)
        return result | {"checkpoint": grad(*p[:3], loss=jax.checkpoint(loss)), "jvp": jvp}

    @laws.jit
    def mapped(params, xs, carry, *flags):
        """Seeds x batches of inputs."""
        over_inputs = jax.vmap(loss, (None, 0, 0, 0, 0, 0))
        over_both = jax.vmap(over_inputs, (0, None, None, None, None, None))
        return jax.grad(lambda params: over_both(params, xs, carry, *flags).sum())(params)

    return derivatives, mapped


def test_transformations(laws, case, strategy):
    """jvp, grad, checkpoint, hessian-vector product, and the gradient of vmap over seeds and inputs."""
    cell = case.cell(3)
    p, q = (laws.problem(cell, (2, 3, 2), seed) for seed in (0, 1))
    derivatives, mapped = _transforms(laws, cell, strategy)
    got, want = derivatives(p, q[:3]), _transforms(laws, cell, "loop")[0](p, q[:3])
    gradient = want["gradient"]
    dot = sum(np.sum(g * t) for g, t in zip(jax.tree.leaves(gradient), jax.tree.leaves(q[:3]), strict=True))
    laws.same(got, want | {"checkpoint": gradient, "jvp": dot})

    stacked = jax.tree.map(lambda *x: np.stack(x), p, q)
    pairs = [[derivatives(x._replace(params=s.params), q[:3])["gradient"][0] for x in (p, q)] for s in (p, q)]
    sums = [jax.tree.map(np.add, *pair) for pair in pairs]
    laws.same(mapped(*stacked), jax.tree.map(lambda *x: np.stack(x), *sums), what="vmap")


# --- precision


def test_float32_and_bfloat16(laws, case, strategy):
    """float32 within 2e-5 of float64; bfloat16 within 8%, its outputs bfloat16, its carry float32.

    bfloat16 inputs to float32 parameters are computed in float32.
    """
    cell = case.cell(3)
    p = laws.problem(cell)
    want = laws.runner(cell, "loop")(p)
    with jax.enable_x64(False):
        for dtype, tolerance in ((jnp.float32, 2e-5), (jnp.bfloat16, 0.08)):
            low = jax.tree.map(lambda x, dtype=dtype: jnp.asarray(x, dtype), p[:3])
            carry, ys = laws.jit(functools.partial(cells.scan, cell, strategy=strategy))(*low, *p[3:])
            assert ys.dtype == dtype and {c.dtype for c in jax.tree.leaves(carry)} == {np.dtype("float32")}
            laws.same((carry, ys), (want.carry, want.ys), tolerance, str(dtype))
        full = jax.tree.map(jnp.float32, p.params)
        mixed = jax.eval_shape(functools.partial(cells.scan, cell, strategy=strategy), full, low[1])
        assert {x.dtype for x in jax.tree.leaves(mixed)} == {np.dtype("float32")}


# --- long sequences


def _parallel():
    return [pytest.param(n, s, id=f"{n}-{s}") for n, s in _pairs() if s != "sequential"]


def _pairs():
    for name in cells.names():
        for strategy in cells.strategies(cells.get(name, hidden_size=1)):
            if strategy != "auto":
                yield name, strategy


@REVERSE
@pytest.mark.parametrize("name, how", _parallel())
def test_times_around_a_chunk(laws, name, how, reverse):
    """Values and gradients for times that are, and are not, a multiple of the chunk."""
    cell = cells.get(name, hidden_size=2)
    for time in (131,) if reverse else (linear.CHUNK, 130):
        p = laws.problem(cell, (2, time, 1))
        got, want = (laws.runner(cell, s, reverse)(p) for s in (how, "sequential"))
        laws.same(got, want)


@pytest.mark.parametrize("name, how", _parallel())
def test_long_sequences_in_float32(laws, name, how):
    """3,000 steps: every strategy within 1e-5 of the sequential one."""
    cell = cells.get(name, hidden_size=4)
    with jax.enable_x64(False):
        p = laws.problem(cell, (2, 3000, 3), flags=False, dtype=np.float32)
        run = jax.jit(functools.partial(cells.scan, cell), static_argnames="strategy")
        got, want = (run(*p[:3], strategy=s) for s in (how, "sequential"))
    laws.same(got, want, 1e-5)


# --- which strategy


def test_auto_names_a_strategy(case):
    cell = case.cell(2)
    for backend in ("cpu", "gpu", "tpu", None):
        assert scans.resolve(cell, "auto", backend) in cells.strategies(cell)
    assert scans.resolve(cell, "auto", "cpu") == "sequential"


def test_a_strategy_that_a_cell_cannot_use_is_refused(case):
    cell = case.cell(2)
    xs, params = jnp.ones((1, 2, 3)), cell.init(jax.random.key(0), 3)
    refused = set(scans.STRATEGIES) - set(cells.strategies(cell))
    assert cell.is_linear == ("associative" not in refused)
    for strategy in refused:
        with pytest.raises(
            ValueError, match=f"{type(cell).__name__} cannot use strategy '{strategy}': .*linear"
        ):
            cells.scan(cell, params, xs, strategy=strategy)
